"""The client for programs that run an event loop.

Calls may overlap on one connection; a stream of events has a connection of its own. Descriptors do
not come over asyncio's streams, so unpacking is done by a blocking client in a thread; those that
go along with a call are sent past the stream, which has nothing left to send then.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self, TypeVar, Unpack

from kitd.client import request as requests
from kitd.client import work
from kitd.client.client import Client
from kitd.client.connection import (
    CONNECT_TIMEOUT_S,
    close_all,
    ended,
    open_directory,
    rights,
    unreachable,
)
from kitd.client.error import DeadlineExceededError, ProtocolError
from kitd.client.outcome import JobFailedError, Moved, PackedKit, Unpacked
from kitd.client.protocol import (
    MAX_LINE_BYTES,
    SILENCE_S,
    Document,
    Notification,
    Response,
    decode_message,
    encode_request,
)
from kitd.client.record import Event, Job, Kit, read_event, read_subscription
from kitd.client.request import PackOptions, Request
from kitd.client.subscription import CALL_TIMEOUT_S
from kitd.client.work import Work
from kitd.config.places import find_socket
from kitd.errors import KitdError

T = TypeVar("T")

_HOLD_S = 30
"""How long the daemon holds one `jobs.wait`; longer waits are several of them."""


class AsyncClient:
    """A connection to the daemon and what it can be asked. Made by `connect`."""

    def __init__(self, path: str, stream: "_Stream") -> None:
        self._path = path
        self._stream = stream
        self._sending = asyncio.Lock()
        self._last_id = 0
        self._answers: dict[int | str | None, asyncio.Future[Any]] = {}
        self._failure: KitdError | None = None

    @classmethod
    @asynccontextmanager
    async def connect(cls, path: str | os.PathLike[str] | None = None) -> AsyncIterator[Self]:
        """Connect to the socket at `path`, by default this user's daemon; hang up on leaving.

        Raises `DaemonUnreachableError`, `AccessDeniedError`, `InvalidPlaceError`.
        """
        place = find_socket(os.environ, os.getuid()).path if path is None else os.fspath(path)
        async with _connected(place) as stream:
            client = cls(place, stream)
            receiver = asyncio.create_task(client._receive())
            try:
                yield client
            finally:
                receiver.cancel()
                await asyncio.wait([receiver])

    async def call(self, request: Request[T], *, timeout_s: float = CALL_TIMEOUT_S) -> T:
        """Send one of the requests of `kitd.client.request` and return its answer.

        Raises `RpcError` with the daemon's reason, `DeadlineExceededError`, `ProtocolError`,
        `DaemonUnreachableError`.
        """
        if self._failure is not None:
            raise self._failure
        self._last_id += 1
        identifier = self._last_id
        line = encode_request(identifier, request.method, request.params)
        answer = self._answers[identifier] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                async with _opened(request.directory) as shown, self._sending:
                    await self._stream.send(line, shown)
                return request.read(await answer)
        except TimeoutError as error:
            raise DeadlineExceededError(
                f"{request.method}: no answer within {timeout_s:g} s"
            ) from error
        except OSError as error:
            raise ended() from error
        finally:
            del self._answers[identifier]

    async def wait(self, job: int) -> Job:
        """Return a job once it has ended, well or not; of a superseded job, its successor.

        Raises what `call` raises. For a deadline use `asyncio.timeout`.
        """
        while True:
            request = requests.wait_job(job, timeout_ms=_HOLD_S * 1000)
            current = await self.call(request, timeout_s=_HOLD_S + CALL_TIMEOUT_S)
            if current.superseded_by is not None:
                job = current.superseded_by
            elif current.is_terminal:
                return current

    async def run(self, asked: Work[T]) -> T:
        """Have work done that takes a job, and return what it came to once that has ended.

        Raises `JobFailedError`, and what `call` raises. Work that is not waited for goes on.
        """
        job = await self.call(asked.start)
        ended = await self._complete(job.id)
        followers = [
            await self._complete(follower)
            for follower in (ended.followed_by if asked.with_followers else ())
        ]
        return asked.read(ended, followers)

    async def _complete(self, job: int) -> Job:
        ended = await self.wait(job)
        if ended.state != "succeeded":
            raise JobFailedError(ended)
        return ended

    async def pack(
        self,
        directory: str | os.PathLike[str],
        reference: str,
        **options: Unpack[PackOptions],
    ) -> PackedKit:
        """Pack a directory as `reference`: see `Client.pack`."""
        return await self.run(work.pack(directory, reference, **options))

    async def push(
        self, reference: str, target: str | None = None, *, with_parents: bool = False
    ) -> Moved:
        """Copy a kit of the cache to its registry, or to `target`: see `Client.push`."""
        return await self.run(work.push(reference, target, with_parents=with_parents or None))

    async def pull(self, reference: str, filters: Sequence[str] = ()) -> Moved:
        """Copy a kit from its registry to the cache: see `Client.pull`."""
        return await self.run(work.pull(reference, filters))

    async def unpack(
        self,
        reference: str,
        directory: str | os.PathLike[str] = ".",
        filters: Sequence[str] = (),
        *,
        existing: str = "refuse",
        include_remote: bool = False,
    ) -> Unpacked:
        """Write a kit's files to a directory: see `Client.unpack`.

        A thread does it, with a connection of its own; one that is cancelled goes on to its end.
        """

        def unpack() -> Unpacked:
            with Client.connect(self._path) as client:
                return client.unpack(
                    reference,
                    directory,
                    filters,
                    existing=existing,
                    include_remote=include_remote,
                )

        return await asyncio.to_thread(unpack)

    async def kits(self, repository: str | None = None) -> tuple[Kit, ...]:
        """Return the kits of the cache, or of one repository. Raises what `call` raises."""
        return await self.call(requests.list_kits(repository))

    async def inspect(self, reference: str, *, remote: bool = False) -> Document:
        """Return a kit's digest, manifest and Kitfile. Raises what `call` raises."""
        return await self.call(requests.inspect_kit(reference, remote=remote))

    async def jobs(
        self, *, state: str | None = None, kind: str | None = None, project: str | None = None
    ) -> tuple[Job, ...]:
        """Return jobs, newest first. Raises what `call` raises."""
        return await self.call(requests.list_jobs(state=state, kind=kind, project=project))

    async def events(
        self, *, from_seq: int | None = None, project: str | None = None, job: int | None = None
    ) -> AsyncIterator[Event]:
        """Yield events recorded after `from_seq`, if given, and all new ones, without a gap.

        A consumer who is too slow for the daemon is put back where it stopped and misses no event.
        Raises `DeadlineExceededError` when the daemon misses its heartbeats, and what `call`
        raises. Close the iterator (`contextlib.aclosing`) when leaving it early.
        """
        filters = {"project": project, "job": job}
        given = {name: value for name, value in filters.items() if value is not None}
        while True:
            cursor = {} if from_seq is None else {"from_seq": from_seq}
            async with _connected(self._path) as stream:
                stream.writer.write(encode_request(1, "events.subscribe", {**given, **cursor}))
                lagged = False
                while not lagged:
                    message = await _read(stream.reader, SILENCE_S)
                    if isinstance(message, Response):
                        if message.error is not None:
                            raise message.error
                        read_subscription(message.result)
                    elif message.method == "events.event":
                        event = read_event(message.params.get("event"))
                        from_seq = event.seq
                        yield event
                    elif message.method == "events.lagged":
                        last_seq = message.params.get("last_seq")
                        from_seq = last_seq if isinstance(last_seq, int) else from_seq
                        lagged = True

    async def _receive(self) -> None:
        """Hand answers to the calls that wait for them until the connection ends."""
        try:
            while True:
                message = await _read(self._stream.reader, None)
                if isinstance(message, Notification):
                    continue
                # Nobody waits for an answer that came after its deadline.
                answer = self._answers.get(message.id)
                if answer is None or answer.done():
                    continue
                if message.error is None:
                    answer.set_result(message.result)
                else:
                    answer.set_exception(message.error)
        except KitdError as error:
            self._failure = error
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(error)


class _Stream(NamedTuple):
    """A connection as a stream, and its socket for what a stream cannot do."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    socket: socket.socket

    async def send(self, line: bytes, shown: Sequence[int]) -> None:
        """Send a line and the descriptors that go with it. One at a time. Raises `OSError`."""
        if shown:
            # What was written before is sent: `drain` returned only then.
            line = line[await self._send_first(line, shown) :]
        self.writer.write(line)
        await self.writer.drain()

    async def _send_first(self, line: bytes, shown: Sequence[int]) -> int:
        while True:
            try:
                return self.socket.sendmsg([line], rights(shown))
            except BlockingIOError:
                await _writable(self.socket)


@asynccontextmanager
async def _opened(path: str | None) -> AsyncIterator[Sequence[int]]:
    """Open the directory that goes along with a call, if any, past the loop."""
    if path is None:
        yield ()
        return
    opening = asyncio.ensure_future(asyncio.to_thread(open_directory, path))
    try:
        shown = await asyncio.shield(opening)
    except asyncio.CancelledError:
        # The thread goes on, and what it opens then is nobody's.
        opening.add_done_callback(lambda opened: close_all(opened.result()))
        raise
    try:
        yield shown
    finally:
        close_all(shown)


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


@asynccontextmanager
async def _connected(path: str) -> AsyncIterator[_Stream]:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await asyncio.get_running_loop().sock_connect(sock, path)
            reader, writer = await asyncio.open_unix_connection(sock=sock, limit=MAX_LINE_BYTES)
    except OSError as error:
        sock.close()
        raise unreachable(path, error) from error
    except BaseException:
        sock.close()
        raise
    # So that `drain` waits until everything is sent.
    writer.transport.set_write_buffer_limits(0)
    try:
        yield _Stream(reader, writer, sock)
    finally:
        writer.close()


async def _read(reader: asyncio.StreamReader, silence_s: float | None) -> Response | Notification:
    try:
        async with asyncio.timeout(silence_s):
            line = await reader.readuntil(b"\n")
    except TimeoutError as error:
        raise DeadlineExceededError(f"kitd was silent for {silence_s:g} s") from error
    except asyncio.LimitOverrunError as error:
        raise ProtocolError("kitd sent a line of more than 4 MiB") from error
    except (OSError, asyncio.IncompleteReadError) as error:
        raise ended() from error
    return decode_message(line)
