"""A ledger of an earlier schema: copied, brought to today's, and nothing in it lost."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from kitd.ledger.catalog import Catalog
from kitd.ledger.database import Database
from kitd.ledger.failure import LedgerDamagedError, LedgerFullError, LedgerVersionError
from kitd.ledger.job_ledger import IdempotencyKey, JobLedger
from kitd.ledger.schema import APPLICATION_ID, MAX_BACKUPS, Upgrade, migrations
from kitd.queue.effect import NoteParent
from kitd.queue.job import JobState

ROWS = Path(__file__).with_name("schema-1.sql")
TABLES = (
    "meta",
    "epochs",
    "jobs",
    "idempotency",
    "events",
    "manifests",
    "manifest_children",
    "repository_manifests",
    "tags",
    "projects",
    "packed",
)


def query(path: Path, statement: str) -> list[tuple]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def contents(path: Path) -> dict[str, list[dict]]:
    """Return every row of schema 1's tables."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return {
            table: [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1")]
            for table in TABLES
        }


@pytest.fixture
def write_schema_1() -> Callable[[Path], Path]:
    """Write a ledger as kitd with schema 1 left it."""

    def write(path: Path) -> Path:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(migrations()[0])
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute("PRAGMA user_version = 1")
            connection.executescript(ROWS.read_text())
        return path

    return write


@pytest.fixture
def path(tmp_path: Path, write_schema_1: Callable[[Path], Path]) -> Path:
    """A ledger of schema 1."""
    return write_schema_1(tmp_path / "ledger.sqlite3")


def backup_of(path: Path, version: int = 1) -> Path:
    return path.with_name(f"{path.name}.schema-{version}.backup")


async def open_once(path: Path) -> Upgrade | None:
    async with Database(path) as database:
        return database.upgrade


async def test_everything_is_where_it_was(path: Path) -> None:
    before = contents(path)
    await open_once(path)
    assert query(path, "PRAGMA user_version") == [(len(migrations()),)]
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    assert query(path, "PRAGMA foreign_key_check") == []
    after = contents(path)
    for table, rows in before.items():
        assert len(rows) > 0, table
        kept = [{key: row[key] for key in rows[0]} for row in after[table]]
        assert kept == rows, table


@pytest.mark.parametrize("version", range(1, len(migrations())))
async def test_every_earlier_schema_is_brought_to_today_s(
    path: Path, tmp_path: Path, version: int
) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for script in migrations()[1:version]:
            connection.executescript(script)
        connection.execute(f"PRAGMA user_version = {version}")
    upgrade = await open_once(path)
    assert upgrade == Upgrade(version, len(migrations()), backup_of(path, version))
    await open_once(tmp_path / "fresh.sqlite3")
    schema = "SELECT type, name, tbl_name FROM sqlite_master ORDER BY 1, 2"
    assert query(path, schema) == query(tmp_path / "fresh.sqlite3", schema)
    assert query(path, "PRAGMA foreign_key_check") == []


async def test_of_every_kit_it_has_to_be_looked_up_what_it_builds_on(path: Path, clock) -> None:
    async def no_kit(_manifest: object) -> None:
        """Nobody asks for it."""

    async with Database(path) as database:
        catalog = Catalog(database, clock, no_kit)
        (target,) = await catalog.parent_unknown(after="", limit=10)
        assert target.digest == "sha256:aa"
        assert await catalog.parent_unknown(after="sha256:aa", limit=10) == []
        await catalog.apply([NoteParent(target.digest, None)])
        assert await catalog.parent_unknown(after="", limit=10) == []


async def test_the_queue_goes_on_with_it(path: Path, clock, wish) -> None:
    async with Database(path) as database:
        jobs = JobLedger(database, clock, epoch=3)
        assert await jobs.recover() == 1
        assert (await jobs.job(4)).state is JobState.READY
        assert (await jobs.job(5)).superseded_by == 6
        key = IdempotencyKey(uid=1000, key="once", fingerprint="abc")
        assert (await jobs.enqueue(wish(), key)).id == 4


async def test_what_a_push_has_yet_to_push_is_kept_from_collections(path: Path) -> None:
    """One that waits, and one that failed and may be asked to run again."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE jobs SET args = ?", (b'{"digest":"sha256:aa"}',))
    await open_once(path)
    found = query(path, "SELECT id, needs FROM jobs WHERE needs IS NOT NULL ORDER BY id")
    assert found == [(2, "sha256:aa"), (3, "sha256:aa")]


async def test_a_copy_of_what_was_is_kept_beside_it(path: Path) -> None:
    before = contents(path)
    upgrade = await open_once(path)
    backup = backup_of(path)
    assert upgrade == Upgrade(1, len(migrations()), backup)
    assert contents(backup) == before
    assert query(backup, "PRAGMA user_version") == [(1,)]
    assert query(backup, "PRAGMA application_id") == [(APPLICATION_ID,)]
    assert query(backup, "PRAGMA integrity_check") == [("ok",)]
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600


async def test_the_copy_can_take_its_place(path: Path) -> None:
    before = contents(path)
    await open_once(path)
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    backup_of(path).rename(path)
    upgrade = await open_once(path)
    assert upgrade is not None
    assert contents(backup_of(path)) == before


async def test_a_ledger_of_today_is_not_copied(path: Path) -> None:
    await open_once(path)
    backup_of(path).unlink()
    assert await open_once(path) is None
    assert not backup_of(path).exists()


async def test_only_the_newest_backups_are_kept(path: Path) -> None:
    for version in (-1, 3, 4, 5, 6):
        backup_of(path, version).write_bytes(b"")
    stranger = path.with_name("ledger.sqlite3.schema-old.backup")
    stranger.write_bytes(b"")
    await open_once(path)
    kept = sorted(entry.name for entry in path.parent.glob("*.schema-[0-9].backup"))
    assert kept == [backup_of(path, version).name for version in (4, 5, 6)]
    assert len(kept) == MAX_BACKUPS
    assert stranger.exists()


async def test_a_backup_that_was_cut_short_is_made_anew(path: Path) -> None:
    unfinished = backup_of(path).with_name(backup_of(path).name + ".unfinished")
    unfinished.write_bytes(b"half")
    await open_once(path)
    assert not unfinished.exists()
    assert query(backup_of(path), "PRAGMA integrity_check") == [("ok",)]


async def test_without_room_for_a_copy_nothing_is_touched(mount_disk, write_schema_1) -> None:
    disk = mount_disk("5m")
    path = write_schema_1(disk / "ledger.sqlite3")
    (disk / "ballast").write_bytes(bytes(2 << 20))
    before, names = path.read_bytes(), sorted(os.listdir(disk))
    with pytest.raises(LedgerFullError, match="backed up before its upgrade") as caught:
        await open_once(path)
    assert "free disk space" in (caught.value.hint or "")
    assert path.read_bytes() == before
    assert sorted(os.listdir(disk)) == names
    (disk / "ballast").unlink()
    assert await open_once(path) is not None


async def test_a_newer_schema_names_the_backup_that_this_kitd_can_read(path: Path) -> None:
    await open_once(path)
    query(path, f"PRAGMA user_version = {len(migrations()) + 1}")
    with pytest.raises(LedgerVersionError) as caught:
        await open_once(path)
    assert str(backup_of(path)) in (caught.value.hint or "")


CUT_SHORT = """
import asyncio, sys
from pathlib import Path
from kitd.ledger.database import Database
async def main():
    async with Database(Path(sys.argv[1])):
        pass
asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_crash_at_any_write_leaves_the_old_or_the_new(
    tmp_path: Path, strace: str, write_schema_1
) -> None:
    """SIGKILL at the n-th write of the upgrade, for every ninth n until it is through."""
    number, versions = 1, []
    expected = None
    while True:
        path = write_schema_1(tmp_path / f"{number}.sqlite3")
        expected = expected or contents(path)
        ended = await asyncio.to_thread(upgrade_until_killed, strace, path, number)
        versions.append(query(path, "PRAGMA user_version")[0][0])
        assert query(path, "PRAGMA integrity_check") == [("ok",)]
        rows = contents(path)
        assert [row["id"] for row in rows["jobs"]] == [row["id"] for row in expected["jobs"]]
        assert await open_once(path) is not None or versions[-1] == len(migrations())
        if ended == 0:
            break
        number += 9
    assert versions[0] == 1
    assert versions[-1] == len(migrations())
    assert versions == sorted(versions)


def upgrade_until_killed(strace: str, path: Path, number: int) -> int:
    """Open a ledger in a process that is killed at its n-th write; return how it ended."""
    return subprocess.run(
        [
            strace,
            "-f",
            "-qq",
            "-o",
            os.devnull,
            "-e",
            "trace=pwrite64",
            "-e",
            f"inject=pwrite64:signal=KILL:when={number}",
            sys.executable,
            "-c",
            CUT_SHORT,
            path,
        ],
        check=False,
        timeout=30,
    ).returncode


@pytest.fixture
def damaged(path: Path) -> Path:
    """A ledger with a page that is none, of a life that was cut short."""
    pages = path.stat().st_size // 4096
    with path.open("r+b") as file:
        file.seek((pages - 3) * 4096)
        file.write(b"\xff" * 4096 * 3)
    return path


async def test_damage_is_found_after_a_life_that_was_cut_short(damaged: Path) -> None:
    before = damaged.read_bytes()
    with pytest.raises(LedgerDamagedError, match="is damaged") as caught:
        await open_once(damaged)
    assert "docs/recovery.md" in (caught.value.hint or "")
    assert damaged.read_bytes() == before
    assert not backup_of(damaged).exists()


async def test_a_life_that_ended_well_is_not_looked_at(path: Path) -> None:
    """The look is for what a crash or the disk may have done, and not for every start."""
    await open_once(path)
    commit(path, "INSERT INTO packed VALUES ('large', zeroblob(400000), 0)")
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 4096 * 50)
        file.write(b"\xff" * 4096)
    with pytest.raises(LedgerDamagedError):
        await open_once(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",)
    commit(path, "UPDATE epochs SET stopped_us = 1 WHERE stopped_us IS NULL")
    await open_once(path)


def commit(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
