"""One download of a digest at a time, whoever wants it.

Those who come meanwhile wait, and then find the blob; or they go on, each from its own source, with
what the one before them got. For one event loop.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from kitd.oci.digest import Digest


class Flights:
    """The turns of all who want blobs."""

    def __init__(self) -> None:
        # Those who hold or want one keep it.
        self._locks: WeakValueDictionary[Digest, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, digest: Digest) -> AsyncIterator[None]:
        """Wait until nobody else is at this digest; the first who asked is the first who goes."""
        lock = self._locks.setdefault(digest, asyncio.Lock())
        async with lock:
            yield
