"""The writer and its readers: what is answered is on disk, and one failure is one failure."""

import asyncio
import sqlite3
import threading
from contextlib import closing

import pytest

from damage import break_table
from kitd.errors import Disposition, KitdError
from kitd.ledger.database import BATCH, Database
from kitd.ledger.failure import LedgerDamagedError, LedgerError, LedgerFullError


def put(key, value="x"):
    """Return a transaction that writes one row and returns its key."""

    def transaction(connection):
        connection.execute("INSERT INTO meta (key, value) VALUES (?, ?)", (key, value))
        return key

    return transaction


class Gate:
    """A transaction that holds the writer until it is let go, so that others gather behind it."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, _connection: sqlite3.Connection) -> None:
        self.entered.set()
        assert self.opened.wait(10)


@pytest.fixture
def keys(sql):
    def keys() -> list[str]:
        return [key for (key,) in sql("SELECT key FROM meta ORDER BY key")]

    return keys


async def test_a_write_returns_what_is_durable(database, keys):
    assert await database.write(put("a")) == "a"
    assert keys() == ["a"]


async def test_many_writers_at_once_all_get_their_own_answer(database, keys):
    names = [f"{number:04}" for number in range(3 * BATCH + 7)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(database.write(put(name))) for name in names]
    assert [task.result() for task in tasks] == names
    assert keys() == names


async def test_writes_that_wait_together_are_committed_together(database, sql):
    """Nobody sees half a batch: what gathers behind one transaction appears at once."""
    gate = Gate()
    first = asyncio.create_task(database.write(gate))
    await asyncio.to_thread(gate.entered.wait)
    seen = []

    def look(_connection):
        seen.append(sql("SELECT count(*) FROM meta"))

    others = [asyncio.create_task(database.write(do)) for do in (put("a"), put("b"), look)]
    gate.opened.set()
    await asyncio.wait([first, *others])
    assert seen == [[(0,)]]
    assert sql("SELECT count(*) FROM meta") == [(2,)]


def break_a_rule(connection):
    connection.execute("INSERT INTO meta (key, value) VALUES ('broken', 'x')")
    connection.execute("INSERT INTO meta (key, value) VALUES ('broken', 'again')")


def raise_ours(connection):
    put("ours")(connection)
    raise KitdError("no")


def raise_a_defect(connection):
    put("defect")(connection)
    raise ZeroDivisionError


def misspell(connection):
    put("misspelt")(connection)
    connection.execute("INSERT INTO no_such_table VALUES (1)")


def bind_wrongly(connection):
    put("unbound")(connection)
    connection.execute("INSERT INTO meta (key, value) VALUES (?, ?)", ("too few",))


@pytest.mark.parametrize(
    ("fails", "error"),
    [
        (break_a_rule, sqlite3.IntegrityError),
        (raise_ours, KitdError),
        (raise_a_defect, ZeroDivisionError),
        (misspell, sqlite3.OperationalError),
        (bind_wrongly, sqlite3.ProgrammingError),
    ],
)
async def test_one_that_fails_undoes_itself_and_spoils_nothing(database, keys, fails, error):
    gate = Gate()
    work = [gate, put("before"), fails, put("after")]
    tasks = [asyncio.create_task(database.write(do)) for do in work]
    await asyncio.to_thread(gate.entered.wait)
    gate.opened.set()
    await asyncio.wait(tasks)
    assert type(tasks[2].exception()) is error
    assert [tasks[1].result(), tasks[3].result()] == ["before", "after"]
    assert keys() == ["after", "before"]


async def test_a_cancelled_wait_does_not_stop_the_transaction(database, keys):
    gate = Gate()
    first = asyncio.create_task(database.write(gate))
    waiter = asyncio.create_task(database.write(put("a")))
    await asyncio.to_thread(gate.entered.wait)
    waiter.cancel()
    await asyncio.wait([waiter])
    assert waiter.cancelled()
    gate.opened.set()
    await first
    await database.write(put("b"))
    assert keys() == ["a", "b"]


async def test_closing_writes_what_was_asked_for(tmp_path):
    path = tmp_path / "ledger.sqlite3"
    async with Database(path) as database:
        gate = Gate()
        tasks = [asyncio.create_task(database.write(do)) for do in (gate, put("a"), put("b"))]
        await asyncio.to_thread(gate.entered.wait)
        closing_down = asyncio.create_task(database.close())
        gate.opened.set()
        await closing_down
        await asyncio.wait(tasks)
    assert [task.result() for task in tasks] == [None, "a", "b"]
    # The checkpoint has put everything into the one file.
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM meta").fetchall() == [(2,)]


async def test_what_comes_after_closing_is_refused(tmp_path):
    async with Database(tmp_path / "ledger.sqlite3") as database:
        await database.close()
        for access in (database.write(put("a")), database.read("SELECT 1")):
            with pytest.raises(LedgerError, match="closed"):
                await access
        await database.close()


async def test_what_comes_while_it_closes_is_refused_and_not_left_waiting(tmp_path):
    async with Database(tmp_path / "ledger.sqlite3") as database:
        gate = Gate()
        first = asyncio.create_task(database.write(gate))
        await asyncio.to_thread(gate.entered.wait)
        closing_down = asyncio.create_task(database.close())
        async with asyncio.timeout(10):
            while True:
                late = asyncio.create_task(database.write(put("late")))
                await asyncio.wait([late], timeout=0.01)
                if late.done():
                    break
            gate.opened.set()
            with pytest.raises(LedgerError, match="closed"):
                await late
            await asyncio.wait([first, closing_down])


async def test_readers_see_every_answered_write_and_cannot_write(database, keys):
    await database.write(put("a"))
    (row,) = await database.read("SELECT key, value FROM meta WHERE key = ?", ("a",))
    assert (row["key"], row["value"]) == ("a", "x")
    for statement in ("INSERT INTO meta VALUES ('b', 'x')", "DROP TABLE jobs", "DELETE FROM meta"):
        with pytest.raises(LedgerError):
            await database.read(statement)
    assert keys() == ["a"]


async def test_listeners_hear_of_a_commit_when_it_can_be_read(database, sql):
    heard = asyncio.Event()
    seen = []

    def listen():
        seen.append(sql("SELECT count(*) FROM meta")[0][0])
        heard.set()

    database.on_commit(listen)
    await database.write(put("a"))
    async with asyncio.timeout(10):
        await heard.wait()
    assert seen == [1]


async def test_listeners_hear_nothing_where_nothing_changed(database):
    """Whoever looks for work at every commit must not be woken by its own looking."""
    heard = []
    database.on_commit(lambda: heard.append(None))
    await database.write(lambda connection: connection.execute("SELECT 1").fetchone())
    await database.write(lambda connection: connection.execute("DELETE FROM jobs").rowcount)
    with pytest.raises(KitdError):
        await database.write(lambda _connection: raise_())
    await database.read("SELECT 1")
    assert heard == []
    await database.write(put("a"))
    await database.read("SELECT 1")
    assert len(heard) == 1


def raise_():
    raise KitdError("nothing was written")


async def test_a_full_file_undoes_the_batch_and_recovers(database, keys, sql):
    await database.write(put("before"))
    (pages,) = sql("PRAGMA page_count")[0]
    await database.write(lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone())
    gate = Gate()
    work = [gate, put("small"), put("large", "x" * 1_000_000), put("innocent")]
    tasks = [asyncio.create_task(database.write(do)) for do in work]
    await asyncio.to_thread(gate.entered.wait)
    gate.opened.set()
    await asyncio.wait(tasks)
    for task in tasks:
        error = task.exception()
        assert isinstance(error, LedgerFullError)
        assert error.disposition is Disposition.PAUSE
        assert "full" in error.message
        assert error.hint is not None
        assert "space" in error.hint
    assert keys() == ["before"]
    await database.write(lambda c: c.execute("PRAGMA max_page_count = 1000000").fetchone())
    await database.write(put("large", "x" * 1_000_000))
    assert keys() == ["before", "large"]
    assert sql("PRAGMA integrity_check") == [("ok",)]


@pytest.fixture
def small_disk(mount_disk):
    """Mount one megabyte."""
    return mount_disk("1m")


async def fill(database, answered):
    """Write until it cannot be, and note what was answered."""
    for number in range(1000):
        answered.append(await database.write(put(f"{number:04}", "x" * 5_000)))


async def test_a_full_disk_loses_nothing_that_was_answered(small_disk):
    ballast = small_disk / "ballast"
    path = small_disk / "ledger.sqlite3"
    async with Database(path) as database:
        await asyncio.to_thread(ballast.write_bytes, bytes(400_000))
        answered = []
        with pytest.raises(LedgerError, match="full"):
            await fill(database, answered)
        assert 0 < len(answered) < 200
        with pytest.raises(LedgerError):
            await database.write(put("more", "x" * 500_000))
        await asyncio.to_thread(ballast.unlink)
        answered.append(await database.write(put("later")))
    with closing(sqlite3.connect(path)) as connection:
        assert [row[0] for row in connection.execute("SELECT key FROM meta ORDER BY key")] == (
            answered
        )
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_disk_that_stays_full_does_not_hinder_the_end(small_disk):
    """The last checkpoint may fail: what was answered stays in the WAL and is read again."""
    path = small_disk / "ledger.sqlite3"
    answered = []
    async with Database(path) as database:
        with pytest.raises(LedgerError, match="full"):
            await fill(database, answered)
    assert answered
    async with Database(path) as database:
        rows = await database.read("SELECT key FROM meta ORDER BY key")
    assert [row["key"] for row in rows] == answered


async def test_no_thread_is_left(tmp_path):
    async with Database(tmp_path / "ledger.sqlite3"):
        assert "kitd-ledger" in [thread.name for thread in threading.enumerate()]
    assert "kitd-ledger" not in [thread.name for thread in threading.enumerate()]


async def test_damage_that_a_reader_meets_ends_the_writing_too(tmp_path):
    """Where nothing is written nobody else would meet it."""
    path = tmp_path / "ledger.sqlite3"
    async with Database(path) as database:
        await database.write(put("kept"))
    break_table(path, "tallies")
    before = path.read_bytes()
    async with Database(path) as database:
        await database.write(put("in the log"))
        gate = Gate()
        held = asyncio.create_task(database.write(gate))
        await asyncio.to_thread(gate.entered.wait, 10)
        waiting = asyncio.create_task(database.write(put("late")))
        with pytest.raises(LedgerDamagedError):
            await database.read("SELECT * FROM tallies")
        gate.opened.set()
        for refused in (held, waiting, database.write(put("more")), database.prove()):
            with pytest.raises(LedgerDamagedError):
                await refused
        with pytest.raises(LedgerDamagedError):
            await database.guard()
        assert await database.read("SELECT value FROM meta WHERE key = 'late'") == []
    # What is in the log is not carried over into what is damaged, and not lost either.
    assert path.read_bytes() == before
    assert path.with_name(f"{path.name}-wal").stat().st_size > 0


async def test_a_defect_of_the_writer_is_told_to_all_who_wait_and_who_come(database):
    """A daemon that waits for an answer for ever would be half dead."""

    def end_the_thread(_connection):
        raise SystemExit

    async with asyncio.timeout(5):
        together = [database.write(end_the_thread), database.write(lambda _: 1)]
        for outcome in await asyncio.gather(*together, return_exceptions=True):
            assert isinstance(outcome, RuntimeError)
            assert isinstance(outcome.__cause__, SystemExit)
        with pytest.raises(RuntimeError, match="ended the ledger's writer"):
            await database.write(lambda _: 2)
