"""Golden cases: projects, and what kit made of them."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).parent
CASES = yaml.safe_load((HERE / "kits/cases.yaml").read_text())
EXPECTED = json.loads((HERE / "kits/expected.json").read_text())


def _content(entry: str | dict[str, Any]) -> bytes:
    if isinstance(entry, str):
        return entry.encode()
    blocks = range(entry["size"] // 32 + 1)
    stream = b"".join(hashlib.sha256(f"{entry['seed']}:{i}".encode()).digest() for i in blocks)
    return stream[: entry["size"]]


def _materialise(case: dict[str, Any], root: Path) -> Path:
    """Create a case's files; modes are set explicitly, whatever the umask."""
    files = {"Kitfile": case["kitfile"], **case.get("files", {})}
    if "kitignore" in case:
        files[".kitignore"] = case["kitignore"]
    for name in case.get("dirs", {}):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, entry in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_content(entry))
        path.chmod(int(entry.get("mode", "644"), 8) if isinstance(entry, dict) else 0o644)
    for name, target in case.get("links", {}).items():
        (root / name).symlink_to(target)
    for directory, _, _ in os.walk(root):
        Path(directory).chmod(0o755)
    for name, mode in case.get("dirs", {}).items():
        (root / name).chmod(int(mode, 8))
    return root


@pytest.fixture
def materialise(tmp_path):
    """Create a case in an empty directory and return that."""

    def create(case: dict[str, Any]) -> Path:
        root = tmp_path / case["name"]
        root.mkdir()
        return _materialise(case, root)

    return create


def pytest_generate_tests(metafunc):
    """Run a test that takes `case` and `expected` once for each golden case."""
    if {"case", "expected"} <= set(metafunc.fixturenames):
        pairs = list(zip(CASES, EXPECTED, strict=True))
        names = [case["name"] for case in CASES]
        metafunc.parametrize(("case", "expected"), pairs, ids=names)


@pytest.fixture
def kit_storage() -> Path:
    """The storage that kit wrote."""
    return HERE / "kit-storage"


@pytest.fixture
def golden_cases() -> dict[str, dict[str, Any]]:
    """Every case by its name."""
    return {case["name"]: case for case in CASES}
