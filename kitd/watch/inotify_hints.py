"""Hints from one inotify instance for all projects, read by the event loop.

The scans themselves add the watches, to each directory before they list it: what changes before is
seen, what changes later is hinted, and a directory that no scan enters costs nothing. Who owns
which watch is in `watch_table`, how often lost events lead to rescans in `backoff`.
"""

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from kitd.blocking import run_blocking
from kitd.inotify import IGNORED, Q_OVERFLOW, ask, open_inotify, parse_events, remove_watch
from kitd.watch.hints import HintError
from kitd.watch.identity import Identity
from kitd.watch.rescan_backoff import RescanBackoff
from kitd.watch.watch_table import WatchTable

READ_BYTES = 1 << 16
BACKLOG_BYTES = READ_BYTES // 2
"""A read that gives as much is followed by the next at once: the queue is short (16,384 events)."""
PAUSE_S = 0.05
"""After any other read nothing is read for so long. A program that writes without end wakes kitd
twenty times a second, and the kernel merges its equal events."""
REMOVED_AT_ONCE = 1000
"""Each watch that is removed puts an event into the queue."""

MAX_WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")
MAX_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
ENOUGH_WATCHES = 1 << 20
ENOUGH_INSTANCES = 1 << 10
_POLLED = "the project is scanned from time to time instead"


@dataclass(slots=True)
class _Listener:
    """A subscription. Every scan watches what it finds, so that it has nothing to open again."""

    root: Path
    on_hint: Callable[[], None]
    on_gap: Callable[[], None]
    on_health: Callable[[HintError | None], None]
    told: str | None = None
    """What it knows of its health: nothing yet, or an error, or, if empty, that there is none."""

    def expect(self, identity: Identity, /) -> None:
        """Nothing is done: a scan of another directory adds its watches."""

    def tell_health(self, error: HintError | None) -> None:
        """Pass on what the listener does not know yet."""
        news = "" if error is None else error.describe()
        if news != self.told:
            self.told = news
            self.on_health(error)


class InotifyHints:
    """The `Hints` of all projects. Use as an async context manager, before workers are started.

    Without a `descriptor`, because the kernel gave none, every project is told so.
    """

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._failure: HintError | None = None
        self._listeners: dict[str, _Listener] = {}
        self._table = WatchTable()
        self._asked: dict[int, asyncio.Event] = {}
        self._backoff = RescanBackoff()
        self._loop: asyncio.AbstractEventLoop
        self._reading: asyncio.TimerHandle | None = None
        self._rescan: asyncio.TimerHandle | None = None
        self._removing: asyncio.TimerHandle | None = None

    @property
    def descriptor(self) -> int | None:
        """The instance, for the scans."""
        return self._descriptor

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        try:
            self._descriptor = open_inotify()
        except OSError as error:
            self._failure = instance_error(error)
        else:
            self._loop.add_reader(self._descriptor, self._begin_reading, self._descriptor)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for timer in (self._reading, self._rescan, self._removing):
            if timer is not None:
                timer.cancel()
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self._loop.remove_reader(descriptor)
            # In a thread: the kernel takes its time for many watches.
            await run_blocking(os.close, descriptor)

    @contextlib.asynccontextmanager
    async def subscribe(
        self,
        name: str,
        root: Path,
        *,
        on_hint: Callable[[], None],
        on_gap: Callable[[], None],
        on_health: Callable[[HintError | None], None],
    ) -> AsyncIterator[_Listener]:
        """See `Hints`. `on_gap` comes at once, because the scan it leads to adds the watches."""
        assert name not in self._listeners, name
        listener = self._listeners[name] = _Listener(root, on_hint, on_gap, on_health)
        try:
            if self._failure is not None:
                listener.tell_health(self._failure)
            on_gap()
            yield listener
        finally:
            del self._listeners[name]
            self._table.forget(name)
            self._remove_unowned()

    @contextlib.contextmanager
    def scanning(self) -> Iterator[None]:
        """See `Hints`."""
        self._table.scan_begins()
        try:
            yield
        finally:
            self._table.scan_ends()
            self._remove_unowned()

    async def answer(self) -> None:
        """See `Hints`. What is asked for is the end of a watch that was only made for it."""
        if self._descriptor is None:
            raise self._failure or HintError("change notifications are closed")
        try:
            wd = ask(self._descriptor)
        except OSError as error:
            raise HintError(f"cannot ask for a notification: {error.strerror}") from error
        # Nobody has read it yet: the loop does, and this has not let it turn.
        self._asked[wd] = asyncio.Event()
        try:
            await self._asked[wd].wait()
        finally:
            del self._asked[wd]

    def watched(
        self,
        name: str,
        descriptors: Collection[int],
        *,
        complete: bool,
        refused: int | None,
        remote: str | None,
    ) -> None:
        """See `Hints`. The watches of a project that has no subscription (any more) are removed."""
        listener = self._listeners.get(name)
        missed = self._table.claim(name, descriptors, complete=complete)
        if listener is None:
            self._table.forget(name)
            return
        if missed:
            listener.on_hint()
        if self._failure is not None:
            return
        if refused is not None:
            listener.tell_health(
                watch_error(
                    listener.root,
                    refused,
                    watches=len(descriptors),
                    all_watches=len(self._table),
                    limit=_read_limit(MAX_WATCHES),
                )
            )
        elif remote is not None:
            listener.tell_health(remote_error(listener.root, remote))
        elif complete:
            listener.tell_health(None)

    def _begin_reading(self, descriptor: int) -> None:
        self._loop.remove_reader(descriptor)
        self._read(descriptor)

    def _read(self, descriptor: int) -> None:
        """Read once, and again after a pause, until there is nothing: then wait for the kernel."""
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            self._reading = None
            self._loop.add_reader(descriptor, self._begin_reading, descriptor)
            return
        delay_s = 0.0 if len(data) >= BACKLOG_BYTES else PAUSE_S
        self._reading = self._loop.call_later(delay_s, self._read, descriptor)
        self._take(data)

    def _take(self, data: bytes) -> None:
        hinted: set[str] = set()
        overflowed = False
        for wd, mask, _ in parse_events(data):
            if mask & Q_OVERFLOW:
                overflowed = True
            elif wd in self._asked:
                self._asked[wd].set()
            else:
                hinted.update(self._table.happened(wd, ended=bool(mask & IGNORED)))
        for name in hinted:
            self._listeners[name].on_hint()
        if overflowed:
            # Answers may be among what was dropped, and this is one.
            for answer in self._asked.values():
                answer.set()
            self._overflowed()
        self._remove_unowned()

    def _overflowed(self) -> None:
        """Have every project scanned: whose events were lost, nobody knows."""
        backoff = self._backoff.lost(self._loop.time())
        if backoff != self._backoff:
            self._backoff = backoff
            self._rescan = self._loop.call_at(backoff.due_s, self._tell_gap)

    def _tell_gap(self) -> None:
        for listener in self._listeners.values():
            listener.on_gap()

    def _remove_unowned(self) -> None:
        if self._removing is None:
            self._remove_some()

    def _remove_some(self) -> None:
        self._removing = None
        if self._descriptor is None:
            return
        unowned = self._table.take_unowned(REMOVED_AT_ONCE)
        for wd in unowned:
            remove_watch(self._descriptor, wd)
        if len(unowned) == REMOVED_AT_ONCE:
            self._removing = self._loop.call_later(PAUSE_S, self._remove_some)


def instance_error(error: OSError) -> HintError:
    """Say why there is no instance, and name the limit where it is one."""
    if error.errno != errno.EMFILE:
        return HintError(f"no change notifications: {error.strerror}", hint=_POLLED)
    limit = _read_limit(MAX_INSTANCES)
    wanted = _above(limit, ENOUGH_INSTANCES)
    return HintError(
        f"no change notifications: this user may have {limit or 'no more'} inotify instances",
        hint=f"raise the limit: sysctl fs.inotify.max_user_instances={wanted}, and restart kitd",
    )


def watch_error(
    root: Path, number: int, *, watches: int, all_watches: int, limit: int | None
) -> HintError:
    """Say why not all directories of a project are watched, and name the limit where it is one."""
    if number != errno.ENOSPC:
        return HintError(
            f"changes below {root} are not all notified: cannot watch a directory: "
            f"{os.strerror(number)}",
            hint=_POLLED,
        )
    wanted = _above(limit, ENOUGH_WATCHES)
    return HintError(
        f"changes below {root} are not all notified: it has more than {watches} directories, kitd "
        f"watches {all_watches} of all projects, and this user may watch {limit or 'no more'}",
        hint=f"raise the limit: sysctl fs.inotify.max_user_watches={wanted}",
    )


def remote_error(root: Path, remote: str) -> HintError:
    """Say that there may be changes which the kernel does not see."""
    return HintError(
        f"changes below {root} that other machines make are not notified: {remote}", hint=_POLLED
    )


def _above(limit: int | None, enough: int) -> int:
    return enough if limit is None else max(enough, 2 * limit)


def _read_limit(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
