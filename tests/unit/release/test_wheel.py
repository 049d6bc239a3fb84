"""What is released says one version and holds what it should."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from finish_bill import finished
from kitd import __version__
from release import bill_faults, changelog_faults, shipped, sources, wheel_faults

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Build a wheel of these sources; returns its path."""

    def build(time_s):
        to = tmp_path_factory.mktemp("dist")
        subprocess.run(
            [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", to, ROOT],
            env={**os.environ, "SOURCE_DATE_EPOCH": str(time_s)},
            capture_output=True,
            check=True,
        )
        (wheel,) = to.glob("*.whl")
        return wheel

    return build


def test_a_wheel_can_be_let_out_and_is_the_same_each_time(build):
    """All of the package, the examples and the units, no tests; valid metadata; the same bytes."""
    wheel = build(1_700_000_000)

    assert wheel_faults(wheel) == []
    assert wheel.read_bytes() == build(1_700_000_000).read_bytes()


DECOYS = ("config/registry-auth.json", "config/kubernetes/login.yaml", "kitd/notes.txt", ".env")


def test_what_lies_about_is_let_out_by_nothing(tmp_path):
    """A password beside the examples goes neither into a wheel nor into an sdist."""
    tree, dist = tmp_path / "tree", tmp_path / "dist"
    for name in sources():
        if not name.startswith(("tests/", "benchmarks/")):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    for name in DECOYS:
        (tree / name).write_text("not-a-password\n")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", dist]
    subprocess.run([*command, "--sdist", "--wheel", tree], check=True, capture_output=True)
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive, tarfile.open(sdist) as packed:
        built = set(archive.namelist())
        names = [*built, *packed.getnames()]

    assert [name for name in names for decoy in DECOYS if name.endswith(decoy)] == []
    assert built.issuperset(shipped())


@pytest.fixture
def repository(tmp_path):
    """A repository with a Makefile in a commit of 2001; returns it and what starts make there."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    git = ["git", "-c", "user.name=kitd", "-c", "user.email=kitd@example.com"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "kitd"]):
        subprocess.run(
            [*git, *command],
            cwd=tmp_path,
            env={**os.environ, "GIT_COMMITTER_DATE": "1000000000 +0000"},
            check=True,
        )

    def make(*arguments, place=tmp_path):
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "SOURCE_DATE"))}
        return subprocess.run(
            ["make", *arguments],
            cwd=place,
            env=environ,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )

    return tmp_path, make


@pytest.mark.parametrize("change", ["registry-auth.json", "Makefile"])
def test_nothing_is_built_of_what_is_not_committed(repository, change):
    """A new file and a changed one stop a build and are named, unless they are wanted."""
    place, make = repository
    assert make("committed").returncode == 0
    with (place / change).open("a") as file:
        file.write("# not in the commit\n")

    refused = make("committed")

    assert refused.returncode != 0
    assert change in refused.stdout
    assert make("committed", "UNCOMMITTED=1").returncode == 0


@pytest.mark.parametrize("target", ["dist", "image", "sbom", "release-check"])
def test_all_that_builds_asks_for_the_commit(repository, target):
    """Whatever is let out is built after that question."""
    _, make = repository

    assert "git status --porcelain" in make("--dry-run", target).stdout


APACHE = "License :: OSI Approved :: Apache Software License"
LOCK = """\
colorama==0.4.6 ; os_name == 'nt' \\
    --hash=sha256:00
py-yaml==6.0 \\
    --hash=sha256:00
"""


@pytest.fixture
def bill(tmp_path):
    """Write a bill of a wheel with one package, as `changed`; returns what is wrong with it."""
    wheel, path = tmp_path / "kitd.whl", tmp_path / "kitd.cdx.json"
    wheel.write_bytes(b"a wheel")

    def faults(changed=lambda document: None):
        package = {"name": "py_yaml", "version": "6.0", "purl": "pkg:pypi/py-yaml@6.0"}
        package["licenses"] = [{"license": {"name": APACHE, "acknowledgement": "declared"}}]
        kitd = {"name": "kitd", "version": __version__}
        document = finished({"metadata": {"component": kitd}, "components": [package]}, wheel)
        changed(document)
        path.write_text(json.dumps(document))
        return bill_faults(path, wheel, LOCK)

    return faults


def test_a_bill_that_can_be_let_out(bill):
    """It describes the wheel, and has each package of the lock with a licence that has a name."""
    assert bill() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda bill: bill["metadata"]["component"].pop("purl"), "describes None"),
        (lambda bill: bill["metadata"]["component"].pop("hashes"), "another wheel"),
        (lambda bill: bill["components"].clear(), "py-yaml is not in the bill"),
        (lambda bill: bill["components"][0].update(version="5.4"), "has py-yaml 5.4, the lock 6.0"),
        (lambda bill: bill["components"][0].update(purl=None), "calls py-yaml None"),
        (lambda bill: bill["components"][0].pop("licenses"), "no identifier"),
        (
            lambda bill: bill["components"][0].update(licenses=[{"license": {"name": "BSD"}}]),
            "no identifier",
        ),
    ],
)
def test_what_is_wrong_with_a_bill_is_told(bill, change, said):
    """Each as a fault of its own."""
    assert said in "\n".join(bill(change))


def test_a_release_is_in_the_changelog():
    """With its version and its day, before all others."""
    older = "\n\n## 0.0.1 (2025-01-01)\n"

    assert changelog_faults(f"# Changelog\n\n## {__version__} (2026-01-31){older}") == []
    for newest in ("Unreleased", __version__, f"{__version__}1 (2026-01-31)"):
        assert changelog_faults(f"# Changelog\n\n## {newest}{older}") != []


def dry_run(target):
    """Return the commands of a target, as if nothing had been made yet."""
    command = ["make", "--dry-run", "--always-make", target]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    said = subprocess.run(
        command, cwd=ROOT, env=environ, check=True, capture_output=True, text=True
    ).stdout
    return said.replace("\\\n", " ").splitlines()


def test_every_lock_moves():
    """`make lock` takes no version from the file that it is about to write."""
    commands = [line for line in dry_run("lock") if " pip compile " in line]
    written = {line.rpartition(" -o ")[2] for line in commands}

    assert all("--upgrade" in line and "--generate-hashes" in line for line in commands)
    assert written == {name for name in sources() if name.endswith(".lock")}


@pytest.mark.parametrize("target", ["lock", "sbom", "site", ".venv/.dev"])
def test_environments_hold_what_the_locks_name(target):
    """pip installs what has a hash, and what is here; also to build it, it fetches nothing."""
    installs = [line for line in dry_run(target) if re.search(r"/pip .*\binstall ", line)]

    assert installs
    for line in installs:
        alone = "--no-index" in line or "--no-build-isolation" in line
        assert "--require-hashes" in line or ("--no-deps" in line and alone), line


def test_an_sdist_is_as_old_as_its_commit(repository):
    """Unpacked in another repository it has its own time, and no revision."""
    place, make = repository
    unpacked = place / "kitd-0.1.0"
    unpacked.mkdir()
    shutil.copy(ROOT / "Makefile", unpacked)
    (unpacked / "PKG-INFO").touch()
    os.utime(unpacked / "PKG-INFO", (1_200_000_000, 1_200_000_000))

    assert "SOURCE_DATE_EPOCH=1000000000 " in make("--dry-run", "image").stdout
    said = make("--dry-run", "image", place=unpacked).stdout
    assert "SOURCE_DATE_EPOCH=1200000000 " in said
    assert "--build-arg REVISION= " in said


def test_the_version_stands_in_one_place():
    """A release changes kitd/__init__.py, and everything else follows."""
    known = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\0")
    if known == [""]:
        pytest.skip("what is a source is told by git")
    # A number such as this is a version of kitd only where it is said to be one.
    said = re.compile(rf"kitd[-_ :/v@]*{re.escape(__version__)}|^version ?= ", re.MULTILINE)
    places = {
        path
        for path in known
        if path.endswith((".py", ".toml", ".yaml", ".service"))
        or path in {"Makefile", "Dockerfile"}
        if not path.startswith("tests/")
        if said.search((ROOT / path).read_text(encoding="utf-8"))
    }

    assert places == set()
    assert (ROOT / "kitd/__init__.py").read_text(encoding="utf-8").count(__version__) == 1


def test_the_supported_versions_of_python_are_said_alike():
    """The classifiers are the claim; README and the least version follow."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    claimed = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)
    (least,) = re.findall(r'^requires-python = ">=(.*)"$', project, flags=re.MULTILINE)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert claimed[0] == least
    assert f"tested with Python {', '.join(claimed[:-1])} and {claimed[-1]}" in readme
