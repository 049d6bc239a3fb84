"""Tells one endpoint of events: in their order, one at a time, again until it takes them.

The cursor moves after the answer, so an event may be told twice, with the same id, and none is
left out. Events that an endpoint does not want move it in memory; that is recorded now and then.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NoReturn, Protocol

import aiohttp
import structlog

from kitd.clock import Clock
from kitd.config.model import NotificationConfig
from kitd.errors import Disposition, KitdError
from kitd.outbox.cloud_event import Event, cloud_event
from kitd.outbox.error import EndpointError, EndpointTimeoutError
from kitd.outbox.plan import Dropped, delay_s, is_too_old, is_wanted
from kitd.outbox.post import DEADLINE_S, Proxy, post
from kitd.outbox.target import read_target
from kitd.queue.job import Failure
from kitd.secret import Secrets

BATCH = 100
"""Events that are read at once."""
MAX_UNRECORDED = 500
"""Events that are passed over before that is recorded. It is less than what the ledger keeps at
least, so that what was passed over cannot be taken for forgotten."""

log = structlog.get_logger(__name__)


class Page(Protocol):
    """Events after a cursor; none if those up to `forgotten_seq` are no longer held."""

    @property
    def events(self) -> Sequence[Event]:
        """Oldest first."""
        ...

    @property
    def forgotten_seq(self) -> int | None:
        """None where nothing is missing."""
        ...


class Ledger(Protocol):
    """The events, and how far each endpoint is. All raise a `KitdError`."""

    async def read(self, after_seq: int, limit: int, /) -> Page:
        """Return events after a cursor."""
        ...

    async def wait(self, after_seq: int, /) -> None:
        """Return once there is a later event."""
        ...

    async def advance(self, name: str, seq: int, /, *, told: bool) -> None:
        """Record durably that an endpoint needs no event up to `seq`; `told` that it is well."""
        ...

    async def note_failure(self, name: str, error: Failure, /) -> None:
        """Record that an endpoint failed once more."""
        ...

    async def drop(self, name: str, seq: int, /, *, events: int, why: str) -> None:
        """Record that an endpoint is not told of so many events up to `seq`, and tell that."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all senders work with."""

    ledger: Ledger
    instance: str
    """Names the ledger whose events these are."""
    clock: Clock
    secrets: Secrets
    proxy: Proxy
    draw: Callable[[], float]
    """Gives random numbers, uniform in [0, 1)."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Sender:
    """One endpoint, from a cursor on."""

    def __init__(
        self,
        name: str,
        config: NotificationConfig,
        cursor: int,
        session: aiohttp.ClientSession,
        surroundings: Surroundings,
    ) -> None:
        self._name = name
        self._config = config
        self._session = session
        self._surroundings = surroundings
        self._ledger = surroundings.ledger
        self._cursor = cursor
        self._recorded = cursor
        self._took_one = False
        """Whether the endpoint took an event since the cursor was recorded."""
        self._failures = 0
        self._said: str | None = None
        """The code of the trouble that is in the log."""

    async def run(self) -> NoReturn:
        """Tell events until cancelled. Raises what kitd must not go on after."""
        while True:
            try:
                await self._go_on()
            except KitdError as error:
                if error.disposition is Disposition.FATAL:
                    raise
                await self._back_off(error, error.retry_after_s)
            except Exception as error:
                # The boundary: a defect that one answer meets must not end kitd, again and again.
                log.exception("notification.defect", endpoint=self._name)
                await self._back_off(KitdError(str(error)), None)

    async def _back_off(self, error: KitdError, retry_after_s: float | None) -> None:
        self._failures += 1
        self._say(error)
        draw = self._surroundings.draw()
        await self._surroundings.sleep(delay_s(self._failures, retry_after_s, draw))

    async def _go_on(self) -> None:
        """Tell a batch of events, or wait for one. Raises `KitdError`: then it is tried again."""
        if self._took_one or self._cursor - self._recorded >= MAX_UNRECORDED:
            await self._record()
        page = await self._ledger.read(self._cursor, BATCH)
        if page.forgotten_seq is not None:
            count = page.forgotten_seq - self._cursor
            await self._drop(page.forgotten_seq, count, Dropped.FORGOTTEN)
        for event in page.events:
            if self._wants(event):
                await self._tell(event)
                self._took_one = True
                self._cursor = event.seq
                await self._record()
                self._recover()
            self._cursor = event.seq
        if not page.events:
            await self._ledger.wait(self._cursor)

    def _wants(self, event: Event) -> bool:
        return is_wanted(event.type, self._config.types)

    async def _tell(self, event: Event) -> None:
        try:
            with self._surroundings.secrets.redacted():
                await self._send(event)
        except EndpointError as error:
            failure = Failure(error.code, error.message, error.hint)
            await self._ledger.note_failure(self._name, failure)
            if is_too_old(event.at_us, now_us := self._surroundings.clock.now_us()):
                await self._give_up(now_us)
            raise

    async def _send(self, event: Event) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                # Not to be waited for when cancelled: its disk may hang, and it leaves nothing
                # behind.
                target = await asyncio.to_thread(read_target, self._config)
        except TimeoutError as error:
            raise EndpointTimeoutError("the disk with the endpoint's files hangs") from error
        for secret in target.secrets:
            self._surroundings.secrets.learn(secret)
        await post(
            self._session,
            target,
            cloud_event(self._surroundings.instance, event),
            at_s=self._surroundings.clock.now_us() // 1_000_000,
            proxy=self._surroundings.proxy,
        )

    async def _record(self) -> None:
        seq = self._cursor
        await self._ledger.advance(self._name, seq, told=self._took_one)
        self._recorded, self._took_one = seq, False

    async def _give_up(self, now_us: int) -> None:
        """Drop all events that are too old at once: each alone would cost a deadline."""
        cursor, count, is_last = self._cursor, 0, False
        while not is_last:
            events = (await self._ledger.read(cursor, BATCH)).events
            old = list(takewhile(lambda event: is_too_old(event.at_us, now_us), events))
            count += sum(map(self._wants, old))
            cursor = old[-1].seq if old else cursor
            is_last = len(old) < BATCH
        if cursor > self._cursor:
            await self._drop(cursor, count, Dropped.TOO_OLD)

    async def _drop(self, seq: int, count: int, why: Dropped) -> None:
        await self._ledger.drop(self._name, seq, events=count, why=why)
        self._cursor = self._recorded = seq
        log.warning("notification.dropped", endpoint=self._name, events=count, why=why)

    def _say(self, error: KitdError) -> None:
        """Log a trouble once, and again when it becomes another one."""
        if error.code != self._said:
            self._said = error.code
            log.warning(
                "notification.failing", endpoint=self._name, code=error.code, error=error.message
            )

    def _recover(self) -> None:
        self._failures = 0
        if self._said is not None:
            self._said = None
            log.info("notification.recovered", endpoint=self._name)
