"""The blob store as a content store: what copies read from and write to.

Reading needs no lease: a file that is open stays readable, whoever removes its name. Writing is
done through `HeldContent`, which keeps all that it touched until the manifest is recorded that
needs it.
"""

import asyncio
import os
import select
import socket
import time
from collections.abc import AsyncIterator, Collection
from concurrent.futures import Future
from contextlib import AbstractContextManager, asynccontextmanager
from types import TracebackType
from typing import Self

from kitd.blocking import run_blocking
from kitd.content.store import CHUNK_BYTES, ByteStream, Chunk, Fetcher, MismatchError
from kitd.content.stream import MOMENT_S, DirectStream, direct
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest, digest_of
from kitd.store.blob_store import BlobStore, Ingest, os_errors
from kitd.store.buffer_ring import BufferRing
from kitd.store.flight import Flights
from kitd.store.lease import LeaseBook
from kitd.store.partial import PartialBlob, put_verified

READ_BYTES = 1 << 18
"""What is read at once: others have to wait while it is copied, and while it is sent."""


class Pace:
    """Lets one reader go on each time that the loop turns.

    What was read is sent at once, and both copy. Readers that went on together would keep the loop
    from everybody else for longer the more of them there are, and are no faster for it.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def keep(self) -> None:
        """Return when it is the caller's turn; those who ask first go first."""
        await self._lock.acquire()
        asyncio.get_running_loop().call_soon(self._lock.release)


class CacheContent:
    """`Fetcher` over a `BlobStore`. Names are not its business: the ledger keeps them."""

    def __init__(
        self,
        store: BlobStore,
        leases: LeaseBook | None = None,
        pace: Pace | None = None,
        flights: Flights | None = None,
    ) -> None:
        self._store = store
        self._leases = leases or LeaseBook()
        self._pace = pace or Pace()
        self._flights = flights or Flights()

    def hold(self) -> "HeldContent":
        """Return the cache to write to, for one piece of work."""
        return HeldContent(self._store, self._leases, self._pace, self._flights)

    async def exists(self, target: Descriptor) -> bool:
        """Whether the cache holds the blob with this size."""
        return self._store.has(target)

    @asynccontextmanager
    async def fetch(self, target: Descriptor, *, offset: int = 0) -> AsyncIterator[ByteStream]:
        """Open the blob from `offset`. Raises `ContentNotFoundError`, `MismatchError`."""
        handle = self._store.open(target)
        try:
            yield _BlobStream(self._store, target, handle, offset, self._pace)
        finally:
            os.close(handle)


class _BlobStream(DirectStream):
    """A blob's open file, from some offset on."""

    def __init__(
        self, store: BlobStore, target: Descriptor, handle: int, offset: int, pace: Pace
    ) -> None:
        self._store = store
        self._target = target
        self._handle = handle
        self._offset = offset
        self._pace = pace
        self._is_reading = False

    @property
    def sendable(self) -> int:
        """How many bytes are to come."""
        return max(self._target.size - self._offset, 0)

    async def __anext__(self) -> Chunk:
        if not self.sendable:
            raise StopAsyncIteration
        await self._pace.keep()
        buffer = bytearray(min(READ_BYTES, self.sendable))
        try:
            # Pages that are in memory are copied at once; a read that would wait for the disk
            # goes to a thread. Both are the common case of somebody, and the loop never waits.
            count = os.preadv(self._handle, [buffer], self._offset, os.RWF_NOWAIT)
        except OSError:
            with self._errors():
                count = await run_blocking(os.preadv, self._handle, [buffer], self._offset)
        self._offset += self._counted(count)
        return memoryview(buffer)[:count]

    @property
    def is_at_source(self) -> bool:
        """Whether `send_to` is waiting for the disk."""
        return self._is_reading

    async def send_to(self, connection: socket.socket, at_most: int, /) -> int:
        """Send what is next: see `DirectStream`."""
        # Whoever closes ours while the thread is at work must not lend its number to another file.
        handle = os.dup(self._handle)
        try:
            return await run_blocking(self._send, connection, handle, at_most)
        finally:
            os.close(handle)

    def _send(self, connection: socket.socket, handle: int, at_most: int) -> int:
        until_s = time.monotonic() + MOMENT_S
        writable = select.poll()
        writable.register(connection, select.POLLOUT)
        buffer = memoryview(bytearray(min(READ_BYTES, at_most)))
        sent = 0
        while sent < at_most and time.monotonic() < until_s:
            left = buffer[: self._fill(handle, buffer[: at_most - sent])]
            while left and (left_s := until_s - time.monotonic()) > 0:
                try:
                    count = connection.send(left)
                except BlockingIOError:
                    writable.poll(left_s * 1000)
                else:
                    self._offset += count
                    sent += count
                    left = left[count:]
        return sent

    def _fill(self, handle: int, buffer: memoryview) -> int:
        self._is_reading = True
        try:
            with self._errors():
                return self._counted(os.preadv(handle, [buffer], self._offset))
        finally:
            self._is_reading = False

    def _counted(self, count: int) -> int:
        if count == 0:
            raise MismatchError(f"{self._target.digest} became shorter while it was read")
        return count

    def _errors(self) -> AbstractContextManager[None]:
        return os_errors("read", self._store.path_of(self._target.digest))


class HeldContent(CacheContent):
    """`Target` over a `BlobStore`: what went through it stays until it is released.

    Use as a context manager, or `release` it in the end.
    """

    def __init__(self, store: BlobStore, leases: LeaseBook, pace: Pace, flights: Flights) -> None:
        super().__init__(store, leases, pace, flights)
        self._lease = leases.hold()

    async def keep(self, blobs: Collection[tuple[Digest, int]]) -> bool:
        """Keep blobs of these digests and sizes; whether the cache holds all of them."""
        await self._lease.take(*(digest for digest, _ in blobs))
        return await run_blocking(
            lambda: all(self._store.size_of(digest) == size for digest, size in blobs)
        )

    async def push(self, target: Descriptor, source: Fetcher) -> int:
        """Ingest the blob unless it is there; verified before it gets its name.

        What arrives of a large one outlives a failure, and is gone on with by the next who wants
        it. Several who want the same one at a time share one transfer.
        """
        await self._lease.take(target.digest)
        async with self._flights.turn(target.digest):
            if self._store.has(target):
                return 0
            if target.size <= CHUNK_BYTES:
                return await self._take_whole(target, source)
            return await self._take_rest(target, source)

    async def _take_whole(self, target: Descriptor, source: Fetcher) -> int:
        """Ingest a blob that is so small that it is had again rather than kept in part."""
        content = bytearray()
        async with source.fetch(target) as stream:
            async for chunk in stream:
                content += chunk
                if len(content) > target.size:
                    break
        # One thread for all of it: a kit may have thousands.
        await run_blocking(put_verified, self._store, target, bytes(content))
        return target.size

    async def _take_rest(self, target: Descriptor, source: Fetcher) -> int:
        """Ingest what of a blob is not there yet."""
        async with _partial(self._store, target) as partial:
            while not await run_blocking(partial.catch_up):
                pass
            left_bytes = target.size - partial.found_bytes
            await run_blocking(self._store.require_space, left_bytes)
            if left_bytes:
                async with source.fetch(target, offset=partial.found_bytes) as stream:
                    await _fill(partial, stream, left_bytes)
            await run_blocking(partial.commit)
        return left_bytes

    async def give_up(self, target: Descriptor) -> None:
        """Drop what a push that failed has left, once nobody else is at it."""
        async with self._flights.turn(target.digest):
            await run_blocking(self._store.drop_partial, target.digest)

    async def peek(self, target: Descriptor, offset: int, size: int) -> bytes:
        """Return bytes of a blob that is here, or has got that far on its way in."""
        return await run_blocking(self._store.peek, target, offset, size)

    async def put(self, content: bytes) -> Digest:
        """Make a small blob durable and return its digest. Raises `StoreError`."""
        await self._lease.take(digest_of(content))
        return (await run_blocking(self._store.put, content)).digest

    def release(self) -> None:
        """Let go of everything. Safe to call twice."""
        self._lease.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


@asynccontextmanager
async def _partial(store: BlobStore, target: Descriptor) -> AsyncIterator[PartialBlob]:
    begun: list[PartialBlob] = []
    try:
        # Into a list, and not returned, so that one that was cancelled while it began is closed.
        await run_blocking(lambda: begun.append(PartialBlob(store, target)))
        yield begun[0]
    finally:
        for partial in begun:
            await run_blocking(partial.suspend)


async def _fill(partial: PartialBlob, stream: ByteStream, at_most: int) -> None:
    """Put a stream into the ring: by a thread where it can, else by the loop."""
    source = direct(stream)
    while True:
        count = await source.receive_into(partial.ring, at_most)
        if count is None:
            chunk = await anext(source, None)
            if chunk is None:
                return
            count = len(chunk)
            if count <= at_most:
                await _put(partial.ring, memoryview(chunk))
        at_most -= count
        if at_most < 0:
            await run_blocking(partial.reject, "more bytes than that")


async def _put(ring: BufferRing, left: memoryview) -> None:
    """Put bytes into the ring; the loop waits where the ring would."""
    while left:
        part = left[: len(ring.room())]
        if len(part) == len(ring.room()):
            await _until_done(ring.awaited())
        ring.room()[: len(part)] = part
        ring.fill(len(part))
        left = left[len(part) :]


async def _until_done(futures: Collection[Future[object]]) -> None:
    """Wait for threads; what they raise comes out of the ring."""
    if futures:
        waiters = [asyncio.wrap_future(future) for future in futures]
        for waiter in waiters:
            waiter.add_done_callback(_take_exception)
        # Leaves them alone when it is cancelled.
        await asyncio.wait(waiters)


def _take_exception(waiter: asyncio.Future[object]) -> None:
    if not waiter.cancelled():
        waiter.exception()


async def write_stream(ingest: Ingest, stream: ByteStream, *, at_most: int | None = None) -> None:
    """Hash and write in a thread, a megabyte at a time; stop once more came than was promised."""
    pending: list[Chunk] = []
    held = 0
    async for chunk in stream:
        pending.append(chunk)
        held += len(chunk)
        excess = at_most is not None and ingest.size + held > at_most
        if held >= CHUNK_BYTES or excess:
            await run_blocking(ingest.write, b"".join(pending))
            pending, held = [], 0
            if excess:
                return
    if pending:
        await run_blocking(ingest.write, b"".join(pending))
