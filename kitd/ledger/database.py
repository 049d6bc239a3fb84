"""The open ledger: one writer with group commit, read-only readers.

All writing goes through one connection on one thread. A transaction is a whole function that is
given the connection; functions that wait together are committed together (`synchronous=FULL`, so
one fsync serves up to `BATCH`), each in a savepoint of its own so that one that fails spoils
nothing. An awaited `write` returns after the commit: what it returned is durable.

A single writer also keeps kitd clear of a WAL corruption in SQLite before 3.51.3 that needs two
connections which write or checkpoint at once.
"""

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

import aiosqlite
import structlog

from kitd.blocking import run_blocking
from kitd.errors import Disposition, KitdError
from kitd.histogram import Histogram
from kitd.ledger.failure import LedgerError, is_of_the_file, ledger_errors
from kitd.ledger.schema import Upgrade, open_ledger
from kitd.queue.job import Failure

log = structlog.get_logger(__name__)

T = TypeVar("T")
Transaction = Callable[[sqlite3.Connection], T]

BATCH = 256
"""Transactions that share one commit at most."""
COMMIT_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


def _writer_ended(cause: BaseException) -> Exception:
    """Return what a daemon dies of whose ledger can no longer be written."""
    ended: Exception = RuntimeError("a defect ended the ledger's writer")
    if isinstance(cause, KitdError):
        ended = type(cause)(cause.message, hint=cause.hint)
    ended.__cause__ = cause
    return ended


def _nothing(_connection: sqlite3.Connection) -> None:
    pass


def _something(connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT INTO meta (key, value) VALUES ('proof', datetime('now'))"
        " ON CONFLICT DO UPDATE SET value = excluded.value"
    )


class _Work:
    """One transaction on its way through the writer."""

    __slots__ = ("error", "function", "future", "result")

    def __init__(self, function: Transaction[Any], future: asyncio.Future[Any]) -> None:
        self.function = function
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None

    def resolve(self) -> None:
        # The waiter may have been cancelled; the transaction was committed all the same.
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Database:
    """The open ledger. Use as an async context manager on one event loop."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inbox: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._listeners: list[Callable[[], None]] = []
        self._thread: threading.Thread | None = None
        self._unanswered: set[asyncio.Future[Any]] = set()
        self._ended_by: BaseException | None = None
        self._ended = asyncio.Event()
        self._left_open: sqlite3.Connection | None = None
        self._reader: aiosqlite.Connection | None = None
        self.upgrade: Upgrade | None = None
        self.commits_s = Histogram(COMMIT_BOUNDS_S)
        """How long those batches took, to the disk and back, that changed something."""
        self.failed_commits = 0
        self.trouble: Failure | None = None
        """Why the last batch could not be committed, where the disk did not take it."""

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        opened = await run_blocking(open_ledger, self.path)
        self.upgrade = opened.upgrade
        self._thread = threading.Thread(
            target=self._serve, args=(opened.connection,), name="kitd-ledger", daemon=True
        )
        self._thread.start()
        try:
            with ledger_errors(self.path):
                reader = await aiosqlite.connect(f"{self.path.as_uri()}?mode=ro", uri=True)
                self._reader = reader
                reader.row_factory = sqlite3.Row
                await reader.execute("PRAGMA query_only = ON")
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Write what was asked for, checkpoint and close. Safe to call twice."""
        if self._reader is not None:
            await self._reader.close()
            self._reader = None
        if self._thread is not None:
            # Forgotten first: what is asked for from here on is refused, not left unanswered.
            thread, self._thread = self._thread, None
            self._inbox.put(None)
            await run_blocking(thread.join)

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Call `listener` on the loop after every commit that changed something.

        It must be quick and never raise. A listener may write in turn: what changes nothing wakes
        nobody.
        """
        self._listeners.append(listener)

    async def write(self, function: Transaction[T]) -> T:
        """Run a transaction on the writer and return its result once it is durable.

        Raises what `function` raises, after undoing what it did; `LedgerError` if the disk does
        not take it; from then on always `DurabilityError` once a sync failed, `LedgerDamagedError`
        once damage was found, `RuntimeError` once a defect has ended the writer. A cancelled wait
        does not stop the transaction.
        """
        if self._thread is None:
            raise LedgerError(f"the ledger {self.path} is closed")
        if self._ended_by is not None:
            raise _writer_ended(self._ended_by)
        future: asyncio.Future[T] = self._loop.create_future()
        self._unanswered.add(future)
        future.add_done_callback(self._unanswered.discard)
        self._inbox.put(_Work(function, future))
        return await future

    async def prove(self) -> None:
        """Return if the ledger can be written now. Raises what `write` raises.

        The writer has to answer. Where the disk did not take the last batch, something is written
        to see whether it does now.
        """
        await self.write(_nothing if self.trouble is None else _something)

    async def guard(self) -> NoReturn:
        """Wait until nothing can be written any more, and raise what `write` raises from then on.

        A daemon that has nothing to write would not notice for long.
        """
        await self._ended.wait()
        assert self._ended_by is not None
        raise _writer_ended(self._ended_by)

    async def read(self, sql: str, parameters: tuple[object, ...] = ()) -> list[sqlite3.Row]:
        """Run one SELECT on a read-only connection and return all of its rows.

        Callers bound their queries: a snapshot that is held long keeps the WAL from shrinking.
        Raises `LedgerError`; after `LedgerDamagedError` nothing is written any more either.
        """
        if self._reader is None:
            raise LedgerError(f"the ledger {self.path} is closed")
        try:
            with ledger_errors(self.path):
                return list(await self._reader.execute_fetchall(sql, parameters))
        except KitdError as error:
            if error.disposition is Disposition.FATAL and self._ended_by is None:
                self._give_up(error)
            raise

    def _serve(self, connection: sqlite3.Connection) -> None:
        """Write until closed. What ends it is told to all who wait: they would wait for ever."""
        try:
            self._write_all(connection)
        except BaseException as error:  # noqa: BLE001 - the boundary: a thread ends in silence
            self._loop.call_soon_threadsafe(self._give_up, error)

    def _give_up(self, error: BaseException) -> None:
        self._ended_by = error
        self._ended.set()
        for future in list(self._unanswered):
            if not future.done():
                future.set_exception(_writer_ended(error))

    def _write_all(self, connection: sqlite3.Connection) -> None:
        """Drain, run, commit, answer: the writer thread."""
        running = True
        while running:
            batch: list[_Work] = []
            work = self._inbox.get()
            while work is not None:
                batch.append(work)
                if len(batch) == BATCH:
                    break
                try:
                    work = self._inbox.get_nowait()
                except queue.Empty:
                    break
            running = work is not None
            # Else whoever waited was told already, because a reader has met damage.
            if batch and self._ended_by is None:
                changed = self._commit(connection, batch)
                self._loop.call_soon_threadsafe(self._answer, batch, changed)
        if self._ended_by is not None:
            # Closing it would carry the log over into what is damaged.
            self._left_open = connection
            return
        # A courtesy to the next start: where the disk does not take it, the WAL stays and is read.
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    def _commit(self, connection: sqlite3.Connection, batch: list[_Work]) -> bool:
        """Run and commit a batch; return whether it changed anything."""
        before, began_s = connection.total_changes, time.monotonic()
        try:
            with ledger_errors(self.path):
                connection.execute("BEGIN IMMEDIATE")
                for work in batch:
                    self._run(connection, work)
                connection.execute("COMMIT")
        except LedgerError as error:
            if error.disposition is Disposition.FATAL:
                raise
            # Nothing of the batch is durable, whatever its functions believe.
            if connection.in_transaction:
                connection.rollback()
            for work in batch:
                work.error = error
            self.failed_commits += 1
            self._note_trouble(Failure(error.code, error.message, error.hint))
            return False
        changed = connection.total_changes > before
        if changed:
            self.commits_s.observe(time.monotonic() - began_s)
            # What changes nothing proves nothing: it is not written.
            self._note_trouble(None)
        return changed

    def _note_trouble(self, trouble: Failure | None) -> None:
        """Log what is new of it."""
        before, self.trouble = self.trouble, trouble
        if trouble == before:
            return
        if trouble is None:
            log.warning("ledger.written_again")
        else:
            log.error(
                "ledger.not_written", code=trouble.code, error=trouble.message, hint=trouble.hint
            )

    def _run(self, connection: sqlite3.Connection, work: _Work) -> None:
        connection.execute("SAVEPOINT work")
        try:
            work.result = work.function(connection)
        except Exception as error:
            if is_of_the_file(error):
                raise
            work.error = error
            connection.execute("ROLLBACK TO work")
        connection.execute("RELEASE work")

    def _answer(self, batch: list[_Work], changed: bool) -> None:  # noqa: FBT001 - a callback
        for work in batch:
            work.resolve()
        if changed:
            for listener in self._listeners:
                listener()
