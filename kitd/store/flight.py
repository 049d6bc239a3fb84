"""One download of a digest at a time, whoever wants it.

Those who come meanwhile wait, and then find the blob; or they go on, each from its own source, with
what the one before them got. For one event loop.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from kitd.oci.digest import Digest


@dataclass(slots=True)
class _Flight:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    passengers: int = 0


class Flights:
    """The turns of all who want blobs."""

    def __init__(self) -> None:
        self._flights: dict[Digest, _Flight] = {}

    @asynccontextmanager
    async def turn(self, digest: Digest) -> AsyncIterator[None]:
        """Wait until nobody else is at this digest; the first who asked is the first who goes."""
        flight = self._flights.setdefault(digest, _Flight())
        flight.passengers += 1
        try:
            async with flight.lock:
                yield
        finally:
            flight.passengers -= 1
            if not flight.passengers:
                del self._flights[digest]
