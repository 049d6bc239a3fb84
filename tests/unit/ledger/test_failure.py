"""Whose fault each of SQLite's result codes is. Most of them take a disk that fails."""

import sqlite3
from pathlib import Path

import pytest

from kitd.errors import DurabilityError
from kitd.ledger.failure import (
    LedgerDamagedError,
    LedgerError,
    LedgerFullError,
    is_of_the_file,
    ledger_errors,
)


def failure(code):
    """Return an error as the `sqlite3` module raises it."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (sqlite3.SQLITE_IOERR_FSYNC, DurabilityError),
        (sqlite3.SQLITE_IOERR_DIR_FSYNC, DurabilityError),
        (sqlite3.SQLITE_IOERR_CLOSE, DurabilityError),
        (sqlite3.SQLITE_FULL, LedgerFullError),
        (sqlite3.SQLITE_IOERR_SHMSIZE, LedgerFullError),
        (sqlite3.SQLITE_CORRUPT, LedgerDamagedError),
        (sqlite3.SQLITE_CORRUPT_INDEX, LedgerDamagedError),
        (sqlite3.SQLITE_NOTADB, LedgerDamagedError),
        (sqlite3.SQLITE_IOERR_CORRUPTFS, LedgerDamagedError),
        (sqlite3.SQLITE_IOERR_WRITE, LedgerError),
        (sqlite3.SQLITE_IOERR_READ, LedgerError),
        (sqlite3.SQLITE_IOERR_SHMMAP, LedgerError),
        (sqlite3.SQLITE_CANTOPEN, LedgerError),
        (sqlite3.SQLITE_READONLY, LedgerError),
    ],
)
def test_what_a_result_code_means(code, meaning):
    error = failure(code)
    with pytest.raises((DurabilityError, LedgerError)) as caught, ledger_errors(Path("ledger")):
        raise error
    assert type(caught.value) is meaning
    assert is_of_the_file(error)


@pytest.mark.parametrize(
    "code", [sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_TOOBIG]
)
def test_a_statement_that_is_wrong_spoils_no_other(code):
    assert not is_of_the_file(failure(code))
