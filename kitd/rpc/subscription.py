"""Following the event stream over one connection: replay, then live, in order, without a gap.

Events are pulled from their source as fast as the peer reads, so what a slow peer has not read
waits in the ledger and not in memory. Progress is not in the ledger: of it only the newest a job
is kept.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import msgspec
import structlog

from kitd.errors import KitdError, NotFoundError
from kitd.ledger.event_ledger import EventFilter
from kitd.rpc.codec import encode_notification
from kitd.rpc.error import QueueFullError
from kitd.rpc.limit import Limits
from kitd.rpc.outbox import Outbox

_AT_ONCE = 8
"""Events that are sent in one turn."""
_PAGE = 64
"""Events read at once."""

log = structlog.get_logger(__name__)


class Event(msgspec.Struct, frozen=True):
    """One event, as it is sent. `at` is RFC 3339, UTC; `subject` is like `job:12`."""

    seq: int
    at: str
    type: str
    subject: str
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. `total` is in bytes too; 0 where it is not known yet."""

    job: int
    project: str | None
    phase: str
    bytes: int
    total: int

    def concerns(self, wanted: EventFilter) -> bool:
        """Whether a reader of these events wants to know."""
        return wanted.job in (None, self.job) and wanted.project in (None, self.project)


@dataclass(frozen=True, slots=True)
class Turns:
    """In which a connection does its work, so that others have their turn too."""

    moment: Callable[[], Awaitable[None]]
    """Returns when the connection may do what takes a moment."""
    costly: Callable[[], AbstractAsyncContextManager[None]]


class EventSource(Protocol):
    """The event stream: numbered from 1, each event after the one it follows."""

    async def head_seq(self) -> int:
        """Return the number of the newest event, 0 where there is none."""
        ...

    async def read(self, after_seq: int, limit: int, wanted: EventFilter) -> Sequence[Event]:
        """Return the wanted events with `seq > after_seq`, oldest first, at most `limit`.

        Raises the errors `cursor_truncated` and `cursor_future` where the stream does not reach
        back to the cursor, or not yet to it.
        """
        ...

    async def wait(self, after_seq: int) -> None:
        """Return once the newest event is later than `after_seq`."""
        ...


class _EventParams(msgspec.Struct, frozen=True):
    subscription: int
    event: Event


class _LaggedParams(msgspec.Struct, frozen=True):
    subscription: int
    last_seq: int


class _ProgressParams(msgspec.Struct, frozen=True):
    job: int
    phase: str
    bytes: int
    total: int


class _HeartbeatParams(msgspec.Struct, frozen=True):
    head_seq: int


class Subscription:
    """A place in the stream. Nothing is sent before `start`, so that the response goes first."""

    def __init__(self, number: int, wanted: EventFilter, after_seq: int, head_seq: int) -> None:
        self.number = number
        self.wanted = wanted
        self.after_seq = after_seq
        """Everything wanted up to here was sent."""
        self.head_seq = head_seq
        """The newest event when the subscription was opened."""
        self._started = asyncio.Event()

    def start(self) -> None:
        """Begin to send."""
        self._started.set()

    async def started(self) -> None:
        """Return once `start` was called."""
        await self._started.wait()


class Subscriptions:
    """Those of one connection. Their tasks belong to the connection's task group."""

    def __init__(
        self,
        events: EventSource,
        outbox: Outbox,
        group: asyncio.TaskGroup,
        limits: Limits,
        turns: Turns,
    ) -> None:
        self._turns = turns
        self._events = events
        self._outbox = outbox
        self._group = group
        self._limits = limits
        self._open: dict[int, tuple[Subscription, asyncio.Task[None]]] = {}
        self._last_number = 0
        self._companions: list[asyncio.Task[None]] = []
        self._unsent: dict[str, Progress] = {}
        self._progressed = asyncio.Event()

    async def open(self, wanted: EventFilter, from_seq: int | None) -> Subscription:
        """Subscribe to events after `from_seq`, or from now on where it is None.

        The caller starts the subscription once its response is queued (`Reply.after`). Raises
        `QueueFullError`, and what the source says about the cursor.
        """
        head_seq = await self._events.head_seq()
        after_seq = head_seq if from_seq is None else from_seq
        await self._events.read(after_seq, 1, wanted)
        if len(self._open) >= self._limits.subscriptions:
            raise QueueFullError(
                f"this connection has {len(self._open)} subscriptions, which is the limit",
                hint="unsubscribe from one, or open another connection",
                retry_after_s=1.0,
            )
        self._last_number += 1
        subscription = Subscription(self._last_number, wanted, after_seq, head_seq)
        if not self._open:
            beat, report = self._beat(), self._report()
            self._companions = [self._group.create_task(task) for task in (beat, report)]
        task = self._group.create_task(self._serve(subscription))
        self._open[subscription.number] = subscription, task
        return subscription

    def close(self, number: int) -> None:
        """End a subscription. Raises `NotFoundError`."""
        if number not in self._open:
            raise NotFoundError(f"this connection has no subscription {number}")
        self._remove(number)

    def close_all(self) -> None:
        """End all subscriptions."""
        for number in list(self._open):
            self._remove(number)

    def offer(self, progress: Progress) -> None:
        """Note how far a job is; sent soon if a subscription wants it and nothing newer comes."""
        if any(progress.concerns(subscription.wanted) for subscription, _ in self._open.values()):
            self._unsent[f"job:{progress.job}"] = progress
            self._progressed.set()

    def _remove(self, number: int) -> None:
        _, task = self._open.pop(number)
        task.cancel()
        if not self._open:
            self._unsent.clear()
            for companion in self._companions:
                companion.cancel()

    async def _serve(self, subscription: Subscription) -> None:
        await subscription.started()
        try:
            await self._follow(subscription)
        except (KitdError, TimeoutError) as error:
            # Retention overtook the reader, it stopped reading, or the ledger failed: each time the
            # reader has everything up to `last_seq` and can subscribe from there.
            log.info("rpc.lagged", after_seq=subscription.after_seq, reason=str(error))
            lagged = _LaggedParams(subscription.number, subscription.after_seq)
            self._outbox.post(encode_notification("events.lagged", lagged))
            self._remove(subscription.number)

    async def _follow(self, subscription: Subscription) -> None:
        while True:
            # The head is read first: a short page then proves that nothing wanted lies before it.
            head_seq = await self._events.head_seq()
            async with self._turns.costly():
                page = await self._events.read(subscription.after_seq, _PAGE, subscription.wanted)
            for first in range(0, len(page), _AT_ONCE):
                async with asyncio.timeout(self._limits.lag_s):
                    await self._outbox.room()
                await self._turns.moment()
                for event in page[first : first + _AT_ONCE]:
                    self._post(subscription, event)
                    subscription.after_seq = event.seq
            if len(page) < _PAGE:
                subscription.after_seq = max(subscription.after_seq, head_seq)
                await self._events.wait(subscription.after_seq)

    def _post(self, subscription: Subscription, event: Event) -> None:
        # What is known about a job's progress goes before the event that may end the job.
        if progress := self._unsent.pop(event.subject, None):
            self._outbox.post(_progress_line(progress))
        params = _EventParams(subscription.number, event)
        self._outbox.post(encode_notification("events.event", params))

    async def _report(self) -> None:
        """Send the newest progress of each job, at most once an interval."""
        while True:
            await self._progressed.wait()
            self._progressed.clear()
            for subject in list(self._unsent):
                # An event of the job may have taken it along while this waited for room.
                if progress := self._unsent.pop(subject, None):
                    await self._outbox.put(_progress_line(progress))
            await asyncio.sleep(self._limits.progress_s)

    async def _beat(self) -> None:
        """Let the reader tell a quiet stream from a dead one."""
        while True:
            await asyncio.sleep(self._limits.heartbeat_s)
            params = _HeartbeatParams(await self._events.head_seq())
            await self._outbox.put(encode_notification("$/heartbeat", params))


def _progress_line(progress: Progress) -> bytes:
    params = _ProgressParams(progress.job, progress.phase, progress.bytes, progress.total)
    return encode_notification("$/progress", params)
