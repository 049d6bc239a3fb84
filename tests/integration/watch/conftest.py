"""Real trees, real notifications, and a scan of the simplest kind."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kitd.errors import KitdError
from kitd.inotify import add_watch
from kitd.watch.identity import Identity, identify
from kitd.watch.inotify_hints import InotifyHints
from kitd.watch.project_watcher import ChangeSources, Intervals, Ports, ProjectWatcher, WatchMode
from kitd.watch.root_monitor import RootMonitor
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


def watch_directories(root: Path, inotify: int) -> set[int]:
    """Watch every directory below, as a scan does before it lists one."""
    watches = set()
    for directory, _, _ in os.walk(root):
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        watches.add(add_watch(inotify, handle))
        os.close(handle)
    return watches


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


class Watched:
    """A running watcher and everything it told."""

    def __init__(self, root: Path, hints: InotifyHints, mode: WatchMode) -> None:
        self.root = root
        self._hints = hints
        self._mode = mode
        self.remote: str | None = None
        """The file system that the next scans find."""
        self.settled: list[str] = []
        self.told_while: list[str] = []
        """What state it was in while each was told."""
        self.states: list[WatchState] = []
        self.scans = 0
        self.passing: list[KitdError] = []
        """What the next scans fail with."""
        self.watcher: ProjectWatcher
        self._loop = asyncio.get_running_loop()

    async def scan(self, began: Callable[[Identity], None]) -> Observation:
        self.scans += 1
        identity = identify(self.root)
        if identity is None:
            return Broken(KitdError(f"there is no directory {self.root}"))
        began(identity)
        if self.passing:
            return Broken(self.passing.pop())
        with self._hints.scanning():
            try:
                return Snapshot(await asyncio.to_thread(self._look))
            except OSError as error:
                return Broken(KitdError(f"cannot scan: {error}"))

    def _look(self) -> str:
        if self._mode.is_hinted:
            assert self._hints.descriptor is not None
            watches = watch_directories(self.root, self._hints.descriptor)
            self._loop.call_soon_threadsafe(self._tell, watches)
        return fingerprint(self.root)

    def _tell(self, watches: set[int]) -> None:
        self._hints.watched("demo", watches, complete=True, refused=None, remote=self.remote)

    async def on_settled(self, seen: str) -> None:
        self.told_while.append(self.state)
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
        remote: str | None = None,
    ) -> AsyncIterator[Watched]:
        monitor = RootMonitor(sweep_s=0.1)
        async with InotifyHints() as hints:
            watched = Watched(at, hints, mode)
            watched.remote = remote
            watched.watcher = ProjectWatcher(
                "demo",
                at,
                mode,
                settle,
                Ports(watched.scan, watched.on_settled, watched.states.append),
                ChangeSources(hints, monitor, intervals or Intervals(broken_s=0.1)),
            )
            if known:
                watched.watcher.packed(fingerprint(at))
            tasks = [
                asyncio.create_task(watched.watcher.run()),
                asyncio.create_task(monitor.run()),
            ]
            try:
                if known and mode is not WatchMode.OFF:
                    await until(lambda: watched.scans and watched.state in ("idle", "degraded"))
                yield watched
            finally:
                for task in tasks:
                    task.cancel()
                async with asyncio.timeout(15):
                    await asyncio.wait(tasks)
                for task in tasks:
                    assert task.cancelled(), task.exception()

    return watch
