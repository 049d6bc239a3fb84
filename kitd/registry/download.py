"""The reading of a blob as one stream that survives: cuts, timeouts, errors of the server.

Every request is a fresh one to the registry, because the signed URLs that it redirects to expire.
Where one connection is slower than the reader, others fetch parts ahead of it into memory that all
downloads of a client share. The reader's own connection needs none of that, so no download waits
for another; and it reads whatever the others failed to. See `kitd.registry.download_plan`.
"""

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace

from aiohttp import ClientResponse

from kitd.content.store import CHUNK_BYTES, ByteStream, Chunk
from kitd.content.stream import DirectStream, Sink
from kitd.errors import KitdError
from kitd.oci.descriptor import Descriptor
from kitd.registry.download_plan import (
    MAX_CONNECTIONS,
    SEGMENT_BYTES,
    WORTHWHILE_BYTES,
    ConnectionCount,
    Lookahead,
    Reopening,
    Segment,
)
from kitd.registry.errors import (
    RegistryError,
    RegistryMismatchError,
    RegistryProtocolError,
    RegistryServerError,
    RegistryTimeoutError,
    RegistryUnreachableError,
    http_errors,
)
from kitd.registry.receiver import Receiver, receiver_of
from kitd.registry.request import Request
from kitd.registry.transport import Transport

READ_AHEAD_BYTES = 64 << 20

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_NO_RANGES = frozenset({416})
_PASSING = (RegistryUnreachableError, RegistryTimeoutError, RegistryServerError)


class ReadAhead:
    """The memory for what is fetched ahead of its readers. Nobody waits for it."""

    def __init__(self, max_bytes: int = READ_AHEAD_BYTES) -> None:
        self._free_bytes = max_bytes

    def take(self, size: int) -> bool:
        """Take so much if it is free; whether it was."""
        if size > self._free_bytes:
            return False
        self._free_bytes -= size
        return True

    def give_back(self, size: int) -> None:
        """Give back what was taken."""
        self._free_bytes += size


@asynccontextmanager
async def open_download(
    transport: Transport,
    request: Request,
    target: Descriptor,
    *,
    offset: int,
    read_ahead: ReadAhead,
    connections: Callable[[float], ConnectionCount] = ConnectionCount,
) -> AsyncIterator[ByteStream]:
    """Send `request` and open the content from `offset`. Raises `RegistryError`.

    The stream raises `RegistryMismatchError` where the registry sends more or fewer bytes than
    `target` has, and what else it raises when going on is of no more use. The digest is the
    reader's to check.
    """
    now_s = asyncio.get_running_loop().time()
    download = _Download(transport, request, target, offset, read_ahead, connections(now_s))
    try:
        content = None
        if offset == 0 and target.size <= CHUNK_BYTES:
            content = await download.read_whole()
        if content is not None:
            async with aclosing(_as_stream(content)) as stream:
                yield stream
        else:
            await download.open()
            yield download
    finally:
        await download.close()


async def _as_stream(content: bytearray) -> AsyncGenerator[Chunk, None]:
    if content:
        yield content


class _Arrivals:
    """A segment on its way: what has arrived and was not read yet."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self._position = segment.start
        self._chunks: deque[Chunk] = deque()
        self._is_over = False
        self._changed = asyncio.Event()

    @property
    def missing(self) -> int:
        """How many bytes have not arrived."""
        return self.segment.end - self._position

    def put(self, chunk: Chunk) -> None:
        """Add what arrived."""
        self._position += len(chunk)
        self._chunks.append(chunk)
        self._changed.set()

    def end(self) -> None:
        """Note that no more arrives, whatever is missing."""
        self._is_over = True
        self._changed.set()

    async def read(self) -> Chunk | None:
        """Return what arrived next, None after the end."""
        while not self._chunks and not self._is_over:
            self._changed.clear()
            await self._changed.wait()
        return self._chunks.popleft() if self._chunks else None


class _Download(DirectStream):
    """One download, which is a stream that is read by one task at a time."""

    def __init__(
        self,
        transport: Transport,
        request: Request,
        target: Descriptor,
        offset: int,
        read_ahead: ReadAhead,
        connections: ConnectionCount,
    ) -> None:
        self._transport = transport
        self._request = request
        self._target = target
        self._position = offset
        self._read_ahead = read_ahead
        self._now_s = asyncio.get_running_loop().time
        self._reopening = Reopening()
        self._lookahead = Lookahead(target.size)
        self._connections = connections
        self._takes_ranges: bool | None = None
        """Not known until the server has sent a part that was asked for."""
        self._etag: str | None = None
        # The reader's own connection: what it gives is of the content from `_at` to `_until`.
        self._body: ClientResponse | Receiver | None = None
        self._is_framed = False
        """Whether something but the end of the connection tells the end of that."""
        self._at = self._until = 0
        self._reach = 0
        """Up to where a thread may be receiving."""
        self._closing = AsyncExitStack()
        # In the order of their content.
        self._ahead: deque[_Arrivals] = deque()
        self._holding: set[_Arrivals] = set()
        """Those that memory was taken for."""
        self._helpers: set[asyncio.Task[None]] = set()

    async def read_whole(self) -> bytearray | None:
        """Return content that fits into one chunk; None where it did not come as it should.

        A stream finds out what is the matter then, and whether it passes. Raises `RegistryError`.
        """
        is_answered = False
        content = bytearray()
        try:
            async with self._transport.send(self._request) as body:
                is_answered = True
                self._part_in(body, Segment(0, self._target.size))
                while len(content) <= self._target.size and (chunk := await self._read(body)):
                    content += chunk
        except _PASSING:
            if not is_answered:
                raise
        return content if len(content) == self._target.size else None

    async def open(self) -> None:
        """Send the first request. Raises `RegistryError`."""
        if self._position < self._target.size or not self._target.size:
            await self._open(self._target.size)

    async def __anext__(self) -> Chunk:
        if self._position >= self._target.size:
            raise StopAsyncIteration
        asked_s = self._now_s()
        chunk = await self._next()
        self._advance(len(chunk), self._now_s() - asked_s)
        return chunk

    async def receive_into(self, sink: Sink, at_most: int, /) -> int | None:
        """Receive what is next: see `DirectStream`."""
        body = self._body
        if self._ahead or not isinstance(body, Receiver) or not body.is_fast:
            return None
        # What else there is to do, others can do in between.
        at_most = min(at_most, SEGMENT_BYTES, self._until - self._at)
        if self._at != self._position or at_most <= body.held:
            return None
        # Where it will be is not known before the thread has ended.
        self._reach = self._position + at_most
        try:
            with self._errors():
                count = await body.receive_into(sink, at_most)
        except _PASSING as error:
            await self._lose(error)
            return None
        finally:
            self._reach = 0
        self._transport.note_received(count)
        self._connections.received(count)
        self._at += count
        self._advance(count, body.waited_s)
        return count

    def _advance(self, count: int, waited_s: float) -> None:
        self._connections.waited(waited_s)
        self._connections.review(self._now_s())
        self._position += count
        self._fetch_ahead()

    async def close(self) -> None:
        """End all that is under way."""
        helpers, self._helpers = self._helpers, set()
        for helper in helpers:
            helper.cancel()
        # Not left to the helpers: one that has not begun never runs.
        for arrivals in tuple(self._holding):
            self._drop(arrivals)
        self._ahead.clear()
        await self._hang_up()
        if helpers:
            await asyncio.wait(helpers)

    async def _next(self) -> Chunk:
        while self._ahead and (first := self._ahead[0]).segment.start <= self._position:
            # It has nothing more to give, and others may wait for its turn at the registry.
            await self._hang_up()
            chunk = await first.read()
            if chunk is not None:
                return chunk
            self._drop(self._ahead.popleft())
        return await self._read_own()

    async def _read_own(self) -> Chunk:
        """Read from the reader's own connection, up to where somebody else began."""
        while True:
            try:
                if self._body is None or self._at == self._until:
                    await self._hang_up()
                    several = self._takes_ranges and self._connections.count > 1
                    longest = SEGMENT_BYTES if several else self._target.size
                    await self._open(min(self._end, self._position + longest))
                elif chunk := await self._read_on():
                    # Somebody may have begun meanwhile.
                    return chunk[: self._end - self._position]
            except _PASSING as error:
                await self._lose(error)

    async def _lose(self, error: RegistryError) -> None:
        """Hang up after what passes; raise it where asking for the rest is of no more use."""
        await self._hang_up()
        if not self._reopening.allows(self._position, self._now_s()):
            raise error

    @property
    def _end(self) -> int:
        """Where the part ends that is left to the reader's own connection."""
        return self._ahead[0].segment.start if self._ahead else self._target.size

    async def _read_on(self) -> memoryview:
        """Return what came next; nothing if it was all before the position."""
        assert self._body is not None
        chunk = await self._read(self._body)
        self._connections.received(len(chunk))
        skipped = max(self._position - self._at, 0)
        self._at += len(chunk)
        if self._at > self._until:
            raise self._mismatch(f"it sent more than {self._target.size} bytes")
        if not chunk:
            reason = f"it sent {self._at} of {self._until} bytes"
            if self._is_framed:
                raise self._mismatch(reason)
            # Nothing but the end of the connection tells the end of such an answer.
            raise RegistryUnreachableError(
                reason, host=self._transport.registry, operation=self._request.operation
            )
        return memoryview(chunk)[skipped:]

    async def _open(self, until: int) -> None:
        """Ask for the content from the position up to `until`."""
        asked = Segment(self._position, until)
        body = await self._send(replace(self._asking_for(asked), accept=_NO_RANGES))
        if body.status in _NO_RANGES:
            # Whoever knows no parts has to send the whole, to be skipped through.
            await self._hang_up()
            body = await self._send(self._request)
        part = self._part_in(body, asked)
        self._at, self._until = part.start, part.end
        self._is_framed = "Content-Length" in body.headers or "Transfer-Encoding" in body.headers
        self._body = receiver_of(body, self._request.idle_s) or body
        if part.start < asked.start or body.headers.get("Accept-Ranges") == "none":
            self._takes_ranges = False
        elif part.start:
            self._takes_ranges = True

    async def _send(self, request: Request) -> ClientResponse:
        return await self._closing.enter_async_context(self._transport.send(request))

    async def _hang_up(self) -> None:
        self._body = None
        await self._closing.aclose()

    def _asking_for(self, part: Segment) -> Request:
        if part.size <= 0 or part.size == self._target.size:
            return self._request
        asked = {"Range": f"bytes={part.start}-{part.end - 1}"}
        return replace(self._request, headers={**self._request.headers, **asked})

    def _fetch_ahead(self) -> None:
        """Let others fetch what comes later, where that pays and there is memory for it."""
        left_bytes = self._target.size - self._position
        if self._takes_ranges is False or (left_bytes < WORTHWHILE_BYTES and not self._ahead):
            return
        # One finds out whether the server sends parts at all.
        most = MAX_CONNECTIONS if self._takes_ranges else 1
        while (
            len(self._helpers) < most
            and len(self._helpers) + (self._body is not None) < self._connections.count
        ):
            segment = self._lookahead.next(self._position)
            if segment is None or not self._read_ahead.take(segment.size):
                return
            self._lookahead.begin(segment)
            arrivals = _Arrivals(segment)
            self._holding.add(arrivals)
            if self._takes_ranges:
                self._ahead.append(arrivals)
            self._helpers.add(asyncio.create_task(self._fetch(arrivals), name="read ahead"))

    async def _fetch(self, arrivals: _Arrivals) -> None:
        """Fetch a segment. What cannot be had so is left to the reader, who meets the error."""
        is_expected = self._takes_ranges is True
        try:
            async with self._transport.send(self._asking_for(arrivals.segment)) as body:
                self._takes_ranges = self._part_in(body, arrivals.segment) == arrivals.segment
                if self._takes_ranges and (is_expected or self._join(arrivals)):
                    is_expected = True
                    await self._receive(body, arrivals)
        except KitdError:
            self._connections.refused(self._now_s())
        finally:
            arrivals.end()
            self._helpers.discard(asyncio.current_task())
            if not is_expected:
                self._drop(arrivals)
        self._fetch_ahead()

    def _join(self, arrivals: _Arrivals) -> bool:
        """Let the reader expect a segment, unless he has come there by himself."""
        if arrivals.segment.start <= max(self._position, self._reach - 1):
            return False
        self._ahead.append(arrivals)
        return True

    async def _receive(self, body: ClientResponse, arrivals: _Arrivals) -> None:
        while arrivals.missing and (chunk := await self._read(body)):
            self._connections.received(len(chunk))
            arrivals.put(memoryview(chunk)[: arrivals.missing])

    def _drop(self, arrivals: _Arrivals) -> None:
        if arrivals in self._holding:
            self._holding.remove(arrivals)
            self._read_ahead.give_back(arrivals.segment.size)

    async def _read(self, body: ClientResponse | Receiver) -> Chunk:
        with self._errors():
            chunk: Chunk
            if isinstance(body, Receiver):
                chunk = await body.read()
            else:
                chunk = await body.content.readany()
        self._transport.note_received(len(chunk))
        return chunk

    def _errors(self) -> AbstractContextManager[None]:
        return http_errors(self._transport.registry, self._request.operation)

    def _part_in(self, body: ClientResponse, asked: Segment) -> Segment:
        """Return which part of the content the body is; what it announces must fit the target."""
        whole = Segment(0, self._target.size)
        part, size = whole, str(whole.size)
        if body.status == 206:
            match = _CONTENT_RANGE.fullmatch(body.headers.get("Content-Range", ""))
            if match is None:
                raise self._violation("it sends a part and does not say which")
            part, size = Segment(int(match.group(1)), int(match.group(2)) + 1), match.group(3)
        if part not in (whole, asked) or size not in ("*", str(whole.size)):
            raise self._mismatch(f"it sends bytes {part.start} to {part.end} of {whole.size}")
        length = body.headers.get("Content-Length")
        if length is not None and length != str(part.size):
            raise self._mismatch(f"it sends {length} bytes, not {part.size}")
        encoding = body.headers.get("Content-Encoding", "identity")
        if encoding.lower() not in ("", "identity"):
            raise self._violation(f"it sends content encoded as {encoding[:40]!r}")
        etag = body.headers.get("ETag", "")
        # A weak one says nothing of the bytes.
        if etag.startswith('"'):
            if self._etag not in (None, etag):
                raise self._mismatch("it has other content than when the transfer began")
            self._etag = etag
        return part

    def _mismatch(self, reason: str) -> RegistryMismatchError:
        return RegistryMismatchError(
            reason, host=self._transport.registry, operation=self._request.operation
        )

    def _violation(self, reason: str) -> RegistryProtocolError:
        return RegistryProtocolError(
            reason, host=self._transport.registry, operation=self._request.operation
        )
