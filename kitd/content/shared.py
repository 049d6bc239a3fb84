"""One read of a source for several who copy from it, however fast each of them is.

What is small is kept in memory while anybody copies from the source. What is large goes into the
cache, and whoever wants it follows what has arrived there: from memory if he keeps up, from the
disk if he does not, so that nobody waits for the slowest. A cache that has no room is no reason to
stop: then each reads for himself.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Hashable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from kitd.blocking import run_blocking, uninterrupted
from kitd.content.store import CHUNK_BYTES, ByteStream, Chunk, Fetcher, Target
from kitd.content.stream import direct
from kitd.content.verify import read
from kitd.errors import Disposition, KitdError
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest

SMALL_BYTES = 1 << 18
MAX_SMALL_BYTES = 32 << 20
"""What is kept in memory of one source's small content."""
IDLE_S = 30.0
"""After so long what is small gives way to what is read now."""
WINDOW_BYTES = 16 << 20
"""What is kept in memory of what arrives. It is more than the cache holds back on the way to its
file: what is no longer in memory can be read there."""
WINDOWS_BYTES = 6 * WINDOW_BYTES
"""What is kept in memory of all that arrives: what is beyond that is read from the disk only."""
REST_S = 60.0
"""So long an arrival is kept for a reader who left before its end and may come again: uploads open
what they send once for each of its parts, and once more where a connection broke."""
MAX_RESTING = 32
"""Of so many at a time, for each source."""
MAX_ANSWERS = 20_000

_T = TypeVar("_T")


class Holder(Target, Protocol):
    """A cache that keeps what goes through it: `kitd.store.content.HeldContent`."""

    async def peek(self, target: Descriptor, offset: int, size: int) -> bytes:
        """Return bytes of what is here, or has got that far on its way in."""
        ...

    def release(self) -> None:
        """Let go of it."""
        ...


class SharedReads:
    """The sources that are copied from now, and what their readers have in common.

    `hold` opens the cache; `keeps` says of a size whether that takes it.
    """

    def __init__(self, hold: Callable[[], Holder], keeps: Callable[[int], bool]) -> None:
        self._hold = hold
        self._keeps = keeps
        self._room = _Room(WINDOWS_BYTES)
        self._sources: dict[Hashable, _Source] = {}

    @asynccontextmanager
    async def open(
        self, name: Hashable, source: Fetcher, *, by_many: bool
    ) -> AsyncIterator["SharedSource"]:
        """Open a source for one of its readers.

        `name` is that of the source, with which others find what this one reads. Where it is not
        read `by_many`, what is large does not go through the cache. Leaving cancels what arrives
        for nobody else.
        """
        common = self._sources.get(name)
        if common is None:
            common = self._sources[name] = _Source(self._hold, self._room)
        common.readers += 1
        shared = SharedSource(source, common, self._keeps if by_many else None)
        try:
            yield shared
        finally:
            shared.close()
            common.readers -= 1
            if not common.readers:
                del self._sources[name]
                # To its end, however often this is cancelled: nobody else would do it.
                await uninterrupted(common.close())


class SharedSource:
    """`Fetcher` that reads what others have not read of it. Made by `SharedReads.open`."""

    def __init__(
        self, source: Fetcher, common: "_Source", keeps: Callable[[int], bool] | None
    ) -> None:
        self._source = source
        self._common = common
        self._keeps = keeps
        self._began_s = time.monotonic()

    async def exists(self, target: Descriptor) -> bool:
        """Whether the source holds the content."""
        return await self._source.exists(target)

    def has(self, digest: Digest) -> bool:
        """Whether a small content has been read, or is being read."""
        return self._common.small.find(digest) is not None

    def offer(self, target: Descriptor, content: bytes) -> None:
        """Give what has been read of the source already, and is what it says it is."""
        if target.size <= SMALL_BYTES and self.has(target.digest) is False:
            self._common.small.make_room(target.size)
            self._common.small.put(target, asyncio.create_task(_return(content)))

    async def ask(self, what: Hashable, question: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Return what the source answers, to this reader or to one who asked after it came.

        An answer that is older may be older than what this reader was told of.
        """
        return cast("_T", await self._common.ask(what, self._began_s, question))

    @asynccontextmanager
    async def fetch(self, target: Descriptor, *, offset: int = 0) -> AsyncIterator[ByteStream]:
        """Open the content from `offset`. Raises what the source and the cache raise."""
        arrivals = self._common.arrivals
        if target.digest not in arrivals:
            if target.size <= SMALL_BYTES:
                content = await self._small(target)
                if content is not None:
                    async with aclosing(_pieces(memoryview(content)[offset:])) as pieces:
                        yield pieces
                    return
            # Asks the disk: somebody else may have begun meanwhile.
            if not await self._may_keep(target) and target.digest not in arrivals:
                async with self._source.fetch(target, offset=offset) as stream:
                    yield stream
                return
        async with self._follow(target, offset) as stream:
            yield stream

    @asynccontextmanager
    async def _follow(self, target: Descriptor, offset: int) -> AsyncIterator[ByteStream]:
        """Open what arrives, or has arrived, from `offset`."""
        arrival = self._common.join(target, self._source)
        place = _Place(offset)
        try:
            if arrival.is_complete:
                async with arrival.held.fetch(target, offset=offset) as stream:
                    yield stream
                    place.offset = target.size - direct(stream).sendable
            else:
                async with aclosing(arrival.follow(place, self._source)) as chunks:
                    yield chunks
        finally:
            self._common.leave(arrival, self, may_return=place.offset < target.size)

    async def _may_keep(self, target: Descriptor) -> bool:
        return self._keeps is not None and await run_blocking(self._keeps, target.size)

    async def _small(self, target: Descriptor) -> bytes | None:
        """Return a small content; None if memory is full and the cache may take it."""
        small = self._common.small
        reading = small.find(target.digest)
        if reading is not None:
            # What another reader may not read this one may.
            with suppress(KitdError):
                return await asyncio.shield(reading)
            reading = small.find(target.digest)
        if reading is None:
            if not small.make_room(target.size, old_only=self._keeps is not None):
                return None
            reading = asyncio.create_task(read(self._source, target, max_bytes=SMALL_BYTES))
            small.put(target, reading)
        # Others may wait for it when one is cancelled.
        return await asyncio.shield(reading)

    def close(self) -> None:
        """Leave what arrives for others: nobody returns to it from here."""
        self._common.forget(self)


class _SmallContents:
    """Small contents in memory, or on their way into it."""

    def __init__(self) -> None:
        self._found: OrderedDict[Digest, _Small] = OrderedDict()
        self._bytes = 0

    def find(self, digest: Digest) -> asyncio.Task[bytes] | None:
        """Return a content, or the reading of it that goes on."""
        small = self._found.get(digest)
        if small is None:
            return None
        if _has_failed(small.reading):
            self._drop(digest)
            return None
        small.used_s = time.monotonic()
        self._found.move_to_end(digest)
        return small.reading

    def put(self, target: Descriptor, reading: asyncio.Task[bytes]) -> None:
        """Add one that is not there."""
        reading.add_done_callback(_take_exception)
        self._found[target.digest] = _Small(reading, target.size, time.monotonic())
        self._bytes += target.size

    def make_room(self, size: int, *, old_only: bool = False) -> bool:
        """Drop what was used longest ago; whether there is room. `old_only` drops nothing else."""
        idle_s = time.monotonic() - IDLE_S
        while self._found and self._bytes + size > MAX_SMALL_BYTES:
            digest, small = next(iter(self._found.items()))
            if not small.reading.done() or (old_only and small.used_s > idle_s):
                break
            self._drop(digest)
        return not old_only or self._bytes + size <= MAX_SMALL_BYTES

    def tasks(self) -> list[asyncio.Task[bytes]]:
        """Return all readings."""
        return [small.reading for small in self._found.values()]

    def _drop(self, digest: Digest) -> None:
        self._bytes -= self._found.pop(digest).size


@dataclass(slots=True)
class _Small:
    reading: asyncio.Task[bytes]
    size: int
    used_s: float


class _Source:
    """What the readers of one source have in common.

    Nothing is awaited to begin to read what arrives, or to leave it: no cancellation comes between.
    """

    def __init__(self, hold: Callable[[], Holder], room: "_Room") -> None:
        self.readers = 0
        self.small = _SmallContents()
        self.arrivals: dict[Digest, _Arrival] = {}
        self._resting: dict[_Arrival, asyncio.TimerHandle] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._hold = hold
        self._room = room
        self._answers: OrderedDict[Hashable, tuple[float, asyncio.Task[Any]]] = OrderedDict()

    def join(self, target: Descriptor, source: Fetcher) -> "_Arrival":
        """Return the arrival of a large content in the cache for one more reader."""
        arrival = self.arrivals.get(target.digest)
        if arrival is not None and arrival.has_failed:
            # Whoever comes again has a new try, which goes on where that one ended.
            self._end_unread(arrival)
            arrival = None
        if arrival is None:
            arrival = _Arrival(target, source, self._hold(), self._room)
            self.arrivals[target.digest] = arrival
        self._wake(arrival)
        arrival.readers += 1
        return arrival

    def leave(self, arrival: "_Arrival", reader: Hashable, *, may_return: bool) -> None:
        """Note that it is read once less; `reader` may return to it if he has not read its end."""
        arrival.readers -= 1
        (arrival.awaited_by.add if may_return else arrival.awaited_by.discard)(reader)
        is_current = self.arrivals.get(arrival.digest) is arrival
        if not arrival.awaited_by or arrival.has_failed or not is_current:
            self._end_unread(arrival)
        elif not arrival.readers:
            loop = asyncio.get_running_loop()
            self._resting[arrival] = loop.call_later(REST_S, self._end_unread, arrival)
            if len(self._resting) > MAX_RESTING:
                self._end_unread(next(iter(self._resting)))

    def forget(self, reader: Hashable) -> None:
        """Note that a reader returns to nothing any more."""
        for arrival in tuple(self.arrivals.values()):
            arrival.awaited_by.discard(reader)
            if not arrival.awaited_by:
                self._end_unread(arrival)

    def _end_unread(self, arrival: "_Arrival") -> None:
        if not arrival.readers:
            self._end(arrival)

    def _end(self, arrival: "_Arrival") -> None:
        self._wake(arrival)
        if self.arrivals.get(arrival.digest) is arrival:
            del self.arrivals[arrival.digest]
        task = arrival.end()
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _wake(self, arrival: "_Arrival") -> None:
        timer = self._resting.pop(arrival, None)
        if timer is not None:
            timer.cancel()

    async def ask(
        self, what: Hashable, since_s: float, question: Callable[[], Coroutine[Any, Any, object]]
    ) -> object:
        """Return an answer to a question that was asked after `since_s`, at the latest now."""
        known = self._answers.pop(what, None)
        if known is None or known[0] < since_s or _has_failed(known[1]):
            answer = asyncio.create_task(question())
            answer.add_done_callback(_take_exception)
            known = (time.monotonic(), answer)
        self._answers[what] = known
        while len(self._answers) > MAX_ANSWERS:
            self._answers.popitem(last=False)
        return await asyncio.shield(known[1])

    async def close(self) -> None:
        """End what nobody waits for any more."""
        tasks: list[asyncio.Task[Any]] = [answer for _, answer in self._answers.values()]
        tasks += self.small.tasks()
        for task in tasks:
            task.cancel()
        for arrival in tuple(self.arrivals.values()):
            self._end(arrival)
        tasks += self._ending
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(slots=True)
class _Place:
    """How far a content has been read."""

    offset: int


class _Room:
    """So many bytes of memory. Nobody waits for it: whoever has it may be slow."""

    def __init__(self, total: int) -> None:
        self._left = total

    def take(self, size: int) -> int:
        """Return how much of it is given: all of it, or nothing."""
        taken = size if size <= self._left else 0
        self._left -= taken
        return taken

    def give_back(self, size: int) -> None:
        """Take back what was given."""
        self._left += size


class _Arrival:
    """A large content on its way from the source into the cache."""

    def __init__(self, target: Descriptor, source: Fetcher, held: Holder, room: _Room) -> None:
        self.readers = 0
        self.awaited_by: set[Hashable] = set()
        """Who read some of it, and may return for the rest."""
        self.digest = target.digest
        self.held = held
        self._target = target
        self._room = room
        self._window_bytes = room.take(min(target.size, WINDOW_BYTES))
        self._window: deque[tuple[int, Chunk]] = deque()
        self._end = 0
        """How far the source has been read."""
        self._moved = asyncio.Event()
        self._is_ended = False
        self._task = asyncio.create_task(self._bring(source))
        self._task.add_done_callback(self._finish)

    @property
    def is_complete(self) -> bool:
        """Whether the cache has all of it, verified."""
        return self._task.done() and not _has_failed(self._task)

    @property
    def has_failed(self) -> bool:
        return _has_failed(self._task)

    def end(self) -> asyncio.Task[None]:
        """End it, and let the cache go once the task has ended that this returns."""
        self._is_ended = True
        self._task.cancel()
        if self._task.done():
            self.held.release()
        return self._task

    async def _bring(self, source: Fetcher) -> None:
        await self.held.push(self._target, _Observed(source, self._note))

    def _finish(self, task: asyncio.Task[None]) -> None:
        _take_exception(task)
        # All of it can be read where it is.
        self._window.clear()
        self._room.give_back(self._window_bytes)
        self._moved.set()
        if self._is_ended:
            self.held.release()

    def _note(self, start: int, chunk: Chunk) -> None:
        self._end = start + len(chunk)
        if self._window_bytes:
            self._window.append((start, chunk))
            while self._end - self._window[0][0] > WINDOW_BYTES:
                self._window.popleft()
        self._moved.set()

    async def follow(self, place: "_Place", source: Fetcher) -> AsyncGenerator[Chunk, None]:
        """Yield the content from a place as it arrives; the last byte once all is verified.

        The place moves along. What the cache does not take is read from `source`.
        """
        try:
            async with aclosing(self._arrived(place.offset)) as arrived:
                async for chunk in arrived:
                    place.offset += len(chunk)
                    yield chunk
        except KitdError as error:
            if error.disposition is not Disposition.PAUSE:
                raise
            async with source.fetch(self._target, offset=place.offset) as stream:
                async for chunk in stream:
                    place.offset += len(chunk)
                    yield chunk

    async def _arrived(self, offset: int) -> AsyncGenerator[Chunk, None]:
        size = self._target.size
        while offset < size:
            chunk = self._in_window(offset)
            if chunk is None:
                await self._wait_beyond(offset)
                chunk = self._in_window(offset)
            if chunk is None:
                end = min(self._on_disk(), offset + CHUNK_BYTES)
                chunk = await self.held.peek(self._target, offset, end - offset)
            offset += len(chunk)
            if offset == size:
                await asyncio.shield(self._task)
            yield chunk

    async def _wait_beyond(self, offset: int) -> None:
        """Wait until there is something to read at `offset`. Raises what the arrival raised."""
        while self._in_window(offset) is None and self._on_disk() <= offset:
            self._moved.clear()
            await self._moved.wait()
        if self._task.done():
            await asyncio.shield(self._task)

    def _on_disk(self) -> int:
        """Return how far it can be read in the cache."""
        if self._task.done():
            return self._target.size
        return self._window[0][0] if self._window else self._end - WINDOW_BYTES

    def _in_window(self, offset: int) -> Chunk | None:
        if not self._window or offset < self._window[0][0]:
            return None
        for start, chunk in reversed(self._window):
            if start <= offset:
                return memoryview(chunk)[offset - start :] if offset < self._end else None
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


def _has_failed(task: "asyncio.Task[Any]") -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _take_exception(task: "asyncio.Task[Any]") -> None:
    """Look at it, so that nobody is told that nobody did."""
    if not task.cancelled():
        task.exception()
