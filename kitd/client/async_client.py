"""The client for programs that run an event loop.

Calls may overlap on one connection; a stream of events has a connection of its own. Descriptors do
not come over asyncio's streams, so unpacking is done by a blocking client in a thread.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self, TypeVar, Unpack

from kitd.client import request as requests
from kitd.client import work
from kitd.client.absence import PATIENCE_S, Absence, naming
from kitd.client.async_connection import AsyncConnection, connected, open_stream
from kitd.client.client import Client
from kitd.client.connection import socket_path
from kitd.client.error import ClientClosedError
from kitd.client.outcome import Choice, JobFailedError, Moved, PackedKit, Unpacked
from kitd.client.protocol import SILENCE_S, Document, Response, encode_request
from kitd.client.record import Event, Job, Kit, read_event, read_subscription
from kitd.client.request import PackOptions, Request
from kitd.client.subscription import CALL_TIMEOUT_S
from kitd.client.work import Work
from kitd.errors import KitdError

T = TypeVar("T")

_HOLD_S = 30
"""How long the daemon holds one `jobs.wait`; longer waits are several of them."""


class AsyncClient:
    """A connection to the daemon and what it can be asked. Made by `connect`.

    A connection that has ended is made anew by the next call. No call is sent twice.
    """

    def __init__(self, path: str, connection: AsyncConnection, patience_s: float) -> None:
        self._path = path
        self._patience_s = patience_s
        self._connection = connection
        self._turn = asyncio.Lock()
        self._is_closed = False

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, path: str | os.PathLike[str] | None = None, *, patience_s: float = PATIENCE_S
    ) -> AsyncIterator[Self]:
        """Connect to the socket at `path`, by default this user's daemon; hang up on leaving.

        A job is waited for while the daemon is away, as when it is started again, for at most
        `patience_s`.
        Raises `DaemonUnreachableError`, `AccessDeniedError`, `ArgumentError`,
        `InvalidPlaceError`.
        """
        place = socket_path(path)
        client = cls(place, AsyncConnection(await open_stream(place)), patience_s)
        try:
            yield client
        finally:
            client._is_closed = True
            # Now, for the calls that wait on it, and once no call connects any more.
            await client._connection.close()
            async with client._turn:
                await client._connection.close()

    async def call(self, request: Request[T], *, timeout_s: float = CALL_TIMEOUT_S) -> T:
        """Send one of the requests of `kitd.client.request` and return its answer.

        Raises `RpcError` with the daemon's reason, `DeadlineExceededError`, `ProtocolError`,
        `DaemonUnreachableError`.
        """
        connection = await self._connected()
        return request.read(
            await connection.call(
                request.method, request.params, timeout_s=timeout_s, directory=request.directory
            )
        )

    async def _connected(self) -> AsyncConnection:
        """Return a connection that the next call can be made on."""
        async with self._turn:
            self._require_open()
            if await self._connection.has_ended():
                await self._connection.close()
                self._require_open()
                self._connection = AsyncConnection(await open_stream(self._path))
            try:
                self._require_open()
            except ClientClosedError:
                await self._connection.close()
                raise
            return self._connection

    def _require_open(self) -> None:
        if self._is_closed:
            raise ClientClosedError("this client was closed", hint="connect another one")

    async def wait(self, job: int | Job) -> Job:
        """Return a job once it has ended, well or not; of a superseded job, its successor.

        Of a `Job` it is known whether a daemon that is back has the same. Raises `JobLostError` if
        the daemon stays away or has another job of that number, and what `call` raises. For a
        deadline use `asyncio.timeout`.
        """
        absence = Absence(self._patience_s, job)
        while True:
            request = requests.wait_job(absence.job, timeout_ms=_HOLD_S * 1000)
            try:
                current = await self.call(request, timeout_s=_HOLD_S + CALL_TIMEOUT_S)
            except KitdError as error:
                await asyncio.sleep(absence.pause_s(error))
                continue
            absence.end(current)
            if current.superseded_by is not None:
                absence = Absence(self._patience_s, current.superseded_by)
            elif current.is_terminal:
                return current

    async def run(self, asked: Work[T]) -> T:
        """Have work done that takes a job, and return what it came to once that has ended.

        Raises `JobFailedError`, `JobLostError` if the daemon goes away and stays away or comes back
        with another state, and what `call` raises. Work that is not waited for goes on; what ends
        only the wait for it has a note that names the job.
        """
        job = await self.call(asked.start)
        ended = await self._complete(job)
        followers = [
            await self._complete(follower)
            for follower in (ended.followed_by if asked.with_followers else ())
        ]
        return asked.read(ended, followers)

    async def _complete(self, job: int | Job) -> Job:
        with naming(job.id if isinstance(job, Job) else job):
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
        existing: Choice = "refuse",
        include_remote: bool = False,
    ) -> Unpacked:
        """Write a kit's files to a directory: see `Client.unpack`.

        A thread does it, with a connection of its own; one that is cancelled goes on to its end.
        """

        def unpack() -> Unpacked:
            with Client.connect(self._path, patience_s=self._patience_s) as client:
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
            async with connected(self._path) as stream:
                stream.writer.write(encode_request(1, "events.subscribe", {**given, **cursor}))
                lagged = False
                while not lagged:
                    message = await stream.read(SILENCE_S)
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
