"""One project under each source of hints, with a walk that places watches as a scan does."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kitd.inotify import add_watch
from kitd.watch.hints import HintError, Hints, Subscription
from kitd.watch.identity import identify
from kitd.watch.inotify_hints import InotifyHints
from kitd.watch.watchfiles_hints import WatchfilesHints


def place_watches(inotify: int, root: Path) -> list[int]:
    """Watch every directory that is entered, before it is listed; follow no link."""
    placed: list[int] = []

    def enter(directory: int) -> None:
        placed.append(add_watch(inotify, directory))
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        for name in names:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            child = os.open(name, flags, dir_fd=directory)
            try:
                enter(child)
            finally:
                os.close(child)

    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        enter(handle)
    finally:
        os.close(handle)
    return placed


class Project:
    """What one subscriber heard, and how it scans."""

    def __init__(self, hints: Hints, name: str, root: Path) -> None:
        self.hints = hints
        self.name = name
        self.root = root
        self.heard = 0
        self.gaps = 0
        self.health: list[HintError | None] = []
        self.subscription: Subscription

    def hint(self) -> None:
        self.heard += 1

    def gap(self) -> None:
        self.gaps += 1

    async def scan(self) -> None:
        identity = identify(self.root)
        if identity is None:
            return
        self.subscription.expect(identity)
        with self.hints.scanning():
            if self.hints.descriptor is not None:
                placed = await asyncio.to_thread(place_watches, self.hints.descriptor, self.root)
                self.hints.watched(self.name, placed, complete=True, refused=None, remote=None)

    @property
    def told(self) -> int:
        """How often there was a reason to scan: a hint, or a gap, which calls for one as well."""
        return self.heard + self.gaps

    @property
    def works(self) -> bool:
        return self.health[-1:] == [None]


@pytest.fixture
def until():
    """Poll for a condition, with a deadline."""

    async def until(condition: Callable[[], object], within_s: float = 30.0) -> None:
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(0.01)

    return until


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    directory.mkdir()
    return directory


@pytest.fixture(params=["inotify", "watchfiles"])
async def hints(request: pytest.FixtureRequest) -> AsyncIterator[Hints]:
    """Every source there is."""
    if request.param == "watchfiles":
        yield WatchfilesHints()
    elif sys.platform == "linux":
        async with InotifyHints() as source:
            yield source
    else:
        pytest.skip("inotify is Linux's")


@pytest.fixture
def subscribed(hints: Hints, root: Path, until: Callable[..., Awaitable[None]]):
    """Subscribe a project and scan it once: from then on its changes are hinted."""

    @asynccontextmanager
    async def subscribed(name: str = "demo", at: Path = root) -> AsyncIterator[Project]:
        project = Project(hints, name, at)
        async with hints.subscribe(
            name, at, on_hint=project.hint, on_gap=project.gap, on_health=project.health.append
        ) as project.subscription:
            await until(lambda: project.gaps)
            await project.scan()
            await until(lambda: project.works)
            yield project

    return subscribed


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    assert [t.name for t in threading.enumerate() if t.name.startswith("hints:")] == []
