"""Streams that know a shorter way for their bytes than chunk by chunk through the event loop.

A thread can read a file and send it, or read a socket into the memory that is hashed and written
next; each is busy with that for a moment at a time. Whoever takes from a stream asks for the
shorter way first, and takes the next chunk where there is none.
"""

import socket
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from kitd.content.store import ByteStream, Chunk, MismatchError

MOMENT_S = 0.25
"""How long one thread is busy with one stream; a cancellation waits for that."""


class Sink(Protocol):
    """Memory that is filled from its beginning on."""

    def room(self) -> memoryview:
        """Return where the next bytes go; never empty."""
        ...

    def fill(self, size: int) -> None:
        """Count the first `size` bytes of `room` as filled. May wait until others emptied some."""
        ...

    def write(self, data: Chunk) -> None:
        """Copy bytes in; as `fill`, it may wait."""
        ...


class DirectStream(AsyncIterator[Chunk]):
    """A stream with shorter ways; by itself it has none.

    Both ways raise what taking the next chunk would.
    """

    @property
    def sendable(self) -> int:
        """How many of the next bytes can be sent the shorter way."""
        return 0

    @property
    def is_at_source(self) -> bool:
        """Whether `send_to` is waiting for what it is to send, and not for the connection."""
        return False

    async def send_to(self, connection: socket.socket, at_most: int, /) -> int:
        """Send what is next, from a thread and for `MOMENT_S` at most; return how many bytes went.

        Not more than is `sendable`. The connection does not block. Raises `OSError` where it broke.
        """
        raise NotImplementedError

    async def receive_into(self, sink: Sink, at_most: int, /) -> int | None:  # noqa: ARG002
        """Receive what is next, in a thread and for `MOMENT_S` at most; return how many bytes came.

        None where the next chunk has to be taken instead.
        """
        return None


class _Plain(DirectStream):
    """A stream of chunks, and nothing else."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    async def __anext__(self) -> Chunk:
        return await anext(self._stream)


def direct(stream: ByteStream) -> DirectStream:
    """Return the stream with its shorter ways, or with none."""
    return stream if isinstance(stream, DirectStream) else _Plain(stream)


class _Over(DirectStream):
    """Another stream, with all that it can do."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = direct(stream)

    @property
    def sendable(self) -> int:
        """How many of the next bytes can be sent the shorter way."""
        return self._stream.sendable

    @property
    def is_at_source(self) -> bool:
        """Whether `send_to` is waiting for what it is to send, and not for the connection."""
        return self._stream.is_at_source


class Counted(_Over):
    """The same stream; `passed` is told of bytes once they have left whoever takes them."""

    def __init__(self, stream: ByteStream, passed: Callable[[int], None]) -> None:
        super().__init__(stream)
        self._passed = passed
        self._taken = 0

    async def __anext__(self) -> Chunk:
        # Whoever asks for more is done with what he has.
        self._pass(0)
        chunk = await anext(self._stream)
        self._taken = len(chunk)
        return chunk

    async def send_to(self, connection: socket.socket, at_most: int, /) -> int:
        """Send what is next: see `DirectStream`."""
        count = await self._stream.send_to(connection, at_most)
        self._pass(count)
        return count

    async def receive_into(self, sink: Sink, at_most: int, /) -> int | None:
        """Receive what is next: see `DirectStream`."""
        count = await self._stream.receive_into(sink, at_most)
        self._pass(count or 0)
        return count

    def _pass(self, count: int) -> None:
        count, self._taken = count + self._taken, 0
        if count:
            self._passed(count)


class Portion(_Over):
    """The first `count` bytes of a stream. Raises `MismatchError` where there are fewer."""

    def __init__(self, stream: ByteStream, count: int) -> None:
        super().__init__(stream)
        self._left = count

    @property
    def sendable(self) -> int:
        """How many of the next bytes can be sent the shorter way."""
        return min(self._left, super().sendable)

    async def __anext__(self) -> Chunk:
        if not self._left:
            raise StopAsyncIteration
        chunk = await anext(self._stream, None)
        if chunk is None:
            raise MismatchError(
                f"the source ended {self._left} bytes before the end of the content"
            )
        if len(chunk) > self._left:
            chunk = memoryview(chunk)[: self._left]
        self._left -= len(chunk)
        return chunk

    async def send_to(self, connection: socket.socket, at_most: int, /) -> int:
        """Send what is next: see `DirectStream`."""
        count = await self._stream.send_to(connection, at_most)
        self._left -= count
        return count
