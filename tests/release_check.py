"""Whether what `make dist` built can be let out: `make release-check`.

The changelog has the version and its day. The bill of materials is of this wheel and says what the
lock says. The wheel says what it is; it and the sdist hold what git knows and nothing else; the
sdist, and the sources here, give the same wheel byte for byte. Then the wheel is installed alone,
with what the lock names, in a fresh environment of every supported Python at hand, and tells the
story of the README from there.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from release import bill_faults, changelog_faults, sdist_faults, wheel_faults  # noqa: E402 - beside this program, however it is started


def supported() -> list[str]:
    """Return the versions of Python that the package says it runs on."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text)


def candidates(version: str) -> Iterator[str]:
    """Return commands that may be this Python: on the PATH, or kept by pyenv."""
    if found := shutil.which(f"python{version}"):
        yield found
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    yield from sorted(str(path) for path in pyenv.glob(f"{version}.*/bin/python"))


def is_python(command: str, version: str) -> bool:
    """Whether a command is that Python and can make environments; pyenv's shims may be neither."""
    program = "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([command, "-c", program], capture_output=True, text=True, check=False)
    return done.returncode == 0 and done.stdout.strip() == version


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Return what a command printed; one that fails is the end."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        # Nothing of the checkout, and nothing of who runs this.
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    if done.returncode != 0:
        raise SystemExit(
            f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}"
        )
    return done.stdout


def build_wheel(source: Path, to: Path) -> Path:
    """Build a wheel of a tree with the locked tools."""
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", to, source)
    (wheel,) = to.glob("*.whl")
    return wheel


def check_builds(wheel: Path, sdist: Path, place: Path) -> None:
    """Build again, from the sdist and from here. Raises `SystemExit` if a byte differs."""
    with tarfile.open(sdist) as archive:
        archive.extractall(place / "sdist", filter="data")
    (unpacked,) = (place / "sdist").iterdir()
    for what, tree in (("sdist", unpacked), ("checkout", ROOT)):
        again = build_wheel(tree, place / f"wheel-of-{what}")
        if again.read_bytes() != wheel.read_bytes():
            raise SystemExit(f"the {what} gives another wheel than {wheel.name}")
        print(f"the {what} gives the same wheel")


def try_wheel(python: str, wheel: Path, version: str, place: Path) -> None:
    """Install the wheel in a fresh environment and run the story there. Raises `SystemExit`."""
    run(python, "-m", "venv", place / "venv")
    pip = [place / "venv/bin/pip", "--disable-pip-version-check", "install", "--quiet"]
    run(*pip, "--require-hashes", "-r", ROOT / "requirements.lock", cwd=place)
    run(*pip, "--no-index", "--no-deps", wheel, cwd=place)
    run(place / "venv/bin/pip", "--disable-pip-version-check", "check", cwd=place)
    said = run(place / "venv/bin/kitd", "version", cwd=place)
    if not said.startswith(f"kitd {version} "):
        raise SystemExit(f"the wheel is of {version}, and kitd says {said.strip()}")
    shutil.copy(ROOT / "tests/e2e/demo.py", place)
    story = run(place / "venv/bin/python", "-I", "demo.py", cwd=place)
    print(f"{said.strip()}: {story.strip().splitlines()[-1]}")


def main() -> None:
    """Check a directory with one wheel, one sdist and one bill of materials."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dist", type=Path)
    parser.add_argument(
        "--unreleased", action="store_true", help="whatever the newest in the changelog is"
    )
    options = parser.parse_args()
    dist = options.dist.absolute()
    (wheel,) = dist.glob("*.whl")
    (sdist,) = dist.glob("*.tar.gz")
    (bill,) = dist.glob("*.cdx.json")
    version = wheel.name.split("-")[1]
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    faults = [*wheel_faults(wheel), *sdist_faults(sdist), *bill_faults(bill, wheel, lock)]
    if not options.unreleased:
        faults += changelog_faults((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    if faults:
        raise SystemExit("\n".join(faults))
    print(f"{wheel.name}, {sdist.name} and {bill.name} hold what they should")
    with tempfile.TemporaryDirectory(prefix="kitd-release-") as name:
        check_builds(wheel, sdist, Path(name))
    tried = 0
    for minor in supported():
        python = next((each for each in candidates(minor) if is_python(each, minor)), None)
        if python is None:
            print(f"Python {minor} is not at hand: not tried")
            continue
        with tempfile.TemporaryDirectory(prefix="kitd-release-") as name:
            try_wheel(python, wheel, version, Path(name))
        tried += 1
    if not tried:
        raise SystemExit("no supported Python is at hand")


if __name__ == "__main__":
    main()
