"""Watching one project: hints and timers lead to scans, scans settle it, settled trees are told.

One task a project. Everything it does comes from a scan; hints and timers only say when to look.
What a scan is and what follows from a settled tree are ports.
"""

import asyncio
import contextlib
import enum
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from kitd.watch.hints import HintError, Hints, Subscription
from kitd.watch.identity import Identity
from kitd.watch.root_monitor import MonitoredRoot, RootMonitor
from kitd.watch.settle import (
    Broken,
    Observation,
    Scan,
    SettleConfig,
    Settled,
    Settler,
    State,
    WatchState,
)

POLL_SHARE = 20
"""A polled tree is scanned at most for one part in this many of the time."""
JITTER = 0.25
"""How much earlier or later than asked for a rescan may come, so that projects spread out."""

log = structlog.get_logger(__name__)


class WatchMode(enum.StrEnum):
    """How changes are noticed."""

    AUTO = "auto"
    """Hints, and polling while there are none."""
    NATIVE = "native"
    """Hints, and a rescan from time to time."""
    POLL = "poll"
    """Scans at an interval."""
    OFF = "off"
    """Not at all: only a rescan that is asked for."""

    @property
    def is_hinted(self) -> bool:
        """Whether notifications are of use."""
        return self in (WatchMode.AUTO, WatchMode.NATIVE)


@dataclass(frozen=True, slots=True)
class Ports:
    """What a watcher is connected to.

    `scan` does its work off the loop, calls what it is given with the directory it begins in, and
    reports everything that is wrong with the project as `Broken`. `on_settled` returns when the
    fingerprint is safely handed on. `on_state` is told every change of the state or its reason, not
    the passing of time. What the ports raise ends the watcher.
    """

    scan: Callable[[Callable[[Identity], None]], Awaitable[Observation]]
    on_settled: Callable[[str], Awaitable[None]]
    on_state: Callable[[WatchState], None]


@dataclass(frozen=True, slots=True)
class Intervals:
    """How often a tree is scanned that nobody hinted at."""

    rescan_s: float = 3600.0
    """With working hints, give or take `JITTER`."""
    poll_s: float = 5.0
    """Without hints; longer for trees that take long to scan, see `POLL_SHARE`."""
    broken_s: float = 2.0
    max_broken_s: float = 300.0
    """After a scan that failed the first of these, then twice as long each time up to the second:
    a disk that is back, a permission, a directory above the root give no hint."""


@dataclass(frozen=True, slots=True)
class ChangeSources:
    """What tells all watchers when to look."""

    hints: Hints
    root_monitor: RootMonitor
    intervals: Intervals = field(default_factory=Intervals)


class ProjectWatcher:
    """One project. `run` watches it; the other methods are for the loop that `run` runs in.

    To go on where an earlier process stopped, tell `packed` the last fingerprint before `run`.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        mode: WatchMode,
        settle: SettleConfig,
        ports: Ports,
        sources: ChangeSources,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._root = root
        self._mode = mode
        self._ports = ports
        self._sources = sources
        self._clock = clock
        self._settler = Settler(settle)
        self._wake = asyncio.Event()
        self._subscription: Subscription | None = None
        self._monitored: MonitoredRoot | None = None
        self._hint_error: HintError | None = None
        self._is_scanning = False
        self._is_announcing = False
        self._broken = 0
        """Scans in a row that failed."""
        self._scanned_s = -math.inf
        self._scan_duration_s = 0.0
        self._rescan_at_s = math.inf
        self._published: WatchState | None = None

    @property
    def state(self) -> WatchState:
        """What the watcher does now, and why nothing happens yet."""
        state = self._settler.state(self._clock())
        if state.state in (State.HELD, State.BLOCKED):
            return state
        if self._mode is WatchMode.OFF and self._settler.next_deadline_s() is None:
            return WatchState(State.IDLE, "watching is off: it is looked at when a rescan is asked")
        if self._is_scanning and not self._settler.looked:
            return WatchState(State.DIRTY, "it is being looked at")
        if state.state is not State.IDLE:
            return state
        if self._is_announcing:
            # Until then nothing else says that there is something to be done.
            return WatchState(State.DIRTY, "a pack of its new state is being asked for")
        if self._hint_error is not None:
            return WatchState(State.DEGRADED, self._hint_error.describe())
        return state

    def rescan(self) -> None:
        """Scan now, whatever the mode."""
        self._become(self._settler.rescan(self._clock()))

    def hold(self) -> None:
        """Scan and announce nothing until `release`."""
        self._become(self._settler.hold())

    def release(self) -> None:
        """End a hold, and look at the tree anew."""
        self._become(self._settler.release(self._clock()))

    def packed(self, fingerprint: str) -> None:
        """Note that a kit of this state exists."""
        self._become(self._settler.packed(fingerprint))

    def moved(self, fingerprint: str) -> None:
        """Note that the tree was not in this state any more when it was to be packed."""
        self._become(self._settler.moved(fingerprint, self._clock()))

    def failed(self, fingerprint: str) -> None:
        """Note that the pack of this state failed."""
        self._become(self._settler.failed(fingerprint, self._clock()))

    def cancelled(self, fingerprint: str) -> None:
        """Note that somebody cancelled the pack of this state."""
        self._become(self._settler.cancelled(fingerprint))

    def last_turn(self, at_s: float) -> None:
        """Note when a state was announced in an earlier life, on this life's clock."""
        self._become(self._settler.last_turn(at_s))

    async def run(self) -> None:
        """Watch until cancelled. Raises what the ports raise."""
        async with contextlib.AsyncExitStack() as stack:
            if self._mode is not WatchMode.OFF:
                self._monitored = stack.enter_context(
                    self._sources.root_monitor.watch(self._root, self.rescan)
                )
            if self._mode is WatchMode.POLL:
                self.rescan()
            elif self._mode.is_hinted:
                # The first scan waits for the first gap, which comes when changes are hinted, so
                # that none can slip in between.
                self._subscription = await stack.enter_async_context(
                    self._sources.hints.subscribe(
                        self._name,
                        self._root,
                        on_hint=self._hinted,
                        on_gap=self.rescan,
                        on_health=self._hints_changed,
                    )
                )
            while True:
                await self._step()

    async def _step(self) -> None:
        # Before the state is looked at, so that a wake-up in between is not lost.
        self._wake.clear()
        now_s = self._clock()
        if self._rescan_at_s <= now_s:
            # Not again before a scan has come of it: a hold may be in the way.
            self._rescan_at_s = math.inf
            self._settler = self._settler.rescan(now_s)
        decision = self._settler.due(now_s)
        self._publish()
        match decision:
            case Scan():
                await self._scan()
            case Settled(fingerprint):
                self._settler = self._settler.announced(fingerprint, now_s)
                self._is_announcing = True
                try:
                    await self._ports.on_settled(fingerprint)
                finally:
                    self._is_announcing = False
            case None:
                await self._sleep()

    async def _scan(self) -> None:
        started_s = self._clock()
        opened = []

        def began(identity: Identity) -> None:
            opened.append(identity)
            if self._subscription is not None:
                self._subscription.expect(identity)
            if self._monitored is not None:
                self._monitored.expect(identity)

        self._is_scanning = True
        try:
            observation = await self._ports.scan(began)
        finally:
            self._is_scanning = False
        if self._monitored is not None and not opened:
            self._monitored.expect(None)
        self._broken = self._broken + 1 if isinstance(observation, Broken) else 0
        self._scanned_s = self._clock()
        self._scan_duration_s = self._scanned_s - started_s
        self._settler = self._settler.scanned(observation, started_s, self._scanned_s)
        self._schedule_rescan()

    async def _sleep(self) -> None:
        deadline_s = self._settler.next_deadline_s()
        if deadline_s is None or deadline_s > self._rescan_at_s:
            deadline_s = self._rescan_at_s
        delay_s = None if deadline_s == math.inf else max(0.0, deadline_s - self._clock())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._wake.wait()

    def _schedule_rescan(self) -> None:
        """Set when the next scan comes that nothing else asks for, from the end of the last."""
        intervals = self._sources.intervals
        polled = self._mode is WatchMode.POLL or (
            self._mode is WatchMode.AUTO and self._hint_error is not None
        )
        if polled:
            interval_s = max(intervals.poll_s, POLL_SHARE * self._scan_duration_s)
        else:
            jitter = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - nothing secret
            interval_s = intervals.rescan_s * jitter
        if self._broken:
            pause_s = intervals.broken_s * 2.0 ** min(self._broken - 1, 32)
            interval_s = min(interval_s, intervals.max_broken_s, pause_s)
        if self._mode is WatchMode.OFF:
            interval_s = math.inf
        self._rescan_at_s = self._scanned_s + interval_s

    def _hinted(self) -> None:
        self._become(self._settler.hinted(self._clock()))

    def _hints_changed(self, error: HintError | None) -> None:
        known, self._hint_error = self._hint_error, error
        if error is None:
            if known is not None:
                log.info("watch.hints_back", project=self._name)
        elif known is None:
            log.warning("watch.hints_lost", project=self._name, reason=error.describe())
        # When the next scan comes depends on whether there are hints.
        self._schedule_rescan()
        self._wake.set()

    def _become(self, settler: Settler) -> None:
        self._settler = settler
        self._wake.set()

    def _publish(self) -> None:
        state = self.state
        if state != self._published:
            self._published = state
            self._ports.on_state(state)
