"""Worker processes, from the daemon's side: warm, killable, one order at a time.

A cancelled order kills its worker, the only way to stop a process in the middle of a read; the
temporary files of that worker are removed, nothing else can be left of it.
"""

import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import msgspec

from kitd.blocking import run_blocking
from kitd.child import end, spawn
from kitd.errors import Disposition, KitdError
from kitd.packing.order import (
    MAX_LINE_BYTES,
    Answer,
    Failed,
    Glance,
    Notice,
    Order,
    Packed,
    PackOrder,
    Project,
    Reply,
    Scanned,
    ScanOrder,
    Streams,
    Unchanged,
    WorkerError,
)
from kitd.store.blob_store import BlobStore

WARM = 1
"""Idle workers that are kept: the next small pack or scan does not pay for a start."""
MAX_SCANS = 4
"""Scans at once. All projects ask for one when kitd starts, and a worker takes 25 MB; more than one
so that a tree on a disk that is slow does not keep the others waiting. Packs are the queue's to
bound, and wait for no scan."""
SLOW_S = 10.0
"""A scan that takes longer leaves its turn to the next and goes on: the tree may be very large, or
its server may be gone."""
MAX_SLOW = 16
"""So many may do that at once."""
SILENCE_S = 1800.0
"""How long a worker may say nothing: far longer than it takes to walk a tree of millions."""
HEAVY_BYTES = 64 << 20
"""What a worker may take to be kept: one that walked a very large tree does not shrink again."""
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

Hear = Callable[[Notice], Awaitable[Reply | None]]
"""Is told what a worker says before its answer, and replies to `Planned` and `Referred`."""


class WorkerDiedError(KitdError):
    """The worker process did not live to answer an order."""

    code = "worker_died"
    disposition: ClassVar[Disposition] = Disposition.CRASH


class NoWorkerError(KitdError):
    """No worker process takes an order: none can be started, or its disk keeps it waiting."""

    code = "no_worker"
    disposition: ClassVar[Disposition] = Disposition.RETRY


class WorkerPool:
    """Runs scans and packs in worker processes. Use as an async context manager."""

    def __init__(
        self,
        cache: Path,
        *,
        inotify: int | None = None,
        slow_s: float = SLOW_S,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._cache = cache
        self._inotify = inotify
        self._slow_s = slow_s
        self._silence_s = silence_s
        self._idle: list[asyncio.subprocess.Process] = []
        self._busy: set[asyncio.subprocess.Process] = set()
        self._scans = asyncio.Semaphore(MAX_SCANS)
        self._slow = 0
        self._encoder = msgspec.json.Encoder()
        self._decoder: msgspec.json.Decoder[Answer | Notice] = msgspec.json.Decoder(Answer | Notice)

    async def __aenter__(self) -> Self:
        self._idle.append(await self._spawn())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in (*self._idle, *self._busy):
            await end(process)

    async def scan(
        self,
        order: ScanOrder,
        hear: Hear,
        scanning: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> Scanned | Unchanged:
        """Return the state of a project's inputs. Raises `KitdError`.

        Waits for its turn, and then runs within `scanning`.
        """
        async with self._turn():
            with scanning():
                answer = await self._ask(order, hear)
        assert isinstance(answer, Scanned | Unchanged)
        return answer

    async def pack(
        self,
        project: Project,
        hear: Hear,
        *,
        known: Glance | None,
        expected: str | None,
        streams: Streams | None = None,
        is_kept_waiting: Callable[[], bool] = lambda: False,
    ) -> Packed | Unchanged:
        """Build a project's layers and config in the blob store. Raises `KitdError`.

        With `streams` some layers come through pipes instead: who hears of one has to read it. A
        worker that `is_kept_waiting` at one of them may be silent for as long as that takes.
        When it is cancelled or raises, complete layers may stay in the store, temporary files not.
        """
        label = f"{secrets.token_hex(8)}-"
        order = PackOrder(
            project=project,
            cache=str(self._cache),
            label=label,
            known=known,
            expected=expected,
            streams=streams,
        )
        try:
            answer = await self._ask(order, hear, is_kept_waiting)
        except BaseException:
            await run_blocking(BlobStore(self._cache, label=label).sweep)
            raise
        assert isinstance(answer, Packed | Unchanged)
        return answer

    async def _ask(
        self,
        order: ScanOrder | PackOrder,
        hear: Hear,
        is_kept_waiting: Callable[[], bool] = lambda: False,
    ) -> Answer:
        async with self._worker() as process:
            try:
                await self._say(process, order)
            except ConnectionError as error:
                raise NoWorkerError("a packing process ended before its order") from error
            answer = await self._answer(process, hear, is_kept_waiting)
        if isinstance(answer, Failed):
            raise WorkerError(answer)
        return answer

    async def _say(self, process: asyncio.subprocess.Process, said: Order | Reply) -> None:
        assert process.stdin is not None
        process.stdin.write(self._encoder.encode(said) + b"\n")
        async with self._silence():
            await process.stdin.drain()

    async def _answer(
        self,
        process: asyncio.subprocess.Process,
        hear: Hear,
        is_kept_waiting: Callable[[], bool],
    ) -> Answer:
        assert process.stdout is not None
        while line := await self._line(process.stdout, is_kept_waiting):
            said = self._decoder.decode(line)
            if isinstance(said, Answer):
                return said
            reply = await hear(said)
            if reply is not None:
                # A worker that has ended meanwhile hears nothing, and says nothing more.
                with contextlib.suppress(ConnectionError):
                    await self._say(process, reply)
        raise WorkerDiedError(
            "a packing process ended in the middle of its work",
            hint="if it happens again, see whether the machine is out of memory",
        )

    async def _line(
        self, answers: asyncio.StreamReader, is_kept_waiting: Callable[[], bool]
    ) -> bytes:
        try:
            while True:
                try:
                    async with self._silence():
                        return await answers.readline()
                except NoWorkerError:
                    if not is_kept_waiting():
                        raise
        except ValueError as error:
            raise WorkerDiedError(
                f"a packing process said more than {MAX_LINE_BYTES} bytes at once and was ended",
                hint="leave out what is no part of the kit in .kitignore",
            ) from error

    @asynccontextmanager
    async def _silence(self) -> AsyncIterator[None]:
        """Bound for how long a worker may neither hear nor say anything."""
        try:
            async with asyncio.timeout(self._silence_s):
                yield
        except TimeoutError as error:
            raise NoWorkerError(
                f"a packing process said nothing for {self._silence_s:g} s and was ended",
                hint="see whether the project's file system answers",
            ) from error

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for the turn of a scan, and leave it to the next after `SLOW_S` or at the end."""
        await self._scans.acquire()
        loop = asyncio.get_running_loop()
        is_slow = False
        timer: asyncio.TimerHandle

        def become_slow() -> None:
            nonlocal is_slow, timer
            if self._slow < MAX_SLOW:
                self._slow += 1
                is_slow = True
                self._scans.release()
            else:
                timer = loop.call_later(self._slow_s, become_slow)

        timer = loop.call_later(self._slow_s, become_slow)
        try:
            yield
        finally:
            timer.cancel()
            if is_slow:
                self._slow -= 1
            else:
                self._scans.release()

    @asynccontextmanager
    async def _worker(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """Lend a process; it comes back if it is still in step, and is killed otherwise."""
        # One that ended while it was idle has had no order that could fail.
        self._idle = [process for process in self._idle if process.returncode is None]
        process = self._idle.pop() if self._idle else await self._spawn()
        self._busy.add(process)
        try:
            yield process
        except BaseException:
            await end(process)
            raise
        finally:
            self._busy.discard(process)
        if len(self._idle) < WARM and _resident_bytes(process.pid) < HEAVY_BYTES:
            self._idle.append(process)
        else:
            await end(process)

    async def _spawn(self) -> asyncio.subprocess.Process:
        try:
            # Isolated (-I): neither the environment nor the working directory adds to its code. A
            # session of its own, because a terminal's Ctrl-C is for the daemon, which ends its
            # workers in good order.
            inherited = () if self._inotify is None else (self._inotify,)
            return await spawn(
                sys.executable,
                "-I",
                "-m",
                "kitd.packing.worker",
                *map(str, inherited),
                cwd="/",
                limit=MAX_LINE_BYTES,
                pass_fds=inherited,
            )
        except OSError as error:
            raise NoWorkerError(
                f"cannot start a packing process: {error.strerror or error}",
                hint="see whether the machine is out of memory, processes or file descriptors",
            ) from error


def _resident_bytes(pid: int) -> int:
    """Return what a process takes of the memory, 0 where the system does not say (proc(5))."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * PAGE_BYTES
    return 0
