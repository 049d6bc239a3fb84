"""Projects on a real disk and real packing processes."""

import asyncio
import importlib.util
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_asyncio

from kitd.packing.pool import WorkerPool
from kitd.store.blob_store import BlobStore

_SPEC = importlib.util.spec_from_file_location(
    "golden_cases", Path(__file__).parents[2] / "golden" / "conftest.py"
)
_GOLDEN = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_GOLDEN)
materialise = _GOLDEN.materialise
golden_cases = _GOLDEN.golden_cases
pytest_generate_tests = _GOLDEN.pytest_generate_tests


@pytest.fixture
def store(tmp_path):
    store = BlobStore(tmp_path / "cache")
    store.create()
    return store


class Daemon:
    """The other side of the work: remembers what it is told, and may know layers."""

    def __init__(self):
        self.notices = []
        self.layers = {}
        self.asked = []
        self.kits = {}
        self._reactions = {}

    def on(self, kind, reaction):
        """Do something when a notice of this kind comes for the first time."""
        self._reactions[kind] = reaction

    def tell(self, notice):
        self.notices.append(notice)
        self._reactions.pop(type(notice), lambda _: None)(notice)

    def known_layers(self, keys):
        self.asked.append(keys)
        return {key: self.layers[key] for key in keys if key in self.layers}

    def parents(self, reference, authors):
        return self.kits[reference]


@pytest.fixture
def daemon():
    return Daemon()


@pytest.fixture
def project(tmp_path):
    """Write a project's files, text or bytes by path, and return its directory."""

    def write(files, root=tmp_path / "project") -> Path:
        root.mkdir(exist_ok=True)
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return root

    return write


@pytest.fixture
def small_store(mount_disk):
    """Return a store on a disk of four megabytes."""
    store = BlobStore(mount_disk("4m") / "cache")
    store.create()
    return store


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_cache(tmp_path_factory):
    store = BlobStore(tmp_path_factory.mktemp("shared") / "cache")
    store.create()
    return store


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_pool(shared_cache):
    """A pool for all tests of a module, because its warm worker is what makes them quick."""
    async with WorkerPool(shared_cache.root) as pool:
        yield pool


@pytest.fixture
def children() -> Callable[[], set[int]]:
    """Return the processes that this one has started and not waited for, zombies too."""

    def find() -> set[int]:
        found = set()
        for name in os.listdir("/proc"):
            try:
                status = Path(f"/proc/{name}/stat").read_text() if name.isdigit() else ""
            except (FileNotFoundError, ProcessLookupError):
                continue
            if status and int(status.rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(name))
        return found

    before = find()
    return lambda: find() - before


@pytest.fixture
def until() -> Callable[..., object]:
    """Wait for a condition, at most ten seconds."""

    async def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.002)

    return wait
