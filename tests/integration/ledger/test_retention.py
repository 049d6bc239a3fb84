"""What is forgotten, what never is, and that nobody waits for it."""

import asyncio
import sqlite3

import pytest

from kitd.config.model import DAY_S, RetentionConfig
from kitd.ledger.event_ledger import CursorTruncatedError, EventLedger
from kitd.ledger.job_ledger import IdempotencyKey
from kitd.ledger.retention import (
    BATCH_ROWS,
    KEPT_WHATEVER_AGE,
    MAX_ENDED_JOBS,
    MAX_EVENTS,
    MAX_KEYS,
    MAX_LIVES,
    Forgotten,
    Retention,
)

DAY_US = 86_400_000_000
ENDED = ("succeeded", "failed", "cancelled", "superseded")


@pytest.fixture
def retention(database, clock) -> Retention:
    return Retention(database, clock, RetentionConfig)


@pytest.fixture
def ended(database, clock):
    """Write jobs that ended some days ago, the later ones a microsecond later each."""

    async def ended(state: str, count: int, days: float) -> None:
        first_us = clock.at_us - int(days * DAY_US)

        def transaction(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT INTO jobs (kind, lane, key, lock, state, args, priority, max_attempts,"
                " run_at_us, created_us, finished_us, error_code) VALUES ('pack', 'pack', ?, 'l',"
                " ?, x'7b7d', 0, 3, 0, 0, ?, ?)",
                (
                    (str(number), state, first_us + number, "x" if state == "failed" else None)
                    for number in range(count)
                ),
            )

        await database.write(transaction)

    return ended


@pytest.fixture
def happened(database, clock):
    """Write events of some days ago."""

    async def happened(count: int, days: float) -> None:
        at_us = clock.at_us - int(days * DAY_US)
        sql = "INSERT INTO events (at_us, type, subject, data) VALUES (?, 'a', 'daemon', '{}')"
        rows = [(at_us,)] * count
        await database.write(lambda connection: connection.executemany(sql, rows).rowcount)

    return happened


@pytest.mark.parametrize(
    ("state", "keep_days"), [("succeeded", 7), ("failed", 30), ("cancelled", 2), ("superseded", 2)]
)
async def test_jobs_go_when_they_are_old(retention, ended, sql, state, keep_days):
    await ended(state, 700, keep_days + 1)
    await ended(state, KEPT_WHATEVER_AGE, keep_days - 1)
    assert await retention.sweep() == Forgotten(jobs=700)
    assert sql("SELECT count(*) FROM jobs") == [(KEPT_WHATEVER_AGE,)]


@pytest.mark.parametrize("state", ENDED)
async def test_the_newest_stay_whatever_the_clock_says(retention, ended, clock, sql, state):
    await ended(state, KEPT_WHATEVER_AGE + 5, 0)
    clock.advance(10 * 365 * DAY_S)
    assert (await retention.sweep()).jobs == 5
    assert sql("SELECT min(id), count(*) FROM jobs") == [(6, KEPT_WHATEVER_AGE)]


async def test_there_are_never_more_than_so_many(retention, ended, sql):
    await ended("succeeded", MAX_ENDED_JOBS + 3, 0)
    assert (await retention.sweep()).jobs == 3
    assert sql("SELECT min(id), count(*) FROM jobs") == [(4, MAX_ENDED_JOBS)]


async def test_a_clock_that_went_back_forgets_nothing(retention, ended, clock, sql):
    await ended("succeeded", KEPT_WHATEVER_AGE + 5, 1)
    clock.advance(-365 * DAY_S)
    assert await retention.sweep() == Forgotten()


async def test_jobs_that_wait_or_run_are_never_forgotten(retention, jobs, wish, ended, clock, sql):
    await jobs.enqueue(wish("running"))
    (running,) = await jobs.claim({"pack": 1})
    waiting = await jobs.enqueue(wish("waiting"))
    await ended("succeeded", KEPT_WHATEVER_AGE + 1, 0)
    clock.advance(10 * 365 * DAY_S)
    assert (await retention.sweep()).jobs == 1
    assert sql("SELECT id FROM jobs WHERE state IN ('running', 'ready') ORDER BY 1") == [
        (running.id,),
        (waiting.id,),
    ]


async def test_a_successor_may_go_before_those_it_superseded(retention, ended, sql):
    """The row that stays points at nothing then; the ledger's own rules hold."""
    await ended("superseded", KEPT_WHATEVER_AGE, 1)
    await ended("succeeded", KEPT_WHATEVER_AGE + 1, 8)
    (oldest,) = sql("SELECT min(id) FROM jobs WHERE state = 'succeeded'")[0]
    sql("UPDATE jobs SET superseded_by = ? WHERE state = 'superseded'", oldest)
    assert (await retention.sweep()).jobs == 1
    assert sql("SELECT DISTINCT superseded_by FROM jobs WHERE state = 'superseded'") == [(None,)]
    assert sql("PRAGMA foreign_key_check") == []


async def test_a_key_holds_its_job_for_a_day(retention, jobs, wish, ended, clock, sql):
    key = IdempotencyKey(uid=1, key="once", fingerprint="f")
    job = await jobs.enqueue(wish(), key)
    await jobs.request_cancel(job.id)
    clock.advance(1)
    await ended("cancelled", MAX_ENDED_JOBS + 2 * BATCH_ROWS, 0)
    clock.advance(23 * 3600)
    assert (await retention.sweep()).jobs == 2 * BATCH_ROWS
    assert (await jobs.enqueue(wish(), key)).id == job.id
    clock.advance(2 * 3600)
    assert await retention.sweep() == Forgotten(jobs=1, keys=1)
    assert (await jobs.enqueue(wish(), key)).id != job.id


async def test_keys_have_a_number_too(retention, database, clock, sql):
    await database.write(
        lambda connection: (
            connection.executemany(
                "INSERT INTO idempotency (uid, key, fingerprint, result, created_us)"
                " VALUES (1, ?, 'f', x'00', ?)",
                ((str(number), clock.at_us + number) for number in range(MAX_KEYS + 7)),
            ).rowcount
        )
    )
    assert (await retention.sweep()).keys == 7
    assert sql("SELECT count(*) FROM idempotency") == [(MAX_KEYS,)]


async def test_events_go_when_they_are_old(retention, happened, sql):
    await happened(BATCH_ROWS + 1, 15)
    await happened(KEPT_WHATEVER_AGE, 13)
    assert await retention.sweep() == Forgotten(events=BATCH_ROWS + 1)
    assert sql("SELECT min(seq) FROM events") == [(BATCH_ROWS + 2,)]


async def test_the_newest_events_stay_whatever_the_clock_says(retention, happened, clock, sql):
    await happened(KEPT_WHATEVER_AGE + 5, 0)
    clock.advance(10 * 365 * DAY_S)
    assert (await retention.sweep()).events == 5
    assert sql("SELECT count(*) FROM events") == [(KEPT_WHATEVER_AGE,)]


async def test_there_are_never_more_events_than_so_many(retention, happened, sql):
    await happened(MAX_EVENTS + 3, 0)
    assert (await retention.sweep()).events == 3
    assert sql("SELECT min(seq), count(*) FROM events") == [(4, MAX_EVENTS)]


async def test_an_event_of_the_future_holds_the_later_ones(retention, happened, clock, sql):
    """Written while the clock was wrong: the stream has no holes."""
    await happened(3, 100)
    await happened(1, -100)
    await happened(KEPT_WHATEVER_AGE, 100)
    assert (await retention.sweep()).events == 3
    assert sql("SELECT min(seq) FROM events") == [(4,)]


async def test_a_reader_is_told_what_it_missed(retention, database, happened, clock):
    await happened(KEPT_WHATEVER_AGE + 5, 15)
    await retention.sweep()
    events = EventLedger(database)
    assert await events.floor_seq() == 5
    assert len(await events.read(5, 10)) == 10
    with pytest.raises(CursorTruncatedError):
        await events.read(4, 10)


async def test_no_reader_passes_a_gap_unawares(retention, database, happened, clock):
    """Whoever reads while events are forgotten is told, or has them all."""
    await happened(20 * BATCH_ROWS, 15)
    await happened(KEPT_WHATEVER_AGE, 0)
    events = EventLedger(database)
    sweep = asyncio.create_task(retention.sweep())
    told, pages = 0, 0
    while not sweep.done():
        cursor = await events.floor_seq()
        try:
            page = await events.read(cursor, 10)
        except CursorTruncatedError:
            told += 1
        else:
            assert [event.seq for event in page] == list(range(cursor + 1, cursor + 11))
            pages += 1
    await sweep
    assert pages > 0


async def test_former_lives_have_a_number(retention, database, sql):
    await database.write(
        lambda connection: (
            connection.executemany(
                "INSERT INTO epochs (pid, version, started_us) VALUES (1, 'v', ?)",
                ((number,) for number in range(MAX_LIVES + 2)),
            ).rowcount
        )
    )
    assert (await retention.sweep()).lives == 2
    assert sql("SELECT min(epoch) FROM epochs") == [(3,)]


async def test_bounds_that_change_count_at_once(database, clock, ended):
    """A reload needs no restart."""
    bounds = [RetentionConfig()]
    retention = Retention(database, clock, lambda: bounds[0])
    await ended("succeeded", KEPT_WHATEVER_AGE + 9, 6)
    assert (await retention.sweep()).jobs == 0
    bounds[0] = RetentionConfig(succeeded_s=5 * DAY_S)
    assert (await retention.sweep()).jobs == 9


async def test_space_is_given_back(retention, database, happened, sql):
    await happened(MAX_EVENTS // 4, 15)
    (before,) = sql("PRAGMA page_count")[0]
    await retention.sweep()
    (after,) = sql("PRAGMA page_count")[0]
    assert after < before / 2
    assert sql("PRAGMA integrity_check") == [("ok",)]


@pytest.fixture
def delivered(database, clock):
    """Write deliveries of some days ago."""

    async def delivered(count: int, days: float, body: bytes = b"x") -> None:
        at_us = clock.at_us - int(days * DAY_US)
        sql = (
            "INSERT INTO deliveries (source, fingerprint, received_us, state, changes, headers,"
            " body_bytes, body) VALUES ('one', x'00', ?, 'accepted', 0, '{}', 1, ?)"
        )
        await database.write(
            lambda connection: connection.executemany(sql, ((at_us, body) for _ in range(count)))
        )

    return delivered


async def test_deliveries_go_after_a_week_but_for_the_newest(retention, delivered, sql):
    await delivered(700, 8)
    await delivered(KEPT_WHATEVER_AGE - 100, 7.1)
    await delivered(200, 6.9)
    assert (await retention.sweep()).deliveries == 800
    assert sql("SELECT count(*) FROM deliveries") == [(KEPT_WHATEVER_AGE,)]


async def test_deliveries_have_a_bound_in_number(retention, delivered, sql, monkeypatch):
    monkeypatch.setattr("kitd.ledger.retention.MAX_DELIVERIES", 2000)
    await delivered(3_500, 0)
    assert (await retention.sweep()).deliveries == 1_500
    assert sql("SELECT min(id) FROM deliveries") == [(1_501,)]


async def test_bodies_of_deliveries_have_a_bound_together(retention, delivered, sql, monkeypatch):
    """The oldest go first; what became of a delivery is still told."""
    monkeypatch.setattr("kitd.ledger.retention.MAX_BODY_BYTES", 10_000)
    await delivered(1_100, 1, bytes(100))
    await retention.sweep()
    found = sql("SELECT count(*), count(body), min(iif(body IS NULL, NULL, id)) FROM deliveries")
    assert found == [(1_100, 100, 1_001)]
