"""The audit of a real ledger, sound and tampered with."""

import asyncio

import pytest

from kitd.ledger.audit import MAX_FINDINGS, PAGE_JOBS, audit_ledger
from kitd.ledger.failure import LedgerDamagedError, LedgerError
from kitd.queue.job import Failure, Lane

FAILURE = Failure("unavailable", "away")


@pytest.fixture
async def busy(jobs, next_life, wish, clock):
    """A ledger in which everything happened that can happen to a job."""
    for number in range(6):
        await jobs.enqueue(wish(f"k{number}"))
    first, second, third, fourth = await jobs.claim({Lane.PACK: 4})
    await jobs.succeed(first, b"{}", (), (wish("follower"),))
    await jobs.fail(second, FAILURE)
    await jobs.back_off(third, FAILURE, 5, burned=True, crashed=False)
    await jobs.enqueue(wish(third.key))
    await jobs.enqueue(wish(third.key, args=b"1"))
    await jobs.request_cancel(fourth.id)
    await jobs.cancelled(fourth)
    await jobs.retry(second.id)
    await jobs.claim({Lane.PACK: 2})
    await next_life.recover()
    clock.advance(60)
    await next_life.promote()
    return next_life


async def test_a_sound_ledger_has_nothing_to_tell(busy, database):
    assert audit_ledger(database.path) == []


async def test_pages_meet(jobs, wish, database):
    for number in range(2 * PAGE_JOBS + 1):
        await jobs.enqueue(wish(f"{number}"))
    assert audit_ledger(database.path) == []


@pytest.mark.parametrize(
    ("tamper", "text"),
    [
        ("UPDATE jobs SET state = 'succeeded', finished_us = 1 WHERE id = 6", "it is succeeded"),
        ("DELETE FROM events WHERE type = 'job.failed'", "are missing"),
        ("DELETE FROM jobs WHERE id = 6", "it is gone"),
        ("UPDATE jobs SET followed_by = '[99]' WHERE id = 1", "job 99, which never was"),
        (
            "INSERT INTO events VALUES (999, 0, 'job.succeeded', 'job:1', 1, NULL, '{}')",
            "cannot follow: it was succeeded",
        ),
        (
            """INSERT INTO jobs (kind, lane, key, lock, state, args, priority, max_attempts,
               run_at_us, created_us) VALUES ('p', 'pack', 'z', 'z', 'ready', x'', 0, 1, 0, 0)""",
            "no event tells of it",
        ),
    ],
)
async def test_what_was_tampered_with_is_found(busy, database, sql, tamper, text):
    sql(tamper)
    found = audit_ledger(database.path)
    assert any(text in finding.text for finding in found), found


async def test_forgotten_events_are_no_finding(busy, database, sql):
    (head,) = sql("SELECT max(seq) FROM events")[0]
    for floor in range(1, head + 1):
        sql("DELETE FROM events WHERE seq <= ?", floor)
        assert audit_ledger(database.path) == [], floor


async def test_findings_are_bounded(database, sql):
    for number in range(MAX_FINDINGS + 1):
        sql("INSERT INTO events VALUES (NULL, 0, 'job.due', 'x', ?, NULL, '')", number + 1)
    assert len(audit_ledger(database.path)) == MAX_FINDINGS


async def test_a_daemon_that_writes_meanwhile_is_no_finding(busy, database, wish):
    """Each page is a snapshot: jobs and their events belong together."""

    async def write() -> None:
        number = 0
        while True:
            number += 1
            await busy.enqueue(wish(f"late {number}"))
            for attempt in await busy.claim({Lane.PACK: 2}):
                await busy.succeed(attempt, b"{}", (), ())

    writing = asyncio.create_task(write())
    for _ in range(10):
        assert await asyncio.to_thread(audit_ledger, database.path) == []
    writing.cancel()
    await asyncio.wait([writing])


def test_a_ledger_that_is_not_there_is_said_to_be(tmp_path):
    with pytest.raises(LedgerError, match="there is no ledger"):
        audit_ledger(tmp_path / "none.sqlite3")


def test_what_is_no_ledger_is_said_to_be(tmp_path):
    path = tmp_path / "diary"
    path.write_bytes(b"dear diary, " * 1000)
    with pytest.raises(LedgerDamagedError):
        audit_ledger(path)
