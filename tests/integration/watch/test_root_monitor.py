"""Roots that become others without a notification, machines that slept, servers that hang."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kitd.watch.identity import Identity, identify
from kitd.watch.root_monitor import MAX_HANGING, RootMonitor, asleep_s

SWEEP_S = 0.02


@asynccontextmanager
async def running(monitor: RootMonitor) -> AsyncIterator[RootMonitor]:
    task = asyncio.create_task(monitor.run())
    try:
        yield monitor
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task.exception()


class Watcher:
    """A project that scans whenever it is told to."""

    def __init__(self, monitor: RootMonitor, root: Path) -> None:
        self.root = root
        self.scans = 0
        self.context = monitor.watch(root, self.scan)
        self.monitored = self.context.__enter__()

    def scan(self) -> None:
        self.scans += 1
        self.monitored.expect(identify(self.root))


async def test_a_root_that_goes_and_comes_back_is_noticed_each_time(root: Path, until):
    async with running(RootMonitor(sweep_s=SWEEP_S)) as monitor:
        watcher = Watcher(monitor, root)
        watcher.scan()
        root.rmdir()
        await until(lambda: watcher.scans == 2)
        root.mkdir()
        await until(lambda: watcher.scans == 3)


async def test_a_root_that_was_swapped_from_above_is_noticed(tmp_path: Path, until):
    root = tmp_path / "parent" / "project"
    root.mkdir(parents=True)
    async with running(RootMonitor(sweep_s=SWEEP_S)) as monitor:
        watcher = Watcher(monitor, root)
        watcher.scan()
        (tmp_path / "parent").rename(tmp_path / "old")
        root.mkdir(parents=True)
        await until(lambda: watcher.scans == 2)


async def test_a_root_that_stays_is_left_alone(tmp_path: Path, until):
    """Its contents may change, and another one may be swapped."""
    async with running(RootMonitor(sweep_s=SWEEP_S)) as monitor:
        (tmp_path / "stays").mkdir()
        (tmp_path / "goes").mkdir()
        stays, goes = (
            Watcher(monitor, tmp_path / "stays"),
            Watcher(monitor, tmp_path / "goes"),
        )
        stays.scan()
        goes.scan()
        for scans in range(2, 5):
            (tmp_path / "stays" / f"{scans}").touch()
            (tmp_path / "goes").rename(tmp_path / f"gone-{scans}")
            (tmp_path / "goes").mkdir()
            await until(lambda scans=scans: goes.scans == scans)
        assert stays.scans == 1


async def test_a_root_without_a_scan_and_one_whose_guard_ended_are_not_told(tmp_path: Path, until):
    async with running(RootMonitor(sweep_s=SWEEP_S)) as monitor:
        for name in ("new", "ended", "told"):
            (tmp_path / name).mkdir()
        new, ended, told = (Watcher(monitor, tmp_path / name) for name in ("new", "ended", "told"))
        ended.scan()
        told.scan()
        ended.context.__exit__(None, None, None)
        for name in ("new", "ended", "told"):
            (tmp_path / name).rmdir()
        await until(lambda: told.scans == 2)
        assert (new.scans, ended.scans) == (0, 1)


async def test_after_a_sleep_of_the_machine_everybody_is_told(tmp_path: Path, until):
    asleep = [5.0]
    async with running(RootMonitor(sweep_s=SWEEP_S, asleep_s=lambda: asleep[0])) as monitor:
        one, other = Watcher(monitor, tmp_path), Watcher(monitor, tmp_path)
        asleep[0] += 0.5
        await asyncio.sleep(5 * SWEEP_S)  # for something that must not come
        assert one.scans == other.scans == 0
        asleep[0] += 3600.0
        await until(lambda: one.scans == other.scans == 1)
        await asyncio.sleep(5 * SWEEP_S)  # for something that must not come
        assert one.scans == 1


def test_this_machine_tells_how_long_it_slept():
    assert asleep_s() >= -0.001
    assert abs(asleep_s() - asleep_s()) < 0.5


class Disks:
    """Roots that are named by device, `1/a`; each answers once its device does."""

    def __init__(self) -> None:
        self.hanging: set[str] = set()
        self.answer = threading.Condition()
        self.version = 0
        self.waiting: list[str] = []

    def identify(self, root: Path) -> Identity:
        device = root.parts[0]
        with self.answer:
            if device in self.hanging:
                self.waiting.append(str(root))
            self.answer.wait_for(lambda: device not in self.hanging)
            return (int(device), self.version)

    def recover(self) -> None:
        with self.answer:
            self.hanging.clear()
            self.answer.notify_all()

    def change(self) -> None:
        with self.answer:
            self.version += 1


@pytest.fixture
def disks():
    disks = Disks()
    yield disks
    disks.recover()


@pytest.fixture
def guarded() -> Iterator[Callable[[RootMonitor, str], list[str]]]:
    """MonitoredRoot a root, which is expected to be as it was first; return its gaps."""
    with contextlib.ExitStack() as stack:

        def guarded(monitor: RootMonitor, root: str) -> list[str]:
            gaps: list[str] = []
            monitored = stack.enter_context(monitor.watch(Path(root), lambda: gaps.append(root)))
            monitored.expect((int(root.partition("/")[0]), 0))
            return gaps

        yield guarded


async def test_a_root_that_hangs_holds_up_nobody_on_another_device(disks: Disks, guarded, until):
    disks.hanging = {"1"}
    async with running(RootMonitor(sweep_s=SWEEP_S, identify=disks.identify)) as monitor:
        hanging, neighbour, other = (guarded(monitor, root) for root in ("1/a", "1/b", "2/a"))
        for changes in range(1, 4):
            disks.change()
            await until(lambda changes=changes: len(other) == changes)
        assert (hanging, neighbour) == ([], [])
        # One thread waits, however many roots are there.
        assert disks.waiting == ["1/a"]
        disks.recover()
        await until(lambda: hanging and neighbour)


async def test_threads_that_hang_are_bounded(disks: Disks, guarded, until):
    devices = [str(device) for device in range(1, MAX_HANGING + 4)]
    disks.hanging = set(devices)
    async with running(RootMonitor(sweep_s=SWEEP_S, identify=disks.identify)) as monitor:
        gaps = [guarded(monitor, f"{device}/a") for device in devices]
        disks.change()
        await until(lambda: len(disks.waiting) == MAX_HANGING)
        await asyncio.sleep(5 * SWEEP_S)  # for threads that must not come
        assert len(disks.waiting) == MAX_HANGING
        disks.recover()
        await until(lambda: all(gaps))


class Turnstile:
    """Roots of which each answers when the monitor looks whether the sweep gets on."""

    def __init__(self, roots: int) -> None:
        self.roots = roots
        self.looks = 0
        self.turns = -3
        """The first begins the run, the second the sweep, and the third finds its first root."""
        self.moved = threading.Condition()

    def identify(self, root: Path) -> Identity:
        with self.moved:
            self.looks += 1
            look = self.looks
            self.moved.notify_all()
            self.moved.wait_for(lambda: self.turns >= min(look, self.roots))
        return (1, 1)

    def asleep_s(self) -> float:
        """Let one root answer, and wait until the next is looked at."""
        with self.moved:
            self.turns += 1
            self.moved.notify_all()
            if self.turns >= 0:
                self.moved.wait_for(lambda: self.looks > min(self.turns, self.roots - 1))
        return 0.0


async def test_a_sweep_that_is_slow_but_gets_on_is_not_given_up(guarded, until):
    """Only a root that two looks in a row found waiting hangs."""
    turnstile = Turnstile(roots=10)
    monitor = RootMonitor(sweep_s=SWEEP_S, identify=turnstile.identify, asleep_s=turnstile.asleep_s)
    async with running(monitor):
        gaps = [guarded(monitor, f"1/{number}") for number in range(10)]
        await until(lambda: all(gaps))
    assert [len(gap) for gap in gaps] == [1] * 10
