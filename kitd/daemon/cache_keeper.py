"""Sees that the cache keeps to its limits: looks after kits arrive, and asks for a collection.

It also writes down which kits were used, which readers must not wait for.
"""

import asyncio
from collections.abc import Awaitable, Callable

from kitd.daemon.collector import Collector
from kitd.daemon.setback import note_setback
from kitd.errors import KitdError
from kitd.ledger.cache_ledger import CacheLedger
from kitd.ledger.event_ledger import EventFilter, EventLedger
from kitd.queue.fact import CacheCrowded
from kitd.queue.job import JobRequest
from kitd.triggers import requests_for

TICK_S = 30.0
"""How often it looks whether kits arrived: so often at most the disk is counted."""
LOOK_EVERY_S = 600.0
"""How often it looks in any case: others fill the disk, too."""

_ARRIVALS = EventFilter(frozenset({"kit.packed", "kit.pulled", "tag.moved"}))


class CacheKeeper:
    """Watches over one cache. `run` until cancelled."""

    def __init__(
        self,
        collector: Collector,
        ledger: CacheLedger,
        events: EventLedger,
        *,
        ask: Callable[[JobRequest], Awaitable[object]],
        is_paused: Callable[[], bool],
        monotonic_s: Callable[[], float],
        tick_s: float = TICK_S,
    ) -> None:
        self._collector = collector
        self._ledger = ledger
        self._events = events
        self._ask = ask
        self._is_paused = is_paused
        self._monotonic_s = monotonic_s
        self._tick_s = tick_s

    async def run(self) -> None:
        """Look now and then. Raises what is fatal."""
        seq: int | None = None
        look_at_s = 0.0
        while True:
            try:
                await self._ledger.write_uses()
                since, seq = seq, await self._events.head_seq()
                arrived = since is not None and await self._events.read(since, 1, _ARRIVALS)
                if arrived or self._is_paused() or self._monotonic_s() >= look_at_s:
                    look_at_s = self._monotonic_s() + LOOK_EVERY_S
                    await self._look()
            except KitdError as error:
                note_setback("cache.not_looked_at", error)
                # It looks again after the next tick, whatever it was.
                look_at_s = 0.0
            await asyncio.sleep(self._tick_s)

    async def _look(self) -> None:
        excess_bytes = await self._collector.excess_bytes()
        if excess_bytes or self._is_paused():
            for request in requests_for(CacheCrowded(excess_bytes)):
                await self._ask(request)
