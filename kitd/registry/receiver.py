"""Receiving the body of one answer without the HTTP library between, which copies it three times.

What the library has received of the body is taken over from it. The rest is read from the
connection into memory that the reader is given as it is; where that connection is a plain socket
and brings more than the loop takes from it, a thread reads it straight into the reader's memory.
The library cannot use the connection afterwards, so that this is for bodies worth a handshake.
"""

import asyncio
import re
import socket
import time
from collections import deque

from aiohttp import ClientConnectionError, ClientResponse

from kitd.blocking import run_blocking
from kitd.content.stream import MOMENT_S, Sink

BUFFER_BYTES = 1 << 20
"""What is received into one piece of memory. With so much not read, no more is received."""
LEAST_ROOM_BYTES = 1 << 16
"""With less room than that left, the rest of it is not used."""
MAX_RECORD_BYTES = 1 << 15
"""More than one record of TLS has (RFC 8446, 5.1)."""
WORTHWHILE_BYTES = 16 << 20
"""A smaller body comes soon enough, and leaves a connection that others can use."""

_LENGTH = re.compile("[0-9]{1,18}")


class Receiver(asyncio.BufferedProtocol):
    """Reads what is left of a body. One task at a time reads, one way or the other.

    Both ways raise `TimeoutError` after too long a silence, and `aiohttp.ClientError` where the
    connection ended before the body. Source: `asyncio.BufferedProtocol`,
    `asyncio.BaseTransport.set_protocol`.
    """

    def __init__(self, response: ClientResponse, length: int, idle_s: float) -> None:
        assert response.connection is not None
        transport = response.connection.transport
        assert transport is not None
        self._transport: asyncio.Transport = transport
        self._library = transport.get_protocol()
        self._is_plain = transport.get_extra_info("sslcontext") is None
        self._idle_s = idle_s
        self._missing = length
        self._arrived: deque[memoryview] = deque()
        self.held = 0
        """How many bytes have arrived and were not read."""
        self.waited_s = 0.0
        self._buffer = memoryview(b"")
        self._is_paused = False
        self._is_over = False
        self._error: Exception | None = None
        self._changed = asyncio.Event()
        # Nothing may come in between: there is no `await` from the first of these to the last.
        while chunk := response.content.read_nowait():
            self._take(memoryview(chunk))
        transport.set_protocol(self)

    @property
    def is_fast(self) -> bool:
        """Whether more has come than was read, over a socket that a thread may read."""
        return self._is_plain and self._is_paused

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go."""
        # Of a connection that is closing TLS asks once, and drops what has no room; beside what it
        # announces there may be a record that it has decrypted already.
        wanted = max(sizehint + MAX_RECORD_BYTES, LEAST_ROOM_BYTES)
        if len(self._buffer) < wanted:
            # Never used again: the reader keeps what it is given for as long as it likes.
            self._buffer = memoryview(bytearray(max(BUFFER_BYTES, wanted)))
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what has come."""
        chunk, self._buffer = self._buffer[:nbytes], self._buffer[nbytes:]
        self._take(chunk)

    def eof_received(self) -> None:
        """Note that nothing more comes; the transport closes itself."""
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that nothing more comes, and tell the library that its connection is gone."""
        self._end(exc)
        self._library.connection_lost(exc)

    async def read(self) -> memoryview:
        """Return what came next; nothing at the end."""
        while not self._arrived:
            if not self._missing:
                return memoryview(b"")
            self._resume()
            await self._change()
        chunk = self._arrived.popleft()
        self.held -= len(chunk)
        if self.held < BUFFER_BYTES:
            self._resume()
        return chunk

    async def receive_into(self, sink: Sink, at_most: int) -> int:
        """Receive what comes next in a thread, for a moment; return how many bytes that was.

        Only for what `is_fast`, which it may no longer be afterwards, and for more than is `held`.
        `waited_s` says how much of the time it waited for them.
        """
        self.waited_s = 0.0
        try:
            connection = self._transport.get_extra_info("socket").dup()
        except OSError:
            # No descriptor is left for it, or the connection is gone: the loop knows what to do.
            self._resume()
            return 0
        with connection:
            received = await run_blocking(self._receive, connection, sink, at_most)
        if received < at_most:
            # It has become slow, and a thread has better to do than to wait for it.
            self._resume()
        return received

    def _receive(self, connection: socket.socket, sink: Sink, at_most: int) -> int:
        until_s = time.monotonic() + MOMENT_S
        received = self._hand_over(sink)
        at_most = min(at_most, received + self._missing)
        while received < at_most and (left_s := until_s - time.monotonic()) > 0:
            room = sink.room()[: at_most - received]
            count = self._receive_some(connection, room, left_s)
            if count is None:
                break
            if not count:
                if received:
                    # Found again by the next to ask, who has nothing else to tell.
                    break
                raise ClientConnectionError from self._error
            self._missing -= count
            received += count
            sink.fill(count)
        return received

    def _receive_some(
        self, connection: socket.socket, room: memoryview, left_s: float
    ) -> int | None:
        """Return how many bytes came; 0 if none will, None if none did in time."""
        asked_s = time.monotonic()
        connection.settimeout(left_s)
        try:
            return connection.recv_into(room)
        except TimeoutError:
            return None
        except OSError as error:
            self._error = error
            return 0
        finally:
            self.waited_s += time.monotonic() - asked_s

    def _hand_over(self, sink: Sink) -> int:
        """Put what has arrived in the sink; nothing more does, because reading is paused."""
        count = self.held
        for chunk in self._arrived:
            sink.write(chunk)
        self._arrived.clear()
        self.held = 0
        return count

    async def _change(self) -> None:
        if not self._is_over:
            self._changed.clear()
            async with asyncio.timeout(self._idle_s):
                await self._changed.wait()
        elif not self._arrived:
            raise ClientConnectionError from self._error

    def _take(self, chunk: memoryview) -> None:
        # Beyond the end of the body there is nothing that anybody asked for.
        chunk = chunk[: self._missing]
        self._missing -= len(chunk)
        self.held += len(chunk)
        self._arrived.append(chunk)
        self._changed.set()
        if self.held >= BUFFER_BYTES and not self._is_paused and not self._is_over:
            self._is_paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            if not self._is_over:
                self._transport.resume_reading()

    def _end(self, error: Exception | None) -> None:
        self._is_over = True
        self._error = self._error or error
        self._changed.set()


def receiver_of(response: ClientResponse, idle_s: float) -> Receiver | None:
    """Take over the body of an answer; None where the library has to read it, or may as well."""
    length = response.headers.get("Content-Length", "")
    if "Transfer-Encoding" in response.headers or _LENGTH.fullmatch(length) is None:
        return None
    if int(length) < WORTHWHILE_BYTES or response.connection is None:
        return None
    return Receiver(response, int(length), idle_s)
