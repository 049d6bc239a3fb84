"""A connection to the daemon on an event loop: calls that overlap.

Descriptors do not come over asyncio's streams; those that go along with a call are sent past the
stream, which has nothing left to send then.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from kitd.client.connection import (
    BACKLOG_PAUSE_S,
    CONNECT_TIMEOUT_S,
    close_all,
    ended,
    open_directory,
    rights,
    unreachable,
)
from kitd.client.error import DeadlineExceededError, ProtocolError
from kitd.client.protocol import (
    MAX_LINE_BYTES,
    Document,
    Notification,
    Response,
    decode_message,
    encode_request,
)
from kitd.errors import KitdError


class Stream(NamedTuple):
    """A connection as a stream, and its socket for what a stream cannot do."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    socket: socket.socket

    async def send(self, line: bytes, shown: Sequence[int]) -> None:
        """Send a line and the descriptors that go with it; nothing is left to be sent then.

        One at a time, and not to be cancelled: half a line is the end of the stream. Raises
        `OSError`.
        """
        if shown:
            line = line[await self._send_first(line, shown) :]
        self.writer.write(line)
        await self.writer.drain()

    async def _send_first(self, line: bytes, shown: Sequence[int]) -> int:
        while True:
            try:
                return self.socket.sendmsg([line], rights(shown))
            except BlockingIOError:
                await _writable(self.socket)

    def hang_up(self) -> None:
        """End the connection, whatever is still to be sent. Safe to call twice."""
        # Also for a copy of the socket that waits until it takes more.
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.writer.transport.abort()

    @property
    def is_at_end(self) -> bool:
        """Whether the peer has hung up, and all that it said before is read from the socket."""
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    async def read(self, silence_s: float | None) -> Response | Notification:
        """Return the next message.

        Raises `DeadlineExceededError` after `silence_s`, `ProtocolError`, `DaemonUnreachableError`.
        """
        try:
            async with asyncio.timeout(silence_s):
                line = await self.reader.readuntil(b"\n")
        except TimeoutError as error:
            raise DeadlineExceededError(f"kitd was silent for {silence_s:g} s") from error
        except asyncio.LimitOverrunError as error:
            raise ProtocolError("kitd sent a line of more than 4 MiB") from error
        except (OSError, asyncio.IncompleteReadError) as error:
            raise ended() from error
        return decode_message(line)


@asynccontextmanager
async def connected(path: str) -> AsyncIterator[Stream]:
    """Connect to the socket at `path`; hang up on leaving.

    Raises `DaemonUnreachableError`, `AccessDeniedError`.
    """
    stream = await open_stream(path)
    try:
        yield stream
    finally:
        stream.writer.close()


async def open_stream(path: str) -> Stream:
    """Return a stream to the socket at `path`. Raises what `connected` raises."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await _connect(sock, path)
            reader, writer = await asyncio.open_unix_connection(sock=sock, limit=MAX_LINE_BYTES)
    except OSError as error:
        sock.close()
        raise unreachable(path, error) from error
    except BaseException:
        sock.close()
        raise
    # So that `drain` waits until everything is sent.
    writer.transport.set_write_buffer_limits(0)
    return Stream(reader, writer, sock)


async def _connect(sock: socket.socket, path: str) -> None:
    while True:
        try:
            # The loop's own takes a full backlog for a connection that is on its way.
            sock.connect(path)
        except BlockingIOError:
            await asyncio.sleep(BACKLOG_PAUSE_S)
        else:
            return


class AsyncConnection:
    """A stream on which calls are made and their answers received, in any order."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._turn = asyncio.Lock()
        self._last_id = 0
        self._answers: dict[int | str | None, asyncio.Future[Any]] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._failure: KitdError | None = None
        self._receiver = asyncio.create_task(self._receive())

    async def has_ended(self) -> bool:
        """Return whether no call can be made any more, once those that were are answered."""
        if self._failure is None and self._stream.is_at_end:
            await asyncio.wait([self._receiver])
        return self._failure is not None

    async def call(
        self, method: str, params: Document, *, timeout_s: float, directory: str | None
    ) -> Any:
        """Return the result of a call; the descriptor of `directory` goes along if it opens.

        Raises `RpcError` with the daemon's reason, `DeadlineExceededError`, `ProtocolError`,
        `DaemonUnreachableError`.
        """
        if self._failure is not None:
            raise self._failure
        self._last_id += 1
        identifier = self._last_id
        line = encode_request(identifier, method, params)
        answer = asyncio.get_running_loop().create_future()
        # Whoever gives up a call does not give up half a line.
        sending = asyncio.create_task(self._send(line, directory, answer))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)
        self._answers[identifier] = answer
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError as error:
            raise DeadlineExceededError(f"{method}: no answer within {timeout_s:g} s") from error
        finally:
            del self._answers[identifier]
            # An error that came when it was given up already is nobody's.
            if not answer.cancel() and not answer.cancelled():
                answer.exception()

    async def close(self) -> None:
        """Hang up. Safe to call twice."""
        self._receiver.cancel()
        self._fail(ended())
        # So that those who still send see the end of it.
        self._stream.hang_up()
        await asyncio.wait([self._receiver, *self._sending])

    async def _send(self, line: bytes, directory: str | None, answer: asyncio.Future[Any]) -> None:
        shown: Sequence[int] = ()
        if directory is not None:
            shown = await asyncio.to_thread(open_directory, directory)
        try:
            async with self._turn:
                # Nobody waits for it any more, and nothing of it was sent.
                if not answer.done():
                    await self._stream.send(line, shown)
        except OSError:
            self._fail(ended())
        finally:
            close_all(shown)

    async def _receive(self) -> None:
        """Hand answers to the calls that wait for them until the connection ends."""
        try:
            while True:
                message = await self._stream.read(None)
                if isinstance(message, Response):
                    self._take(message)
        except KitdError as error:
            self._fail(error)
            self._stream.hang_up()

    def _take(self, response: Response) -> None:
        if response.id is None and response.error is not None:
            # The daemon could not read a request, and nobody knows whose.
            self._fail_all(response.error)
            return
        # Nobody waits for an answer that came after its deadline.
        answer = self._answers.get(response.id)
        if answer is None or answer.done():
            return
        if response.error is None:
            answer.set_result(response.result)
        else:
            answer.set_exception(response.error)

    def _fail(self, error: KitdError) -> None:
        if self._failure is None:
            self._failure = error
        self._fail_all(self._failure)

    def _fail_all(self, error: KitdError) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)


async def _writable(sock: socket.socket) -> None:
    """Wait until a socket takes more. Of a copy, because the stream has the loop watch its own."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    with sock.dup() as copy:
        loop.add_writer(copy, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_writer(copy)
