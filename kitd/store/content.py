"""The blob store as a content store: what copies read from and write to."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kitd.blocking import run_blocking
from kitd.content.store import CHUNK_BYTES, ByteStream, Chunk, Fetcher, MismatchError
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest, algorithm_of
from kitd.store.blob_store import BlobStore, Ingest, os_errors


class CacheContent:
    """`Target` over a `BlobStore`. Names are not its business: the ledger keeps them."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    async def exists(self, target: Descriptor) -> bool:
        """Whether the cache holds the blob with this size."""
        return self._store.has(target)

    @asynccontextmanager
    async def fetch(self, target: Descriptor, *, offset: int = 0) -> AsyncIterator[ByteStream]:
        """Open the blob from `offset`. Raises `ContentNotFoundError`, `MismatchError`."""
        handle = self._store.open(target)
        try:
            yield _read(self._store, target, handle, offset)
        finally:
            os.close(handle)

    async def push(self, target: Descriptor, source: Fetcher) -> int:
        """Ingest the blob unless it is there; verified before it gets its name."""
        if self._store.has(target):
            return 0
        async with (
            source.fetch(target) as stream,
            _ingest(self._store, algorithm_of(target.digest)) as ingest,
        ):
            await write_stream(ingest, stream, at_most=target.size)
            await run_blocking(ingest.commit, target)
        return target.size

    async def put(self, content: bytes) -> Digest:
        """Make a small blob durable and return its digest. Raises `StoreError`."""
        return (await run_blocking(self._store.put, content)).digest


@asynccontextmanager
async def _ingest(store: BlobStore, algorithm: str) -> AsyncIterator[Ingest]:
    begun: list[Ingest] = []
    try:
        # Into a list, and not returned, so that one that was cancelled while it began is discarded.
        await run_blocking(lambda: begun.append(store.ingest(algorithm)))
        yield begun[0]
    finally:
        for ingest in begun:
            await run_blocking(ingest.discard)


async def _read(store: BlobStore, target: Descriptor, handle: int, offset: int) -> ByteStream:
    while offset < target.size:
        buffer = bytearray(min(CHUNK_BYTES, target.size - offset))
        try:
            # Pages that are in memory are copied at once; a read that would wait for the disk
            # goes to a thread. Both are the common case of somebody, and the loop never waits.
            count = os.preadv(handle, [buffer], offset, os.RWF_NOWAIT)
        except OSError:
            with os_errors("read", store.path_of(target.digest)):
                count = await run_blocking(os.preadv, handle, [buffer], offset)
        if count == 0:
            raise MismatchError(f"{target.digest} became shorter while it was read")
        offset += count
        yield memoryview(buffer)[:count]


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
