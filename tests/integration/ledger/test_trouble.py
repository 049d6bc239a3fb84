"""What in the queue needs a person, and what only looks like it."""

import pytest

from kitd.ledger.trouble import MAX_JOBS, TroubleLedger
from kitd.queue.job import Failure, Lane

AWAY = Failure("unavailable", "r.example: away", "wait")


@pytest.fixture
def trouble(database) -> TroubleLedger:
    return TroubleLedger(database)


@pytest.fixture
def run_one(jobs, wish):
    """Start a job of this key and return the attempt."""

    async def run_one(key="a", **fields):
        await jobs.enqueue(wish(key, **fields))
        (attempt,) = await jobs.claim({fields.get("lane", Lane.PACK): 1})
        return attempt

    return run_one


async def test_a_quiet_queue_is_in_no_trouble(trouble, jobs, run_one):
    await jobs.succeed(await run_one(), b"{}", (), ())
    assert list(await trouble.poisoned()) == []
    assert list(await trouble.retrying()) == []
    assert list(await trouble.overdue()) == []
    assert list(await trouble.failed_since(0)) == []


async def test_a_job_that_is_tried_again_says_why(trouble, jobs, run_one, clock):
    attempt = await run_one(lane=Lane.PUSH, reference="r.example/a:v1")
    await jobs.back_off(attempt, AWAY, 60, burned=True, crashed=False)
    (found,) = await trouble.retrying()
    assert (found.id, found.error, found.since_us) == (attempt.id, AWAY, clock.at_us)
    assert found.reference == "r.example/a:v1"


async def test_a_failure_counts_until_its_key_succeeds(trouble, jobs, run_one, clock):
    start_us = clock.at_us - 1
    failed = await run_one("a")
    await jobs.fail(failed, AWAY)
    clock.advance(1)
    await jobs.fail(other := await run_one("b"), AWAY)
    assert [job.id for job in await trouble.failed_since(start_us)] == [other.id, failed.id]
    clock.advance(1)
    await jobs.succeed(await run_one("a"), b"{}", (), ())
    assert [job.id for job in await trouble.failed_since(start_us)] == [other.id]
    clock.advance(1)
    await jobs.fail(again := await run_one("a"), AWAY)
    assert again.id in [job.id for job in await trouble.failed_since(start_us)]
    assert list(await trouble.failed_since(clock.at_us)) == []


async def test_poison_is_told_apart_from_failures(trouble, jobs, run_one):
    attempt = await run_one()
    await jobs.fail(attempt, Failure("poison", "kitd died of it three times", "retry"))
    assert [job.id for job in await trouble.poisoned()] == [attempt.id]
    assert list(await trouble.failed_since(0)) == []


async def test_a_list_has_an_end(trouble, jobs, run_one):
    for number in range(MAX_JOBS + 1):
        await jobs.fail(await run_one(f"{number}"), AWAY)
    assert len(await trouble.failed_since(0)) == MAX_JOBS


async def test_the_next_of_each_lane_and_since_when_it_could_run(trouble, jobs, wish, clock):
    first = await jobs.enqueue(wish("a"))
    since_us = clock.at_us
    clock.advance(100)
    await jobs.enqueue(wish("b"))
    push = await jobs.enqueue(wish("c", lane=Lane.PUSH))
    found = {job.lane: job for job in await trouble.overdue()}
    assert set(found) == {Lane.PACK, Lane.PUSH}
    assert (found[Lane.PACK].id, found[Lane.PACK].since_us) == (first.id, since_us)
    assert found[Lane.PACK].running == 0
    assert found[Lane.PUSH].id == push.id


async def test_who_waits_for_a_lock_is_not_stuck(trouble, jobs, wish):
    await jobs.enqueue(wish("a", lock="one"))
    await jobs.claim({Lane.PACK: 1})
    await jobs.enqueue(wish("b", lock="one"))
    assert list(await trouble.overdue()) == []
    free = await jobs.enqueue(wish("c", lock="two"))
    (found,) = await trouble.overdue()
    assert (found.id, found.running) == (free.id, 1)


async def test_the_newest_event_tells_the_time(trouble, jobs, wish, clock):
    assert await trouble.newest_event_us() is None
    await jobs.enqueue(wish())
    assert await trouble.newest_event_us() == clock.at_us
