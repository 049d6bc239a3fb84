"""Leases: what is being worked with stays in the cache, whatever a collection thinks of it.

Blobs arrive before the manifest that will need them, so for a while nothing in the ledger says what
they are for. Whoever is about to rely on a blob takes a lease on it first, looks whether it is
there second, and lets go once the manifest is recorded.

A collection goes the other way round: it condemns what it is about to take, which spares what is
leased, has the ledger confirm that no manifest needs the rest, removes the files, and lifts the
condemnation. A taker who comes in between waits for that and then finds the blob gone, which is an
error that it can do something about. All of this happens on one event loop: between a look at the
leases and the mark of the condemned nobody else has a turn. Leases need not outlive the process,
because nothing that holds one does.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from kitd.oci.digest import Digest

MAX_PROMISES = 100_000
"""Blobs that clients of kitd's own registry were told of and may come back for."""


class Lease:
    """What one piece of work relies on. Use as a context manager, or `release` it in the end."""

    def __init__(self, book: "LeaseBook") -> None:
        self._book = book
        self._digests: set[Digest] = set()
        self._released = False

    async def take(self, *digests: Digest) -> None:
        """Keep blobs until `release`; whether they are there has to be looked at after this.

        After a release nothing is kept any more: work that was given up may not know that yet.
        """
        for digest in digests:
            await self._book.spared(digest)
            if digest not in self._digests and not self._released:
                self._digests.add(digest)
                self._book.count(digest, 1)

    def release(self) -> None:
        """Let go of everything, for good. Safe to call twice."""
        self._released = True
        for digest in self._digests:
            self._book.count(digest, -1)
        self._digests.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class LeaseBook:
    """All leases on one cache. For one event loop."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._counts: Counter[Digest] = Counter()
        self._promises: dict[Digest, float] = {}
        self._condemned: dict[Digest, asyncio.Event] = {}

    def hold(self) -> Lease:
        """Return a lease on nothing yet."""
        return Lease(self)

    async def promise(self, digest: Digest, duration_s: float) -> None:
        """Keep a blob for so long: nobody will say that the work with it has ended."""
        await self.spared(digest)
        # The newest last: where there are too many, the oldest promise is broken.
        self._promises.pop(digest, None)
        self._promises[digest] = self._monotonic_s() + duration_s
        if len(self._promises) > MAX_PROMISES:
            del self._promises[next(iter(self._promises))]

    def leased(self) -> frozenset[Digest]:
        """Return everything that a collection has to spare now."""
        now_s = self._monotonic_s()
        self._promises = {d: until_s for d, until_s in self._promises.items() if until_s > now_s}
        return frozenset((*self._counts, *self._promises))

    def is_leased(self, digest: Digest) -> bool:
        """Whether a collection has to spare this blob now."""
        return digest in self._counts or self._promises.get(digest, 0.0) > self._monotonic_s()

    @contextmanager
    def condemn(self, digests: Iterable[Digest]) -> Iterator[frozenset[Digest]]:
        """Give those of the blobs that are not leased; nobody can lease them within the context.

        One collection at a time.
        """
        done = asyncio.Event()
        free = frozenset(digest for digest in digests if not self.is_leased(digest))
        assert not self._condemned
        self._condemned = dict.fromkeys(free, done)
        try:
            yield free
        finally:
            self._condemned = {}
            done.set()

    async def spared(self, digest: Digest) -> None:
        """Return once no collection is about to take the blob."""
        while (done := self._condemned.get(digest)) is not None:
            await done.wait()

    def count(self, digest: Digest, change: int) -> None:
        """Note that a lease on the blob was taken or released."""
        self._counts[digest] += change
        if not self._counts[digest]:
            del self._counts[digest]
