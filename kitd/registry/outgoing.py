"""The body of a request on its way out."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from aiohttp import BytesPayload, Payload
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import StreamWriter

from kitd.blocking import uninterrupted
from kitd.content.store import ByteStream, Chunk
from kitd.content.stream import direct
from kitd.errors import KitdError
from kitd.registry.errors import RegistryError, RegistryTimeoutError

SOURCE_IDLE_S = 300.0
"""How long the source of a body may be silent. It has deadlines of its own, and may have to connect
to its host again, or to wait until that admits it."""
FRAME_BYTES = 64 << 20
"""What goes the shorter way at once."""
TAIL_BYTES = 1 << 16
"""What is left to the HTTP library: it must know of the last byte before the answer comes, or takes
the connection for one that was left in the middle of a request."""


class Unrepeated(BytesPayload):
    """Bytes as a body, which the HTTP library does not send again where a connection broke."""

    @property
    def consumed(self) -> bool:
        """Whether it is not to be written once more: always."""
        return True


class Outgoing(Payload):
    """A stream as a body, which moves the deadline whenever some of it has gone.

    The HTTP library writes it in a task of its own, and leaves that task to its fate when the
    request ends early; `finish` waits until it no longer reads, so that the source can be closed.
    """

    def __init__(
        self, stream: ByteStream, idle_s: float, sent: Callable[[int], None] = lambda _count: None
    ) -> None:
        super().__init__(stream)
        self.deadline: asyncio.Timeout | None = None
        """The one to move."""
        self._stream = direct(stream)
        self._idle_s = idle_s
        self._sent = sent
        self._at_source = False
        self._failure: KitdError | None = None
        self._reading = asyncio.Lock()
        self._closed = False
        self._transport: asyncio.Transport | None = None
        """The connection, while some of the body is missing on it."""

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write all of it."""
        # Never begun again: the stream is read once.
        self._consumed = True
        assert isinstance(writer, StreamWriter)
        self._transport = writer.transport
        with _wire_under(writer) as wire:
            if wire is not None:
                await self._send_directly(wire)
            while (chunk := await self._take()) is not None:
                await writer.write(chunk)
                self._sent(len(chunk))
        self._transport = None

    async def write_with_length(
        self,
        writer: AbstractStreamWriter,
        content_length: int | None,  # noqa: ARG002 - as in the base
    ) -> None:
        """Write all of it: whoever opened the stream has stated how long it is."""
        await self.write(writer)

    def decode(
        self,
        encoding: str = "utf-8",  # noqa: ARG002 - as in the base
        errors: str = "strict",  # noqa: ARG002
    ) -> NoReturn:
        """Refuse: it is read once, and may be large."""
        raise TypeError("a body that is on its way is no text")

    async def finish(self) -> None:
        """Give nothing more; returns when nothing is being read."""
        # Not cut short: a thread may be reading what is closed next.
        await uninterrupted(self._finish())

    async def _finish(self) -> None:
        async with self._reading:
            self._closed = True
        if self._transport is not None:
            # Some of Python 3.12 have no loop to tell any more where the connection was lost.
            with suppress(AttributeError):
                # It would stay until the peer has taken what was written, which may be never.
                self._transport.abort()

    def caused(self, error: RegistryError) -> bool:
        """Whether a request failed because of the source: with its error, or of its silence."""
        at_source = self._at_source or self._stream.is_at_source
        silent = at_source and isinstance(error, RegistryTimeoutError)
        return error is self._failure or silent

    async def _take(self) -> Chunk | None:
        async with self._reading:
            self._go_on()
            self._at_source = True
            self._postpone(SOURCE_IDLE_S)
            with self._source_errors():
                chunk = await anext(self._stream, None)
            self._at_source = False
            self._postpone(self._idle_s)
            return chunk

    async def _send_directly(self, wire: "_Wire") -> None:
        """Send as much as can go the shorter way."""
        while (sendable := self._stream.sendable) > TAIL_BYTES:
            size = min(sendable - TAIL_BYTES, FRAME_BYTES)
            # Whatever was written must have left: what goes the shorter way would overtake it.
            await wire.begin_frame(size)
            while size:
                size -= await self._send(wire.connection, size)
            wire.end_frame()

    async def _send(self, connection: socket.socket, at_most: int) -> int:
        async with self._reading:
            self._go_on()
            with self._source_errors():
                count = await self._stream.send_to(connection, at_most)
            if count:
                self._postpone(self._idle_s)
                self._sent(count)
            return count

    def _go_on(self) -> None:
        if self._closed:
            # Ending here would make a short body look complete, and its connection reusable.
            raise ConnectionAbortedError("the request has ended")

    @contextmanager
    def _source_errors(self) -> Iterator[None]:
        try:
            yield
        except KitdError as error:
            self._failure = error
            raise

    def _postpone(self, idle_s: float) -> None:
        assert self.deadline is not None
        # A deadline that is over cannot be moved: the answer came before the whole body was sent.
        with suppress(RuntimeError):
            self.deadline.reschedule(asyncio.get_running_loop().time() + idle_s)


class _Wire:
    """What is under a request: the socket, and what frames its body."""

    def __init__(self, writer: StreamWriter, transport: asyncio.Transport) -> None:
        self._writer = writer
        self._transport = transport
        self.connection: socket.socket = transport.get_extra_info("socket").dup()

    async def begin_frame(self, size: int) -> None:
        """Return once nothing but so many bytes of the body is missing on the socket."""
        self._writer.send_headers()
        if self._writer.chunked:
            # RFC 9112, 7.1.
            self._transport.write(b"%x\r\n" % size)
        await self._writer.drain()

    def end_frame(self) -> None:
        """Go on after those bytes."""
        if self._writer.chunked:
            self._transport.write(b"\r\n")


@contextmanager
def _wire_under(writer: StreamWriter) -> Iterator[_Wire | None]:
    """Open what is under a request, unless that is TLS: then the bytes have to come through here.

    Meanwhile whoever drains the writer waits until all has left.
    """
    transport = writer.transport
    if transport is None or transport.get_extra_info("sslcontext") is not None:
        yield None
        return
    try:
        wire = _Wire(writer, transport)
    except OSError:
        # No descriptor is left for it, or the connection is gone already.
        yield None
        return
    with wire.connection:
        transport.set_write_buffer_limits(high=0)
        try:
            yield wire
        finally:
            transport.set_write_buffer_limits()
