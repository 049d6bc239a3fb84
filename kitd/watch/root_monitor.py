"""Looking after what notifications do not tell: a suspended machine, a root that is another one.

A rename or a mount above a root, or one on it, puts another directory in its place, and nothing
happens to the directories that are watched. While the machine sleeps, network file systems and
disks may be changed by others.
"""

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kitd.watch.identity import Identity, identify

SWEEP_S = 15.0
SUSPENDED_S = 1.0
"""A sleep that is shorter is none: the two clocks are not read at the same instant."""
MAX_HANGING = 8
"""So many roots that do not answer may keep a thread each; then no root is looked at."""

Identify = Callable[[Path], Identity | None]


def asleep_s() -> float:
    """Return how long this machine was suspended since it started; 0 where it does not say."""
    if sys.platform != "linux":
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class MonitoredRoot:
    """One root that is looked after. `on_gap` is called when it has to be scanned."""

    def __init__(self, root: Path, on_gap: Callable[[], None]) -> None:
        self.root = root
        self.on_gap = on_gap
        self.expected: Identity | None = None
        self.is_expecting = False
        self.is_closed = False

    def expect(self, identity: Identity | None) -> None:
        """Note which directory a scan begins in; None if it found none."""
        self.expected = identity
        self.is_expecting = True

    def seen(self, identity: Identity | None) -> None:
        """Ask for a scan if the root is not what the last one saw."""
        if self.is_closed or not self.is_expecting or identity == self.expected:
            return
        self.expected = identity
        self.on_gap()


class _Sweep(threading.Thread):
    """Looks at roots, one after the other, and tells the loop of those that are others."""

    def __init__(
        self, roots: Sequence[MonitoredRoot], identify: Identify, loop: asyncio.AbstractEventLoop
    ) -> None:
        # A daemon thread, because what hangs in the kernel must not keep kitd from ending.
        super().__init__(name="root-monitor", daemon=True)
        self._roots = roots
        self._identify = identify
        self._loop = loop
        self.current: MonitoredRoot | None = roots[0]
        """Which root it waits for; None when it is through."""
        self.is_abandoned = False
        """Set to have it look at no further root."""

    def run(self) -> None:
        for monitored in self._roots:
            if self.is_abandoned:
                break
            self.current = monitored
            identity = self._identify(monitored.root)
            if identity != monitored.expected:
                # A loop that ended has nobody left to tell.
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(monitored.seen, identity)
        self.current = None


class RootMonitor:
    """Looks after the roots of all projects from time to time. Belongs to one event loop.

    One timer for all. A root that does not answer, because its server is gone, keeps the thread
    that asked: until it answers, no root on the same device is looked at, and all others are.
    """

    def __init__(
        self,
        *,
        sweep_s: float = SWEEP_S,
        identify: Identify = identify,
        asleep_s: Callable[[], float] = asleep_s,
    ) -> None:
        self._sweep_s = sweep_s
        self._identify = identify
        self._asleep_s = asleep_s
        self._roots: list[MonitoredRoot] = []
        self._sweep: _Sweep | None = None
        self._waited_for: MonitoredRoot | None = None
        self._hanging: list[_Sweep] = []

    @contextlib.contextmanager
    def watch(self, root: Path, on_gap: Callable[[], None]) -> Iterator[MonitoredRoot]:
        """Look after a root while the context is open, from its first `expect` on."""
        monitored = MonitoredRoot(root, on_gap)
        self._roots.append(monitored)
        try:
            yield monitored
        finally:
            monitored.is_closed = True
            self._roots.remove(monitored)

    async def run(self) -> None:
        """Look after the roots until cancelled."""
        slept_s = self._asleep_s()
        while True:
            await asyncio.sleep(self._sweep_s)
            before_s, slept_s = slept_s, self._asleep_s()
            if slept_s - before_s > SUSPENDED_S:
                for monitored in self._roots:
                    monitored.on_gap()
            self._look()

    def _look(self) -> None:
        """Begin a sweep, unless one is under way that gets on."""
        if self._sweep is not None and self._sweep.current is not None:
            if self._sweep.current is not self._waited_for:
                self._waited_for = self._sweep.current
                return
            self._sweep.is_abandoned = True
            self._hanging.append(self._sweep)
        self._hanging = [sweep for sweep in self._hanging if sweep.current is not None]
        self._sweep = self._waited_for = None
        roots = self._answering()
        if roots and len(self._hanging) < MAX_HANGING:
            self._sweep = _Sweep(roots, self._identify, asyncio.get_running_loop())
            self._sweep.start()

    def _answering(self) -> Sequence[MonitoredRoot]:
        hanging = [sweep.current for sweep in self._hanging]
        devices = {
            monitored.expected[0] for monitored in hanging if monitored and monitored.expected
        }
        return [
            monitored
            for monitored in self._roots
            if monitored.is_expecting
            and monitored not in hanging
            and not (monitored.expected and monitored.expected[0] in devices)
        ]
