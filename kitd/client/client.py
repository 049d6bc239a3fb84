"""The blocking client: calls, subscriptions and jobs that are waited for."""

import math
import os
import time
from _thread import allocate_lock
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any, Self, TypeVar, Unpack

from kitd.client import request as requests
from kitd.client import work
from kitd.client.absence import PATIENCE_S, RECONNECTING, Absence, naming
from kitd.client.connection import Connection, close_all, socket_path
from kitd.client.error import ClientClosedError, DeadlineExceededError, ProtocolError
from kitd.client.outcome import Choice, JobFailedError, Moved, PackedKit, Unpacked
from kitd.client.protocol import Document
from kitd.client.record import Event, Job, Kit, Progress
from kitd.client.request import PackOptions, Request
from kitd.client.show import Watch, watching
from kitd.client.subscription import CALL_TIMEOUT_S, Subscription
from kitd.client.work import Work
from kitd.errors import KitdError

T = TypeVar("T")


class Client:
    """A connection to the daemon and what it can be asked. Use as a context manager.

    A connection that has ended, or on which a call was given up, is made anew by the next call. No
    call is sent twice.
    Threads may share it: their calls take turns, and each waits for its turn no longer than for its
    answer. What is followed and subscribed to holds up nobody: it takes a connection for itself,
    that of the calls while it is not used, and the next call makes another.
    """

    def __init__(self, path: str, patience_s: float) -> None:
        self._path = path
        self._patience_s = patience_s
        self._connection: Connection | None = Connection(path)
        self._is_closed = False
        # The module under `threading`, for the reason of `kitd.client.connection`.
        self._turn = allocate_lock()
        self._pid = os.getpid()

    @classmethod
    def connect(
        cls, path: str | os.PathLike[str] | None = None, *, patience_s: float = PATIENCE_S
    ) -> Self:
        """Connect to the socket at `path`, by default this user's daemon.

        A job is waited for while the daemon is away, as when it is started again, for at most
        `patience_s`.
        Raises `DaemonUnreachableError`, `AccessDeniedError`, `ArgumentError`,
        `InvalidPlaceError`.
        """
        return cls(socket_path(path), patience_s)

    def call(self, request: Request[T], *, timeout_s: float = CALL_TIMEOUT_S) -> T:
        """Send one of the requests of `kitd.client.request` and return its answer.

        Raises `RpcError` with the daemon's reason, `DeadlineExceededError`, `ProtocolError`,
        `DaemonUnreachableError`.
        """

        def ask(connection: Connection, left_s: float) -> Any:
            return connection.call(
                request.method, request.params, timeout_s=left_s, directory=request.directory
            )

        return request.read(self._in_turn(request.method, timeout_s, ask))

    def open_layers(self, manifest: str, layers: Sequence[str]) -> list[int]:
        """Return read-only descriptors of at most 32 layers of a kit; the caller closes them.

        Raises what `call` raises.
        """
        params = {"digest": manifest, "layers": list(layers)}

        def ask(connection: Connection, left_s: float) -> list[int]:
            return connection.call_for_descriptors("kits.open", params, timeout_s=left_s)[1]

        descriptors = self._in_turn("kits.open", CALL_TIMEOUT_S, ask)
        if len(descriptors) != len(layers):
            close_all(descriptors)
            raise ProtocolError(f"asked for {len(layers)} layers, got {len(descriptors)}")
        return descriptors

    def subscribe(
        self,
        *,
        from_seq: int | None = None,
        project: str | None = None,
        job: int | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> Subscription:
        """Subscribe to events: those recorded after `from_seq`, if given, and all new ones.

        The answer is waited for as long as `timeout_s`. Close it, or use it as a context manager.
        Raises what `call` raises.
        """
        self._require_open()
        filters = {"project": project, "job": job}
        given = {name: value for name, value in filters.items() if value is not None}
        # One that no call is made on would only take up the place of somebody who waits as well.
        connection = self._take_unused()
        if connection is not None and not connection.is_idle:
            connection.close()
            connection = None
        if connection is None:
            connection = Connection(self._path)
        return Subscription(connection, given, from_seq, timeout_s)

    def follow(
        self, job: int | Job, *, timeout_s: float | None = None
    ) -> Generator[Job | Progress, None, None]:
        """Yield a job as it is now, its progress, and the job again whenever it changed.

        The last item is the job in its final state; of a job that was superseded, its successor.
        While the daemon is away it is looked for, and `RECONNECTING` told each time. Close it
        where it is left earlier. Of a `Job` it is known whether a daemon that is back has the same.
        Raises `DeadlineExceededError` after `timeout_s`, `JobLostError` if the daemon stays away or
        has another job of that number, and what `call` raises.
        """
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        absence = Absence(self._patience_s, job)
        while True:
            number = absence.job
            try:
                # Subscribing before looking: what happens in between is in the subscription.
                with self.subscribe(job=number) as subscription:
                    current = subscription.call(requests.get_job(number))
                    absence.end(current)
                    yield current
                    while not current.is_terminal:
                        item = subscription.read(deadline=deadline)
                        if isinstance(item, Event):
                            self._require_open()
                            current = subscription.call(requests.get_job(number))
                            absence.end(current)
                            yield current
                        elif item.job == number:
                            yield item.progress
                if current.superseded_by is None:
                    return
                absence = Absence(self._patience_s, current.superseded_by)
            except KitdError as error:
                if time.monotonic() >= deadline:
                    raise
                pause_s = absence.pause_s(error)
                yield RECONNECTING
                time.sleep(max(min(pause_s, deadline - time.monotonic()), 0))
                if time.monotonic() >= deadline:
                    raise DeadlineExceededError("the time is over, and kitd is away") from error

    def wait(self, job: int | Job, *, timeout_s: float | None = None) -> Job:
        """Return a job once it has ended, well or not.

        Raises what `follow` raises.
        """
        with closing(self.follow(job, timeout_s=timeout_s)) as items:
            *_, last = (item for item in items if isinstance(item, Job))
        return last

    def run(self, asked: Work[T], *, progress: Watch = False) -> T:
        """Have work done that takes a job, and return what it came to once that has ended.

        `progress` is called with each `Progress`, or True to have it drawn in the terminal or the
        notebook.
        Raises `JobFailedError`, `JobLostError` if the daemon goes away and stays away or comes back
        with another state, and what `call` raises. Work that is not waited for goes on; what ends
        only the wait for it, as Ctrl-C does, has a note that names the job.
        """
        job = self.call(asked.start)
        with watching(progress) as watch:
            ended = self._complete(job, watch)
            followers = [
                self._complete(follower, watch)
                for follower in (ended.followed_by if asked.with_followers else ())
            ]
        return asked.read(ended, followers)

    def _complete(self, job: int | Job, watch: Callable[[Progress], None]) -> Job:
        """Return a job once it has succeeded. Raises `JobFailedError`."""
        ended: Job | None = None
        number = job.id if isinstance(job, Job) else job
        with naming(number), closing(self.follow(job)) as items:
            for item in items:
                if isinstance(item, Job):
                    ended = item
                else:
                    watch(item)
        assert ended is not None
        if ended.state != "succeeded":
            raise JobFailedError(ended)
        return ended

    def pack(
        self,
        directory: str | os.PathLike[str],
        reference: str,
        *,
        progress: Watch = False,
        **options: Unpack[PackOptions],
    ) -> PackedKit:
        """Pack a directory as `reference`, `repository:tag,tag...`, and push it if that is said.

        Raises what `run` raises.
        """
        return self.run(work.pack(directory, reference, **options), progress=progress)

    def push(
        self,
        reference: str,
        target: str | None = None,
        *,
        with_parents: bool = False,
        progress: Watch = False,
    ) -> Moved:
        """Copy a kit of the cache to its registry, or to `target`, and what it builds on if asked.

        Raises what `run` raises.
        """
        asked = work.push(reference, target, with_parents=with_parents or None)
        return self.run(asked, progress=progress)

    def pull(
        self, reference: str, filters: Sequence[str] = (), *, progress: Watch = False
    ) -> Moved:
        """Copy a kit from its registry to the cache, or the layers that `filters` select.

        Raises what `run` raises.
        """
        return self.run(work.pull(reference, filters), progress=progress)

    def unpack(
        self,
        reference: str,
        directory: str | os.PathLike[str] = ".",
        filters: Sequence[str] = (),
        *,
        existing: Choice = "refuse",
        include_remote: bool = False,
        progress: Watch = False,
    ) -> Unpacked:
        """Write a kit's files, or those that `filters` select, to a directory of the caller's.

        A kit that the cache does not know is pulled first. `existing` says what becomes of files
        that are there: `refuse`, `overwrite` or `keep`. With `include_remote` this process fetches
        remote datasets as the environment's `S3_*` say. Raises `ArgumentError`, and what `run` and
        `kitd.client.unpack.unpack` raise; whatever it raises, the directory is as it was, but for a
        signal that comes when all files have their names: they keep them.
        """
        from kitd.client.unpack import unpack_kit  # noqa: PLC0415 - most commands unpack nothing

        return unpack_kit(
            self,
            reference,
            directory,
            filters,
            existing=existing,
            include_remote=include_remote,
            progress=progress,
        )

    def kits(self, repository: str | None = None) -> tuple[Kit, ...]:
        """Return the kits of the cache, or of one repository. Raises what `call` raises."""
        return self.call(requests.list_kits(repository))

    def inspect(self, reference: str, *, remote: bool = False) -> Document:
        """Return a kit's digest, manifest and Kitfile. Raises what `call` raises."""
        return self.call(requests.inspect_kit(reference, remote=remote))

    def jobs(
        self, *, state: str | None = None, kind: str | None = None, project: str | None = None
    ) -> tuple[Job, ...]:
        """Return jobs, newest first. Raises what `call` raises."""
        return self.call(requests.list_jobs(state=state, kind=kind, project=project))

    def close(self) -> None:
        """Hang up, also on a call that is under way, which fails. It waits for nothing.

        Safe to call twice, from any thread and from the handler of a signal. In a process that was
        forked it closes the copy of that, and the parent's connection goes on.
        """
        self._is_closed = True
        connection = self._connection
        if os.getpid() != self._pid:
            # After a fork the connection is the parent's, and who has the turn may not be here.
            if connection is not None:
                connection.close()
            return
        if connection is not None:
            connection.interrupt()
        # Where a call is under way, whoever made it does this after it.
        self._close_unused()

    def _in_turn(self, method: str, timeout_s: float, ask: Callable[[Connection, float], T]) -> T:
        """Return what `ask` does with the connection, and the seconds that are left for it."""
        self._require_open()
        deadline = time.monotonic() + timeout_s
        held: list[bool] = []
        try:
            # Ctrl-C comes between two steps of the interpreter: this one takes and notes the turn.
            held += map(self._turn.acquire, (True,), (max(timeout_s, 0),))
            if True not in held:
                message = f"{method}: calls of other threads took {timeout_s:g} s"
                raise DeadlineExceededError(message)
            return ask(self._connected(), deadline - time.monotonic())
        finally:
            if True in held:
                self._turn.release()
            # Only now: whoever closed the client before could not have the turn.
            if self._is_closed:
                self._close_unused()

    def _connected(self) -> Connection:
        """Return a connection that the next call can be made on. For whoever has the turn."""
        self._require_open()
        connection = self._connection
        if connection is None or not connection.is_idle:
            if connection is not None:
                connection.close()
            self._connection = connection = Connection(self._path)
        # Only now: who closes the client from here on ends this connection.
        self._require_open()
        return connection

    def _take_unused(self) -> Connection | None:
        """Return the connection, which is the caller's then, if no call is under way on it."""
        held: list[bool] = []
        try:
            held += map(self._turn.acquire, (False,))
            if True not in held:
                return None
            connection, self._connection = self._connection, None
            return connection
        finally:
            if True in held:
                self._turn.release()

    def _close_unused(self) -> None:
        if (connection := self._take_unused()) is not None:
            connection.close()

    def _require_open(self) -> None:
        if self._is_closed:
            raise ClientClosedError("this client was closed", hint="connect another one")
        if os.getpid() != self._pid:
            raise ClientClosedError(
                "this client is of the process that this one was forked from",
                hint="connect another one",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
