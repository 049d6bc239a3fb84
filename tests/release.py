"""What is in a wheel, in an sdist and in a bill of materials that can be let out."""

import configparser
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from packaging.metadata import Metadata, RawMetadata, parse_email
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
MADE = {
    ".hypothesis",
    ".import_linter_cache",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".venv",
    "__pycache__",
    "build",
    "dist",
}
"""Directories that may lie in an unpacked sdist without having been in it."""
COMMANDS = {"kitd": "kitd.__main__:main", "kitctl": "kitd.ctl.main:run"}


def version() -> str:
    """Return the version, from the only place where it stands."""
    text = (ROOT / "kitd/__init__.py").read_text(encoding="utf-8")
    return text.split('__version__ = "')[1].split('"')[0]


def sources() -> list[str]:
    """Return the files that are ours: those that git knows, or what an sdist was unpacked to."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z"]
        known = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        return known.stdout.rstrip("\0").split("\0")
    return [
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*")
        if path.is_file() and not any(part in MADE for part in path.relative_to(ROOT).parts)
    ]


def shipped() -> Iterator[str]:
    """Return what the wheel holds beside its description, by the names it has there."""
    for path in sources():
        if path.startswith("kitd/"):
            yield path
        elif path.startswith(("config/", "systemd/")):
            yield f"kitd-{version()}.data/data/share/kitd/{path}"
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, ROOT / "docs/man.py", place]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for path in Path(place).rglob("*.[15]"):
            yield f"kitd-{version()}.data/data/share/man/{path.relative_to(place)}"


def wheel_faults(wheel: Path) -> list[str]:
    """Return what is wrong with a wheel: nothing, if it can be let out."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = f"kitd-{version()}.dist-info"
        described = {name for name in names if name.startswith(f"{info}/")}
        expected = set(shipped())
        faults = [f"{name} is not in the wheel" for name in sorted(expected - names)]
        faults += [f"{name} is in the wheel" for name in sorted(names - expected - described)]
        if f"{info}/licenses/LICENSE" not in described:
            faults.append("the licence is not in the wheel")
        raw, unknown = parse_email(archive.read(f"{info}/METADATA"))
        faults += [f"the metadata has {name}" for name in sorted(unknown)]
        faults += _metadata_faults(raw)
        scripts = configparser.ConfigParser()
        scripts.read_string(archive.read(f"{info}/entry_points.txt").decode())
        if dict(scripts["console_scripts"]) != COMMANDS:
            faults.append(f"the commands are {dict(scripts['console_scripts'])}")
    return faults


def sdist_faults(sdist: Path) -> list[str]:
    """Return what is wrong with an sdist: nothing, if it holds the sources and no more."""
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    expected = {*sources(), "PKG-INFO"}
    faults = [f"{name} is not in the sdist" for name in sorted(expected - names)]
    return faults + [f"{name} is in the sdist" for name in sorted(names - expected)]


def bill_faults(bill: Path, wheel: Path, lock: str) -> list[str]:
    """Return what is wrong with a bill: nothing, if it describes the wheel with what the lock pins.

    What the lock has for other platforms and other Pythons need not be in it.
    """
    document = json.loads(bill.read_text(encoding="utf-8"))
    described = document["metadata"]["component"]
    faults = []
    if described.get("purl") != f"pkg:pypi/kitd@{version()}":
        faults.append(f"the bill describes {described.get('purl')}")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if [each["content"] for each in described.get("hashes", [])] != [digest]:
        faults.append("the bill is of another wheel")
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE))
    found = {canonicalize_name(each["name"]): each for each in document["components"]}
    for name, each in found.items():
        if pinned.get(name) != each["version"]:
            faults.append(f"the bill has {name} {each['version']}, the lock {pinned.get(name)}")
        if each.get("purl") != f"pkg:pypi/{name}@{each['version']}":
            faults.append(f"the bill calls {name} {each.get('purl')}")
        licences = each.get("licenses") or [{}]
        if not all("expression" in one or "id" in one.get("license", {}) for one in licences):
            faults.append(f"the bill has no identifier of {name}'s licence")
    # Those without a marker are needed everywhere.
    needed = re.findall(r"^([\w.-]+)==\S+ \\$", lock, re.MULTILINE)
    return faults + [f"{name} is not in the bill" for name in needed if name not in found]


def changelog_faults(changelog: str) -> list[str]:
    """Return what is wrong with a changelog: nothing, if this version and its day begin it."""
    newest = re.search(r"^## (.+)$", changelog, re.MULTILINE)
    said = newest[1] if newest else "nothing"
    if re.fullmatch(rf"{re.escape(version())}\b.*\b\d{{4}}-\d\d-\d\d\b.*", said):
        return []
    return [f"the newest in the changelog is {said!r}, not {version()} with its day"]


def _metadata_faults(raw: RawMetadata) -> Iterator[str]:
    # Raises for whatever an index would refuse.
    metadata = Metadata.from_raw(raw, validate=True)
    if str(metadata.version) != version():
        yield f"the metadata says version {metadata.version}"
    if metadata.license_expression != "Apache-2.0":
        yield f"the metadata says licence {metadata.license_expression}"
    if metadata.description_content_type != "text/markdown" or not metadata.description:
        yield "the metadata has no description in Markdown"
    if metadata.requires_python is None or not metadata.requires_python.contains("3.11"):
        yield f"the metadata asks for Python {metadata.requires_python}"
