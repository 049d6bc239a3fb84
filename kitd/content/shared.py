"""One read of a source for several who copy from it, however fast each of them is.

What is small is kept in memory. What is large goes into the cache, and whoever wants it follows
what has arrived there: from memory if he keeps up, from the disk if he does not, so that nobody
waits for the slowest.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from types import TracebackType
from typing import Protocol, Self

from kitd.blocking import run_blocking
from kitd.content.store import CHUNK_BYTES, ByteStream, Chunk, Fetcher, Target
from kitd.content.verify import read
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest

SMALL_BYTES = 1 << 18
MAX_SMALL_BYTES = 32 << 20
"""What is kept in memory of all that is small; beyond that it goes into the cache as well."""
WINDOW_BYTES = 16 << 20
"""What is kept in memory of what arrives. It is more than the cache holds back on the way to its
file: what is no longer in memory can be read there."""


class Holder(Target, Protocol):
    """A cache that keeps what goes through it: `kitd.store.content.HeldContent`."""

    async def peek(self, target: Descriptor, offset: int, size: int) -> bytes:
        """Return bytes of what is here, or has got that far on its way in."""
        ...


class SharedSource:
    """`Fetcher` that reads each content of `source` once. Use as an async context manager.

    `keeps` says of a size whether the cache takes it; what it does not take each reader reads from
    the source. Leaving cancels what still arrives.
    """

    def __init__(self, source: Fetcher, held: Holder, keeps: Callable[[int], bool]) -> None:
        self._source = source
        self._held = held
        self._keeps = keeps
        self._small: dict[Digest, asyncio.Task[bytes]] = {}
        self._small_bytes = 0
        self._large: dict[Digest, _Arrival] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        tasks = [*self._small.values(), *(arrival.task for arrival in self._large.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def exists(self, target: Descriptor) -> bool:
        """Whether the source holds the content."""
        return await self._source.exists(target)

    def has(self, digest: Digest) -> bool:
        """Whether a small content has been read, or is being read."""
        return digest in self._small

    def offer(self, target: Descriptor, content: bytes) -> None:
        """Give what has been read of the source already, and is what it says it is."""
        if target.size <= SMALL_BYTES and self._small_bytes < MAX_SMALL_BYTES:
            self._small_bytes += target.size
            self._small[target.digest] = asyncio.create_task(_return(content))

    @asynccontextmanager
    async def fetch(self, target: Descriptor, *, offset: int = 0) -> AsyncIterator[ByteStream]:
        """Open the content from `offset`. Raises what the source and the cache raise."""
        async with await self._open(target, offset) as stream:
            yield stream

    async def _open(
        self, target: Descriptor, offset: int
    ) -> AbstractAsyncContextManager[ByteStream]:
        arrival = self._large.get(target.digest)
        if arrival is None:
            in_memory = target.digest in self._small or self._small_bytes < MAX_SMALL_BYTES
            if target.size <= SMALL_BYTES and in_memory:
                content = await self._read_small(target)
                return aclosing(_pieces(memoryview(content)[offset:]))
            if not await run_blocking(self._keeps, target.size):
                return self._source.fetch(target, offset=offset)
            # Somebody else may have begun meanwhile.
            arrival = self._large.get(target.digest)
        if arrival is None or arrival.has_failed:
            # Whoever comes again has a new try, which goes on where that one ended.
            arrival = self._large[target.digest] = _Arrival(target, self._source, self._held)
        if arrival.is_complete:
            return self._held.fetch(target, offset=offset)
        return aclosing(arrival.follow(offset))

    async def _read_small(self, target: Descriptor) -> bytes:
        reading = self._small.get(target.digest)
        if reading is None or (reading.done() and _failed(reading)):
            self._small_bytes += 0 if reading else target.size
            reading = asyncio.create_task(read(self._source, target, max_bytes=SMALL_BYTES))
            self._small[target.digest] = reading
        # Others may wait for it when one is cancelled.
        return await asyncio.shield(reading)


class _Arrival:
    """A large content on its way from the source into the cache."""

    def __init__(self, target: Descriptor, source: Fetcher, held: Holder) -> None:
        self._target = target
        self._held = held
        self._window: deque[tuple[int, Chunk]] = deque()
        self._end = 0
        """How far the source has been read."""
        self._moved = asyncio.Event()
        self.task = asyncio.create_task(held.push(target, _Observed(source, self._note)))
        self.task.add_done_callback(self._finish)

    @property
    def is_complete(self) -> bool:
        """Whether the cache has all of it, verified."""
        return self.task.done() and not _failed(self.task)

    @property
    def has_failed(self) -> bool:
        return self.task.done() and _failed(self.task)

    def _finish(self, _task: asyncio.Task[int]) -> None:
        # All of it can be read where it is.
        self._window.clear()
        self._moved.set()

    def _note(self, start: int, chunk: Chunk) -> None:
        self._window.append((start, chunk))
        self._end = start + len(chunk)
        while self._end - self._window[0][0] > WINDOW_BYTES:
            self._window.popleft()
        self._moved.set()

    async def follow(self, offset: int) -> AsyncGenerator[Chunk, None]:
        """Yield the content from `offset` as it arrives; the last byte once all is verified."""
        size = self._target.size
        while offset < size:
            chunk = self._in_window(offset)
            if chunk is None:
                await self._wait_beyond(offset)
                chunk = self._in_window(offset)
            if chunk is None:
                end = size if self.task.done() else self._window[0][0] if self._window else size
                chunk = await self._held.peek(self._target, offset, min(end - offset, CHUNK_BYTES))
            offset += len(chunk)
            if offset == size:
                await asyncio.shield(self.task)
            yield chunk

    async def _wait_beyond(self, offset: int) -> None:
        """Wait until there is something to read at `offset`. Raises what the arrival raised."""
        while not self.task.done() and self._end <= offset:
            self._moved.clear()
            await self._moved.wait()
        if self.task.done():
            await asyncio.shield(self.task)

    def _in_window(self, offset: int) -> Chunk | None:
        if not self._window or offset < self._window[0][0]:
            return None
        for start, chunk in reversed(self._window):
            if start <= offset < start + len(chunk):
                return memoryview(chunk)[offset - start :]
        return None


class _Observed:
    """A source that tells of what is read from it."""

    def __init__(self, source: Fetcher, note: Callable[[int, Chunk], None]) -> None:
        self._source = source
        self._note = note
        self.exists = source.exists

    @asynccontextmanager
    async def fetch(self, target: Descriptor, *, offset: int = 0) -> AsyncIterator[ByteStream]:
        async with self._source.fetch(target, offset=offset) as stream:
            yield self._observed(stream, offset)

    async def _observed(self, stream: ByteStream, position: int) -> AsyncGenerator[Chunk, None]:
        async for chunk in stream:
            self._note(position, chunk)
            position += len(chunk)
            yield chunk


async def _return(content: bytes) -> bytes:
    return content


async def _pieces(content: memoryview) -> AsyncGenerator[Chunk, None]:
    for start in range(0, len(content), CHUNK_BYTES):
        yield content[start : start + CHUNK_BYTES]


def _failed(task: "asyncio.Task[object]") -> bool:
    return task.cancelled() or task.exception() is not None
