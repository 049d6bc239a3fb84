"""The ledger's numbers: right, kept for ever, and cheap however much there is."""

import re

import pytest

from kitd.ledger.database import Database
from kitd.ledger.event_ledger import EventLedger
from kitd.ledger.failure import LedgerError
from kitd.ledger.job_ledger import JobLedger
from kitd.ledger.meter_ledger import _QUEUE, Cursor, MeterLedger
from kitd.ledger.mirror_ledger import MirrorLedger
from kitd.ledger.outbox_ledger import OutboxLedger
from kitd.ledger.tally import Tallied
from kitd.mirror.edge import Conflict, Edge, Failed
from kitd.oci.digest import digest_of
from kitd.oci.reference import Repository
from kitd.queue.job import Failure, JobState, Lane

FAILURE = Failure("error", "it did not work")


@pytest.fixture
def meters(database, events):
    return MeterLedger(database, events)


async def test_what_became_of_jobs(jobs, meters, wish):
    for key in "abcd":
        await jobs.enqueue(wish(key))
    first, second, third, fourth = await jobs.claim({Lane.PACK: 4})
    await jobs.succeed(first, b"{}", (), (wish("next", kind="push", lane=Lane.PUSH),))
    await jobs.fail(second, FAILURE)
    await jobs.back_off(third, FAILURE, 60, burned=True)
    await jobs.cancelled(fourth)

    reading = await meters.read()
    assert reading.tallies[Tallied.JOB] == {
        ("pack", "created"): 4,
        ("pack", "started"): 4,
        ("pack", "succeeded"): 1,
        ("pack", "failed"): 1,
        ("pack", "retrying"): 1,
        ("pack", "cancelled"): 1,
        ("push", "created"): 1,
    }
    assert {key: count for key, count in reading.queue.items() if count} == {
        (JobState.SCHEDULED, Lane.PACK): 1,
        (JobState.READY, Lane.PUSH): 1,
    }
    assert len(reading.queue) == 3 * len(Lane)
    assert reading.head_seq == await EventLedger(meters._database).head_seq()


async def test_counts_outlive_jobs_and_restarts(tmp_path, clock, wish, sql, jobs, meters, database):
    await jobs.enqueue(wish("a"))
    (job,) = await jobs.claim({Lane.PACK: 1})
    await jobs.succeed(job, b"{}", (), ())
    before = (await meters.read()).tallies
    sql("DELETE FROM jobs")
    assert (await meters.read()).tallies == before
    await database.close()

    async with Database(database.path) as again:
        jobs, meters = JobLedger(again, clock, epoch=2), MeterLedger(again, EventLedger(again))
        assert (await meters.read()).tallies == before
        await jobs.enqueue(wish("b"))
        after = (await meters.read()).tallies
        assert after[Tallied.JOB]["pack", "created"] == 2


async def test_what_is_undone_does_not_count(jobs, meters, database, wish):
    def transaction(connection):
        jobs.admit(connection, wish("a"))
        raise ValueError("undone")

    with pytest.raises(ValueError, match="undone"):
        await database.write(transaction)
    assert (await meters.read()).tallies[Tallied.JOB] == {}


async def test_the_oldest_that_could_run(jobs, meters, clock, wish):
    first_us = clock.now_us()
    await jobs.enqueue(wish("a"))
    clock.advance(5)
    await jobs.enqueue(wish("b", priority=10))
    assert (await meters.read()).oldest_us == {Lane.PACK: first_us}
    for _ in range(2):
        await jobs.claim({Lane.PACK: 1})
    assert (await meters.read()).oldest_us == {}


async def test_a_job_that_another_one_keeps_does_not_wait_for_its_turn(jobs, meters, clock, wish):
    """Pushes to one repository, the first of which takes an hour, are no trouble."""
    await jobs.enqueue(wish("a", lock="one"))
    (running,) = await jobs.claim({Lane.PACK: 1})
    await jobs.enqueue(wish("b", lock="one"))
    clock.advance(3600)
    reading = await meters.read()
    assert reading.queue[JobState.READY, Lane.PACK] == 1
    assert reading.oldest_us == {}
    free_us = clock.now_us()
    await jobs.enqueue(wish("c", lock="other"))
    assert (await meters.read()).oldest_us == {Lane.PACK: free_us}
    await jobs.succeed(running, b"{}", (), ())
    assert (await meters.read()).oldest_us == {Lane.PACK: free_us - 3_600_000_000}


async def test_the_oldest_is_not_the_first_that_was_asked_for(jobs, meters, clock, wish):
    await jobs.enqueue(wish("a"))
    (job,) = await jobs.claim({Lane.PACK: 1})
    oldest_us = clock.now_us()
    await jobs.enqueue(wish("b"))
    clock.advance(600)
    await jobs.back_off(job, FAILURE, 0, burned=True)
    await jobs.promote()
    reading = await meters.read()
    assert reading.queue[JobState.READY, Lane.PACK] == 2
    assert reading.oldest_us == {Lane.PACK: oldest_us}


async def test_what_became_of_mirrored_tags(database, clock, meters):
    mirrors = MirrorLedger(database, clock)
    source, target = Repository("a.example.com", "x"), Repository("b.example.com", "x")
    edge = Edge(source, "v1", target, "v1")
    one, two = digest_of(b"1"), digest_of(b"2")
    for _ in range(3):
        # Told once, and so it counts.
        await mirrors.note("prod", [Conflict(edge, one, two)])
    await mirrors.note(None, [Failed(edge, "error", "it did not work")])
    assert (await meters.read()).tallies[Tallied.MIRROR_EDGE] == {
        ("prod", "conflict"): 1,
        ("", "failed"): 1,
    }


async def test_how_far_endpoints_are(database, clock, events, meters, jobs, wish):
    outbox = OutboxLedger(database, events, clock)
    await outbox.keep({"chat"})
    await jobs.enqueue(wish("a"))
    await outbox.note_failure("chat", FAILURE)
    reading = await meters.read()
    assert reading.cursors == {"chat": Cursor(0, 1)}
    await outbox.drop("chat", 1, events=7, why="too old")
    reading = await meters.read()
    assert reading.cursors["chat"].seq == 1
    assert reading.tallies[Tallied.NOTIFICATION] == {("chat", "dropped"): 7}


async def test_the_queue_is_counted_by_indexes_alone(database):
    """No row of a job that waits is looked at, but some of each lane to find the oldest."""
    plan = await database.read(f"EXPLAIN QUERY PLAN {_QUEUE}", ("[]", 1, 1))
    looks = [
        row["detail"]
        for row in plan
        if re.search(r"^(SEARCH|SCAN) (jobs|waiting|other)\b", row["detail"])
    ]
    assert len(looks) == 6
    for look in looks:
        assert "USING COVERING INDEX jobs_ready (lane=?)" in look or any(
            index in look
            for index in ("jobs_scheduled_by_lane (lane=?)", "jobs_running", "INTEGER PRIMARY KEY")
        ), look


async def test_a_file_that_takes_no_more_is_noticed_until_it_does(database):
    def fill(connection):
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        connection.execute("INSERT INTO meta VALUES ('much', hex(zeroblob(1 << 20)))")

    before = sum(database.commits_s.read().counts)
    await database.prove()
    assert sum(database.commits_s.read().counts) == before, "something was written to prove it"
    with pytest.raises(LedgerError):
        await database.write(fill)
    assert (database.failed_commits, database.trouble is None) == (1, False)

    await database.prove()
    assert (database.failed_commits, database.trouble) == (1, None)
    assert sum(database.commits_s.read().counts) == before + 1
