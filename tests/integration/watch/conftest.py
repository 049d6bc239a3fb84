"""Real trees, real notifications, and a scan of the simplest kind."""

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kitd.errors import KitdError
from kitd.watch.project_watcher import Intervals, Ports, ProjectWatcher, WatchMode
from kitd.watch.settle import Broken, Observation, SettleConfig, Snapshot, WatchState

QUICK = SettleConfig(quiet_s=0.3)


def fingerprint(root: Path) -> str:
    """Digest names and contents of the files below: touching one changes nothing."""
    hasher = hashlib.sha256()
    for directory, names, files in os.walk(os.fsencode(root)):
        names.sort()
        for name in sorted(files):
            path = os.path.join(directory, name)
            hasher.update(b"%s\0%d\0" % (path, os.stat(path).st_size))
            with open(path, "rb") as file:
                hasher.update(file.read())
    return hasher.hexdigest()


@pytest.fixture
def until():
    """Poll for a condition, with a deadline."""

    async def until(condition: Callable[[], object], within_s: float = 15.0) -> None:
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(0.01)

    return until


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    directory.mkdir()
    return directory


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    assert [t.name for t in threading.enumerate() if t.name.startswith("hints:")] == []


class Watched:
    """A running watcher and everything it told."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settled: list[str] = []
        self.states: list[WatchState] = []
        self.scans = 0
        self.passing: list[KitdError] = []
        """What the next scans fail with."""
        self.watcher: ProjectWatcher

    async def scan(self) -> Observation:
        self.scans += 1
        if self.passing:
            return Broken(self.passing.pop())
        try:
            return Snapshot(await asyncio.to_thread(fingerprint, self.root))
        except OSError as error:
            return Broken(KitdError(f"cannot scan: {error}"))

    async def on_settled(self, seen: str) -> None:
        self.settled.append(seen)

    @property
    def current(self) -> bool:
        """Whether what was told last is what the tree is."""
        return self.settled[-1:] == [fingerprint(self.root)]

    @property
    def state(self) -> str:
        return self.watcher.state.state


@pytest.fixture
def watch(root: Path, until: Callable[..., Awaitable[None]]):
    """Watch `root` while the context is open; it begins with a tree that is known."""

    @asynccontextmanager
    async def watch(
        mode: WatchMode = WatchMode.NATIVE,
        *,
        at: Path = root,
        known: bool = True,
        settle: SettleConfig = QUICK,
        intervals: Intervals | None = None,
    ) -> AsyncIterator[Watched]:
        watched = Watched(at)
        watched.watcher = ProjectWatcher(
            "demo",
            at,
            mode,
            settle,
            Ports(watched.scan, watched.on_settled, watched.states.append),
            intervals=intervals or Intervals(missing_s=0.1),
        )
        if known:
            watched.watcher.packed(fingerprint(at))
        task = asyncio.create_task(watched.watcher.run())
        try:
            if known and mode is not WatchMode.OFF:
                await until(lambda: watched.scans and watched.state in ("idle", "degraded"))
            yield watched
        finally:
            stopping_s = time.monotonic()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled(), task.exception()
            assert time.monotonic() - stopping_s < 0.5

    return watch
