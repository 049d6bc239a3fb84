"""Where requests wait until the governor of their host admits them.

One budget a host, whoever asks it: all jobs, all transports, and the storage that a registry
redirects to counts as itself.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from yarl import URL

from kitd.registry.governor import Closed, Closure, Governor, Lane, Outcome, Ticket

MAX_HOSTS = 256
"""Beyond these one is forgotten that nobody asks, an open one if there is any: a registry may
redirect to any number of them."""


Settle = Callable[[Outcome], None]
"""Tells what came of a request, while it holds its slot."""


class _Host:
    """One host's governor and those that wait for it."""

    def __init__(self) -> None:
        # Jitter needs no secrecy.
        self.governor = Governor(random.random)
        self._turns: dict[Ticket, asyncio.Future[Closed | None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def slot(
        self, lane: Lane, refusal: Callable[[Closed], Exception], *, patient: bool
    ) -> AsyncIterator[Settle]:
        loop = asyncio.get_running_loop()
        ticket = self.governor.ask(lane, loop.time(), patient=patient)
        turn = self._turns[ticket] = loop.create_future()
        try:
            self._look()
            closed = await turn
            if closed is not None:
                raise refusal(closed)
            yield partial(self._settle, ticket)
        finally:
            # Whoever is cancelled may have been admitted a moment before.
            self._turns.pop(ticket, None)
            self.governor.leave(ticket)
            self._look()

    def _settle(self, ticket: Ticket, outcome: Outcome) -> None:
        self.governor.settle(ticket, outcome, asyncio.get_running_loop().time())
        self._look()

    def _look(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._turns:
            # Nobody waits for what could follow.
            return
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        look = self.governor.look(now_s)
        if look.refused:
            closed = self.governor.closed(now_s)
            for ticket in look.refused:
                self._tell(ticket, closed)
        for ticket in look.admitted:
            self._tell(ticket, None)
        if look.again_s is not None:
            self._timer = loop.call_at(look.again_s, self._look)

    def _tell(self, ticket: Ticket, closed: Closed | None) -> None:
        turn = self._turns.pop(ticket)
        # One that was cancelled has not come to leave yet.
        if not turn.done():
            turn.set_result(closed)


class Admissions:
    """The hosts, by their origins. Belongs to one event loop."""

    def __init__(self) -> None:
        self._hosts: dict[URL, _Host] = {}

    def slot(
        self,
        origin: URL,
        lane: Lane,
        *,
        refusal: Callable[[Closed], Exception],
        patient: bool = True,
    ) -> AbstractAsyncContextManager[Settle]:
        """Hold a slot of a host, once it admits a request of this lane.

        Raises what `refusal` makes of a host that is closed: for longer than `PATIENCE_S` or
        `OUTAGE_S` (`kitd.registry.governor`), or at all for who is not patient.
        """
        return self._host(origin).slot(lane, refusal, patient=patient)

    def closed_at(self, origin: URL) -> Closed | None:
        """Return why and for how long a host is asked for nothing, if it is."""
        host = self._hosts.get(origin)
        return None if host is None else host.governor.closed(asyncio.get_running_loop().time())

    def is_forbidden(self, origin: URL) -> bool:
        """Whether a host said that it wants no requests now, be they admitted or not."""
        host = self._hosts.get(origin)
        return host is not None and host.governor.forbids(asyncio.get_running_loop().time())

    def closed(self) -> Mapping[URL, Closed]:
        """Return the origins that are asked for nothing now, and for how long."""
        now_s = asyncio.get_running_loop().time()
        found = {origin: host.governor.closed(now_s) for origin, host in self._hosts.items()}
        return {origin: closed for origin, closed in found.items() if closed is not None}

    def troubled(self) -> Mapping[URL, frozenset[Closure]]:
        """Return the origins that were closed and have not proven well since, and for what."""
        now_s = asyncio.get_running_loop().time()
        found = {origin: host.governor.troubles(now_s) for origin, host in self._hosts.items()}
        return {origin: troubles for origin, troubles in found.items() if troubles}

    def _host(self, origin: URL) -> _Host:
        host = self._hosts.get(origin)
        if host is None:
            if len(self._hosts) >= MAX_HOSTS:
                self._forget_one()
            host = self._hosts[origin] = _Host()
        return host

    def _forget_one(self) -> None:
        closed, troubled = self.closed(), self.troubled()
        idle = (origin for origin, host in self._hosts.items() if host.governor.idle)
        origin = min(idle, key=lambda each: (each in closed, each in troubled), default=None)
        if origin is not None:
            del self._hosts[origin]
