"""One upload of a blob at a time to each registry, and who has got it: single flight.

Whoever waited finds the blob where the one before has put it, or mounts it from there; where that
one failed, the next goes on in its place.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

MAX_PLACED = 4096
"""Blobs of which it is known where this process has put them; the oldest are forgotten."""
MAX_PLACES = 4
"""Repositories that are remembered for a blob: any one can lend it to all others."""

_Key = tuple[str, str]


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Queue:
    """Those who upload the same to the same registry, and how many of them are through."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    through: int = 0


class Ticket:
    """A place in a queue, drawn before looking whether there is anything to do."""

    def __init__(self, queue: _Queue) -> None:
        self._queue = queue
        self._before = queue.through

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """Wait until nobody else uploads; whether somebody did since the ticket was drawn."""
        async with self._queue.lock:
            try:
                yield self._queue.through > self._before
            finally:
                self._queue.through += 1


class UploadTurns:
    """Whose turn it is, for all uploads of a client."""

    def __init__(self) -> None:
        self._queues: WeakValueDictionary[_Key, _Queue] = WeakValueDictionary()
        self._placed: dict[_Key, tuple[str, ...]] = {}

    def ticket(self, registry: str, content: str) -> Ticket:
        """Return a place among those who upload this content to the registry."""
        return Ticket(self._queues.setdefault((registry, content), _Queue()))

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
