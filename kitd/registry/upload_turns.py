"""One upload of a blob at a time to each registry, and who has got it: single flight.

Whoever waited finds the blob where the one before has put it, or mounts it from there; where that
one failed, the next goes on in its place.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

MAX_PLACED = 4096
"""Blobs of which it is known where this process has put them; the oldest are forgotten."""
MAX_PLACES = 4
"""Repositories that are remembered for a blob: any one can lend it to all others."""

_Key = tuple[str, str]


class UploadTurns:
    """Whose turn it is, for all uploads of a client."""

    def __init__(self) -> None:
        self._turns: WeakValueDictionary[_Key, asyncio.Lock] = WeakValueDictionary()
        self._placed: dict[_Key, tuple[str, ...]] = {}

    @asynccontextmanager
    async def turn(self, registry: str, content: str) -> AsyncIterator[bool]:
        """Wait until nobody else uploads this content to the registry; whether there was a wait."""
        lock = self._turns.setdefault((registry, content), asyncio.Lock())
        waited = lock.locked()
        async with lock:
            yield waited

    def place(self, registry: str, content: str, name: str) -> None:
        """Remember that a repository holds the content."""
        key = (registry, content)
        others = tuple(other for other in self._placed.pop(key, ()) if other != name)
        self._placed[key] = (name, *others)[:MAX_PLACES]
        if len(self._placed) > MAX_PLACED:
            del self._placed[next(iter(self._placed))]

    def places(self, registry: str, content: str) -> tuple[str, ...]:
        """Return names of repositories that got the content, the latest first."""
        return self._placed.get((registry, content), ())
