"""What SQLite's result codes say about the ledger, and what is to be done (rescode.html there).

Which errors leave the open file trustworthy is decided here. A write that fails (`IOERR_WRITE`,
`FULL`) leaves no whole commit in the WAL: the transaction is undone, whatever comes next
overwrites its remains, and writing can go on. A sync that fails is different: the frames of the
commit are in the kernel's cache and may or may not be on the disk, the kernel may call them clean
from then on, and whoever opens the file next may find the transaction that was reported as failed.
Only an end and a recovery tell, so it is fatal.

The checkpoints that SQLite makes by itself swallow their errors, and may: the WAL is not shortened
before the file was synced, so that the next one writes and syncs the same pages again.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from kitd.errors import Disposition, DurabilityError, KitdError

FREE_SPACE = "free disk space on the state directory's file system"
RESTORE = "stop kitd and restore the ledger from a backup: docs/recovery.md"

_NOT_SYNCED = frozenset(
    {
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_DIR_FSYNC,
        # Some file systems report only here what they could not write.
        sqlite3.SQLITE_IOERR_CLOSE,
    }
)
_NO_ROOM = frozenset(
    {
        sqlite3.SQLITE_FULL,
        # The WAL's index could not grow. SQLite does not ask the system why, and there is no other
        # reason on a disk that works.
        sqlite3.SQLITE_IOERR_SHMSIZE,
    }
)
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})
_LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
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


class LedgerFullError(LedgerError):
    """There is no room for the ledger to grow."""

    code = "ledger_full"
    disposition = Disposition.PAUSE


class LedgerDamagedError(LedgerError):
    """The file is not what SQLite wrote: nothing more is written into it."""

    code = "ledger_damaged"
    disposition = Disposition.FATAL


class LedgerVersionError(KitdError):
    """The file was written by another program or by a newer kitd."""

    code = "ledger_version"


@contextmanager
def ledger_errors(path: Path) -> Iterator[None]:
    """Raise what SQLite's errors mean.

    That is `LedgerError`, `LedgerFullError`, `LedgerDamagedError` or `DurabilityError`.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _meaning(path, error) from error


def _meaning(path: Path, error: sqlite3.DatabaseError) -> KitdError:
    code = _code(error)
    if code in _NOT_SYNCED:
        return DurabilityError(
            f"the ledger {path} could not be synced: {error}",
            hint="look for disk errors in the kernel's log; kitd finds out what was written when"
            " it starts again",
        )
    if code in _NO_ROOM:
        return LedgerFullError(f"the ledger {path} cannot be used: {error}", hint=FREE_SPACE)
    if code == sqlite3.SQLITE_IOERR_CORRUPTFS or code & 0xFF in _DAMAGED:
        return LedgerDamagedError(f"the ledger {path} is damaged: {error}", hint=RESTORE)
    hint = None
    if code & 0xFF in _LOCKED:
        hint = f"another program has locked it: fuser -v {path} shows which"
    return LedgerError(f"the ledger {path} cannot be used: {error}", hint=hint)


def is_of_the_file(error: Exception) -> bool:
    """Whether a transaction's error is the disk's and not its own: it spoils all that share it."""
    return isinstance(error, sqlite3.DatabaseError) and _code(error) & 0xFF not in _OWN_FAULTS


def _code(error: sqlite3.DatabaseError) -> int:
    # Errors that the `sqlite3` module finds by itself have no code and blame the statement.
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code
