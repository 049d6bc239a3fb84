"""Opening the file: fresh, again, another program's, a newer kitd's."""

import os
import sqlite3
import stat
from contextlib import closing

import pytest

from kitd.ledger.database import Database
from kitd.ledger.failure import (
    LedgerError,
    LedgerVersionError,
)
from kitd.ledger.schema import APPLICATION_ID, migrations


def query(path, statement):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a ledger?#%.sqlite3"


async def open_once(path):
    async with Database(path):
        pass


async def test_a_fresh_file_has_the_newest_schema_and_is_ours_alone(path):
    await open_once(path)
    assert query(path, "PRAGMA user_version") == [(len(migrations()),)]
    assert query(path, "PRAGMA application_id") == [(APPLICATION_ID,)]
    assert query(path, "PRAGMA journal_mode") == [("wal",)]
    assert query(path, "PRAGMA auto_vacuum") == [(2,)]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def modes(path):
    """The modes of the ledger and of what SQLite has beside it, by what follows its name."""
    return {
        found.name.removeprefix(path.name): stat.S_IMODE(found.stat().st_mode)
        for found in path.parent.iterdir()
    }


async def test_a_ledger_that_was_put_back_with_a_wider_mode_is_ours_alone_again(path):
    """So are the log and the index of it, which SQLite makes with the mode that it finds."""
    await open_once(path)
    path.chmod(0o644)
    async with Database(path) as database:
        await database.write(lambda c: c.execute("INSERT INTO meta VALUES ('a', 'x')").rowcount)
        assert modes(path) == {"": 0o600, "-wal": 0o600, "-shm": 0o600}


async def test_every_table_is_strict(path):
    await open_once(path)
    tables = query(
        path,
        "SELECT name, strict FROM pragma_table_list"
        " WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
    )
    assert {"jobs", "events", "manifests", "tags", "projects"} <= {name for name, _ in tables}
    assert [name for name, strict in tables if not strict] == []


async def test_the_writer_waits_for_the_disk_and_minds_foreign_keys(database):
    def settings(connection):
        names = ("synchronous", "foreign_keys", "trusted_schema", "busy_timeout")
        return {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names}

    assert await database.write(settings) == {
        "synchronous": 2,
        "foreign_keys": 1,
        "trusted_schema": 0,
        "busy_timeout": 5000,
    }


async def test_opening_again_changes_nothing(path):
    await open_once(path)
    before = query(path, "SELECT name, sql FROM sqlite_master")
    async with Database(path) as database:
        await database.write(lambda c: c.execute("INSERT INTO meta VALUES ('a', 'x')").rowcount)
    await open_once(path)
    assert query(path, "SELECT name, sql FROM sqlite_master") == before
    assert query(path, "SELECT key FROM meta") == [("a",)]


@pytest.mark.parametrize(
    "prepare", ["", "PRAGMA auto_vacuum = INCREMENTAL", "PRAGMA journal_mode = WAL"]
)
async def test_a_first_start_that_was_cut_short_begins_anew(path, prepare):
    """An empty file, or one that got no further than its pragmas, is a fresh one."""
    query(path, prepare or "PRAGMA user_version")
    await open_once(path)
    assert query(path, "PRAGMA user_version") == [(len(migrations()),)]


async def test_a_newer_schema_is_refused_and_left_alone(path):
    await open_once(path)
    newer = len(migrations()) + 1
    query(path, f"PRAGMA user_version = {newer}")
    before = path.read_bytes()
    with pytest.raises(LedgerVersionError, match=f"schema {newer}") as caught:
        await open_once(path)
    assert caught.value.hint is not None
    assert path.read_bytes() == before


async def test_the_file_of_another_program_is_refused_and_left_alone(path):
    query(path, "CREATE TABLE bookmarks (url TEXT)")
    before = path.read_bytes()
    with pytest.raises(LedgerVersionError, match="not a ledger of kitd"):
        await open_once(path)
    assert path.read_bytes() == before


async def test_what_is_no_database_is_refused_and_left_alone(path):
    path.write_bytes(b"dear diary, " * 1000)
    with pytest.raises(LedgerError, match="not a database"):
        await open_once(path)
    assert path.read_bytes() == b"dear diary, " * 1000


async def test_a_directory_in_its_place_is_an_error_that_names_it(path):
    path.mkdir()
    with pytest.raises(LedgerError, match="directory") as caught:
        await open_once(path)
    assert str(path) in caught.value.message


async def test_a_missing_directory_is_an_error_that_names_the_file(tmp_path):
    with pytest.raises(LedgerError, match="No such file"):
        await open_once(tmp_path / "nowhere" / "ledger.sqlite3")
