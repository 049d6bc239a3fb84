"""The database file: one writer with group commit, read-only readers, migrations.

All writing goes through one connection on one thread. A transaction is a whole function that is
given the connection; functions that wait together are committed together (`synchronous=FULL`, so
one fsync serves up to `BATCH`), each in a savepoint of its own so that one that fails spoils
nothing. An awaited `write` returns after the commit: what it returned is durable.

A single writer also keeps kitd clear of a WAL corruption in SQLite before 3.51.3 that needs two
connections which write or checkpoint at once.
"""

import asyncio
import errno
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

import aiosqlite

from kitd.blocking import run_blocking
from kitd.errors import Disposition, KitdError

T = TypeVar("T")
Transaction = Callable[[sqlite3.Connection], T]

BATCH = 256
"""Transactions that share one commit at most."""
APPLICATION_ID = 0x6B697464
"""`kitd` in ASCII, in the header of the file."""

_PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    # For the person who has `sqlite3` open on the file; kitd itself never competes.
    "busy_timeout = 5000",
    "journal_size_limit = 67108864",
    "trusted_schema = OFF",
    "cell_size_check = ON",
    "temp_store = MEMORY",
)


_OWN_FAULTS = frozenset(
    {
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_TOOBIG,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_MISUSE,
        sqlite3.SQLITE_RANGE,
    }
)
"""Primary result codes that blame a statement, where all others blame the file or the disk."""


class LedgerError(KitdError):
    """The ledger could not be read or written."""

    code = "ledger_io"
    disposition: ClassVar[Disposition] = Disposition.RETRY


class LedgerVersionError(KitdError):
    """The file was written by another program or by a newer kitd."""

    code = "ledger_version"


@contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        full = error.sqlite_errorcode == sqlite3.SQLITE_FULL
        hint = "free disk space on the state directory's file system" if full else None
        raise LedgerError(f"the ledger {path} cannot be used: {error}", hint=hint) from error
    except sqlite3.DatabaseError as error:
        raise LedgerError(
            f"the ledger {path} is damaged: {error}",
            hint="stop kitd and restore the file from a backup",
        ) from error


def _ends_batch(error: Exception) -> bool:
    """Whether a transaction's error is the disk's and not its own: it spoils all that share it."""
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    # Errors that the `sqlite3` module finds by itself have no code; the low byte is the primary.
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF not in _OWN_FAULTS


def migrations() -> tuple[str, ...]:
    """Return the migration scripts in order; the n-th leads to schema version n."""
    folder = resources.files("kitd.ledger").joinpath("migrations")
    scripts = sorted(
        (entry for entry in folder.iterdir() if entry.name.endswith(".sql")),
        key=lambda entry: entry.name,
    )
    return tuple(script.read_text(encoding="utf-8") for script in scripts)


def _open(path: Path) -> sqlite3.Connection:
    """Open, check and migrate the file. Raises `LedgerError`, `LedgerVersionError`."""
    with _sqlite_errors(path):
        # Created with our own mode: SQLite gives its -wal and -shm files the same.
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            hint = "free disk space" if error.errno == errno.ENOSPC else None
            raise LedgerError(f"cannot open the ledger {path}: {error.strerror}", hint=hint) from (
                error
            )
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    # Whose file it is comes first: one that is refused is not touched.
    version = _pragma(connection, "user_version")
    application = _pragma(connection, "application_id")
    fresh = version == 0 and _pragma(connection, "schema_version") == 0
    if not fresh and application != APPLICATION_ID:
        raise LedgerVersionError(f"{path} is not a ledger of kitd", hint="choose another state_dir")
    scripts = migrations()
    if version > len(scripts):
        raise LedgerVersionError(
            f"{path} has schema {version}, this kitd knows up to {len(scripts)}",
            hint="start the newer kitd that wrote it, or restore a backup",
        )
    if fresh:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    for number, script in enumerate(scripts[version:], start=version + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{script}\n"
            f"PRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {number};\nCOMMIT;"
        )


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    row = connection.execute(f"PRAGMA {name}").fetchone()
    value: int = row[0]
    return value


def _writer_ended(defect: BaseException) -> RuntimeError:
    """Return what a daemon dies of whose ledger can no longer be written."""
    ended = RuntimeError("a defect ended the ledger's writer")
    ended.__cause__ = defect
    return ended


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
        self._defect: BaseException | None = None
        self._reader: aiosqlite.Connection | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        connection = await run_blocking(_open, self.path)
        self._thread = threading.Thread(
            target=self._serve, args=(connection,), name="kitd-ledger", daemon=True
        )
        self._thread.start()
        try:
            with _sqlite_errors(self.path):
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
        not take it; `RuntimeError` once a defect has ended the writer. A cancelled wait does not
        stop the transaction.
        """
        if self._thread is None:
            raise LedgerError(f"the ledger {self.path} is closed")
        if self._defect is not None:
            raise _writer_ended(self._defect)
        future: asyncio.Future[T] = self._loop.create_future()
        self._unanswered.add(future)
        future.add_done_callback(self._unanswered.discard)
        self._inbox.put(_Work(function, future))
        return await future

    async def read(self, sql: str, parameters: tuple[object, ...] = ()) -> list[sqlite3.Row]:
        """Run one SELECT on a read-only connection and return all of its rows.

        Callers bound their queries: a snapshot that is held long keeps the WAL from shrinking.
        """
        if self._reader is None:
            raise LedgerError(f"the ledger {self.path} is closed")
        with _sqlite_errors(self.path):
            return list(await self._reader.execute_fetchall(sql, parameters))

    def _serve(self, connection: sqlite3.Connection) -> None:
        """Write until closed. A defect is told to all who wait: they would wait for ever."""
        try:
            self._write_all(connection)
        except BaseException as error:  # noqa: BLE001 - the boundary: a thread ends in silence
            self._loop.call_soon_threadsafe(self._give_up, error)

    def _give_up(self, error: BaseException) -> None:
        self._defect = error
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
            if batch:
                changed = self._commit(connection, batch)
                self._loop.call_soon_threadsafe(self._answer, batch, changed)
        # A courtesy to the next start: where the disk does not take it, the WAL stays and is read.
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    def _commit(self, connection: sqlite3.Connection, batch: list[_Work]) -> bool:
        """Run and commit a batch; return whether it changed anything."""
        before = connection.total_changes
        try:
            with _sqlite_errors(self.path):
                connection.execute("BEGIN IMMEDIATE")
                for work in batch:
                    self._run(connection, work)
                connection.execute("COMMIT")
        except LedgerError as error:
            # Nothing of the batch is durable, whatever its functions believe.
            if connection.in_transaction:
                connection.rollback()
            for work in batch:
                work.error = error
            return False
        return connection.total_changes > before

    def _run(self, connection: sqlite3.Connection, work: _Work) -> None:
        connection.execute("SAVEPOINT work")
        try:
            work.result = work.function(connection)
        except Exception as error:
            if _ends_batch(error):
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
