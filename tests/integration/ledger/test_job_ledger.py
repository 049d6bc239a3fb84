"""The queue's rows: how jobs are admitted, claimed and ended, and what is told of it."""

import asyncio
import json
import sqlite3
import time

import pytest

from kitd.errors import NotFoundError
from kitd.ledger.job_ledger import (
    MAX_LIST,
    IdempotencyKey,
    IdempotencyMismatchError,
    JobFilter,
)
from kitd.oci.digest import digest_of
from kitd.oci.reference import parse_repository
from kitd.queue.effect import Emit, MoveTags
from kitd.queue.job import Failure, JobState, Lane
from kitd.queue.transition import FencedError, IllegalTransitionError

FAILURE = Failure("unavailable", "the registry is away", "wait for it")
ALL = {Lane.PACK: 9, Lane.PUSH: 9, Lane.PULL: 9}


@pytest.fixture
def told(sql):
    """Return the events of a job, or of all, as `type` words."""

    def told(job=None) -> list[str]:
        rows = sql("SELECT type, job FROM events ORDER BY seq")
        return [kind for kind, about in rows if job is None or about == job.id]

    return told


@pytest.fixture
def start(jobs, wish):
    """Enqueue a wish and claim it."""

    async def start(key="a", **fields):
        await jobs.enqueue(wish(key, **fields))
        (attempt,) = await jobs.claim(ALL)
        return attempt

    return start


class TestAdmission:
    async def test_a_wish_becomes_a_ready_job(self, jobs, wish, clock, told):
        job = await jobs.enqueue(
            wish("a", args=b'{"x":1}', project="p", reference="r", priority=4, lane=Lane.PUSH)
        )
        assert (job.state, job.attempt, job.claim, job.epoch) == (JobState.READY, 0, 0, None)
        assert (job.args, job.project, job.reference, job.priority) == (b'{"x":1}', "p", "r", 4)
        assert (job.created_us, job.run_at_us, job.finished_us) == (clock.at_us, clock.at_us, None)
        assert await jobs.job(job.id) == job
        assert told(job) == ["job.created"]

    async def test_an_equal_wish_joins_what_waits(self, jobs, wish, told):
        job = await jobs.enqueue(wish(priority=3))
        lower, higher = await jobs.enqueue(wish()), await jobs.enqueue(wish(priority=9))
        assert (job.id, lower.id) == (higher.id, higher.id)
        assert (lower.priority, higher.priority) == (3, 9)
        assert told(job) == ["job.created", "job.joined", "job.joined"]

    async def test_joining_a_job_that_backs_off_makes_it_ready(self, jobs, start, wish, clock):
        attempt = await start()
        await jobs.back_off(attempt, FAILURE, 60.0, burned=True)
        joined = await jobs.enqueue(wish())
        assert (joined.id, joined.state) == (attempt.id, JobState.READY)
        assert joined.run_at_us == clock.at_us
        assert [job.id for job in await jobs.claim(ALL)] == [attempt.id]

    async def test_another_wish_of_the_key_replaces_what_waits(self, jobs, wish, told, clock):
        old = await jobs.enqueue(wish(args=b"1"))
        new = await jobs.enqueue(wish(args=b"2"))
        old = await jobs.job(old.id)
        assert (old.state, old.superseded_by) == (JobState.SUPERSEDED, new.id)
        assert old.finished_us == clock.at_us
        assert (new.state, new.args) == (JobState.READY, b"2")
        assert told(old) == ["job.created", "job.superseded"]
        assert told(new) == ["job.created"]

    async def test_what_replaces_is_as_urgent_as_what_it_replaced(self, jobs, wish):
        """The person who waits for the old job follows it to the new one."""
        await jobs.enqueue(wish(args=b"1", priority=10))
        assert (await jobs.enqueue(wish(args=b"2"))).priority == 10
        assert (await jobs.enqueue(wish(args=b"3", priority=20))).priority == 20

    async def test_a_wish_while_one_runs_waits_behind_it(self, jobs, start, wish):
        running = await start()
        waiting = await jobs.enqueue(wish())
        assert waiting.id != running.id
        assert list(await jobs.claim(ALL)) == []
        await jobs.succeed(running, b"{}", (), ())
        assert [job.id for job in await jobs.claim(ALL)] == [waiting.id]

    async def test_many_equal_wishes_at_once_are_one_job(self, jobs, wish):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(jobs.enqueue(wish())) for _ in range(50)]
        assert len({task.result().id for task in tasks}) == 1

    async def test_the_file_itself_refuses_a_second_waiting_or_running_one(
        self, jobs, wish, start, sql
    ):
        running = await start("a")
        await jobs.enqueue(wish("a"))
        await jobs.enqueue(wish("b", lock="a"))
        copy = (
            "INSERT INTO jobs (kind, lane, key, lock, state, args, priority, max_attempts,"
            " run_at_us, created_us) SELECT kind, lane, key, lock, ?, args, 0, 3, 0, 0"
            " FROM jobs WHERE id = ?"
        )
        for state in ("ready", "scheduled"):
            with pytest.raises(sqlite3.IntegrityError, match=r"jobs\.key"):
                sql(copy, state, running.id)
        with pytest.raises(sqlite3.IntegrityError, match=r"jobs\.lock"):
            sql("UPDATE jobs SET state = 'running', epoch = 1 WHERE key = 'b'")

    @pytest.mark.parametrize(
        "change",
        [
            "state = 'dreaming'",
            "state = 'succeeded'",
            "finished_us = 1",
            "state = 'running'",
            "epoch = 1",
            "state = 'failed', finished_us = 1",
            "cancel_requested = 2",
            "superseded_by = 999",
            "priority = 'high'",
        ],
    )
    async def test_the_file_itself_refuses_rows_that_make_no_sense(self, jobs, wish, sql, change):
        await jobs.enqueue(wish())
        with pytest.raises(sqlite3.IntegrityError):
            sql(f"UPDATE jobs SET {change}")


class TestIdempotency:
    KEY = IdempotencyKey(1000, "k", "fingerprint")

    async def test_the_same_wish_is_the_same_job_even_when_it_has_ended(self, jobs, wish):
        job = await jobs.enqueue(wish(), self.KEY)
        (attempt,) = await jobs.claim(ALL)
        assert (await jobs.enqueue(wish(), self.KEY)).id == job.id
        await jobs.succeed(attempt, b"{}", (), ())
        again = await jobs.enqueue(wish(), self.KEY)
        assert (again.id, again.state) == (job.id, JobState.SUCCEEDED)
        assert (await jobs.enqueue(wish())).id != job.id

    async def test_another_wish_under_the_same_key_is_an_error(self, jobs, wish, told):
        await jobs.enqueue(wish(), self.KEY)
        with pytest.raises(IdempotencyMismatchError) as caught:
            await jobs.enqueue(wish("b"), IdempotencyKey(1000, "k", "another"))
        assert caught.value.code == "idempotency_mismatch"
        assert told() == ["job.created"]

    async def test_keys_of_different_people_are_different(self, jobs, wish):
        one = await jobs.enqueue(wish("a"), self.KEY)
        other = await jobs.enqueue(wish("b"), IdempotencyKey(1001, "k", "another"))
        assert one.id != other.id

    async def test_many_at_once_are_one_job(self, jobs, wish):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(jobs.enqueue(wish(), self.KEY)) for _ in range(20)]
        assert len({task.result().id for task in tasks}) == 1
        assert len(await jobs.list(JobFilter())) == 1

    async def test_a_wish_that_fails_leaves_its_key_free(self, jobs, wish):
        with pytest.raises(sqlite3.IntegrityError):
            await jobs.enqueue(wish(priority="high"), self.KEY)
        await jobs.enqueue(wish(), IdempotencyKey(1000, "k", "another"))


class TestClaim:
    async def test_a_claim_starts_an_attempt(self, jobs, start, clock, told):
        attempt = await start()
        assert (attempt.state, attempt.epoch) == (JobState.RUNNING, 1)
        assert (attempt.attempt, attempt.claim, attempt.started_us) == (1, 1, clock.at_us)
        assert await jobs.job(attempt.id) == attempt
        assert told(attempt) == ["job.created", "job.started"]

    async def test_the_most_urgent_is_first_and_then_the_oldest(self, jobs, wish):
        for key, priority in (("a", 0), ("b", 10), ("c", 0), ("d", 10), ("e", 5)):
            await jobs.enqueue(wish(key, priority=priority))
        assert [job.key for job in await jobs.claim({Lane.PACK: 3})] == ["b", "d", "e"]
        assert [job.key for job in await jobs.claim({Lane.PACK: 3})] == ["a", "c"]

    async def test_each_lane_has_its_own_slots(self, jobs, wish):
        for number in range(3):
            for lane in Lane:
                await jobs.enqueue(wish(f"{lane}{number}", lane=lane))
        claimed = await jobs.claim({Lane.PACK: 1, Lane.PUSH: 2, Lane.PULL: 0})
        assert [job.key for job in claimed] == ["pack0", "push0", "push1"]

    async def test_jobs_of_one_lock_run_one_after_the_other(self, jobs, wish):
        for key in "abc":
            await jobs.enqueue(wish(key, lock="same"))
        await jobs.enqueue(wish("d"))
        first, other = await jobs.claim(ALL)
        assert (first.key, other.key) == ("a", "d")
        assert list(await jobs.claim(ALL)) == []
        await jobs.fail(first, FAILURE)
        assert [job.key for job in await jobs.claim(ALL)] == ["b"]

    async def test_a_lock_holds_across_lanes(self, jobs, wish):
        await jobs.enqueue(wish("a", lock="same"))
        await jobs.enqueue(wish("b", lock="same", lane=Lane.PUSH))
        assert [job.key for job in await jobs.claim(ALL)] == ["a"]

    async def test_claims_at_once_never_share_a_job(self, jobs, wish):
        for number in range(20):
            await jobs.enqueue(wish(str(number)))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(jobs.claim({Lane.PACK: 3})) for _ in range(10)]
        claimed = [job.id for task in tasks for job in task.result()]
        assert len(claimed) == len(set(claimed)) == 20


class TestEnds:
    async def test_a_success_keeps_its_result_and_names_what_follows(
        self, jobs, start, wish, told, clock
    ):
        attempt = await start(project="p")
        clock.advance(1)
        await jobs.enqueue(wish("c"))
        await jobs.succeed(
            attempt,
            b'{"digest":"x"}',
            (Emit("kit.packed", "kit:x", {"n": 1}),),
            (wish("b"), wish("c")),
        )
        job = await jobs.job(attempt.id)
        assert (job.state, job.result) == (JobState.SUCCEEDED, b'{"digest":"x"}')
        assert (job.finished_us, job.epoch) == (clock.at_us, None)
        assert [(await jobs.job(follower)).key for follower in job.followed_by] == ["b", "c"]
        assert told(job) == ["job.created", "job.started", "kit.packed", "job.succeeded"]

    async def test_effects_that_cannot_be_written_leave_the_attempt_running(
        self, jobs, start, wish, told, sql
    ):
        """Result, effects, followers and events are durable together or not at all."""
        attempt = await start()
        before = sql("SELECT * FROM events"), sql("SELECT * FROM jobs")
        dangling = MoveTags(parse_repository("team/model"), ("latest",), digest_of(b"nothing"))
        with pytest.raises(sqlite3.IntegrityError):
            await jobs.succeed(
                attempt, b"{}", (Emit("kit.packed", "kit:x"), dangling), (wish("b"),)
            )
        assert (sql("SELECT * FROM events"), sql("SELECT * FROM jobs")) == before
        await jobs.fail(attempt, FAILURE)

    async def test_a_failure_is_kept_and_told(self, jobs, start, events, told):
        attempt = await start(project="p")
        await jobs.fail(attempt, FAILURE)
        job = await jobs.job(attempt.id)
        assert (job.state, job.error, job.attempt) == (JobState.FAILED, FAILURE, 1)
        *_, event = await events.of_job(job.id)
        assert (event.type, event.subject, event.project) == ("job.failed", f"job:{job.id}", "p")
        assert event.data == {
            "kind": "pack",
            "project": "p",
            "code": "unavailable",
            "message": "the registry is away",
            "hint": "wait for it",
        }

    async def test_backing_off_waits_for_its_time(self, jobs, start, clock, told, events):
        attempt = await start()
        await jobs.back_off(attempt, FAILURE, 2.5, burned=True)
        job = await jobs.job(attempt.id)
        due_us = clock.at_us + 2_500_000
        assert (job.state, job.run_at_us, job.error) == (JobState.SCHEDULED, due_us, FAILURE)
        assert (await events.of_job(job.id))[-1].data["delay_ms"] == 2500
        assert await jobs.promote() == due_us
        clock.advance(2.499)
        assert await jobs.promote() == due_us
        assert list(await jobs.claim(ALL)) == []
        clock.advance(0.001)
        assert await jobs.promote() is None
        (again,) = await jobs.claim(ALL)
        assert (again.id, again.attempt, again.claim, again.error) == (job.id, 2, 2, None)
        assert told(job) == [
            "job.created",
            "job.started",
            "job.retrying",
            "job.due",
            "job.started",
        ]

    async def test_promoting_tells_when_the_next_is_due(self, jobs, wish, clock):
        for key in "ab":
            await jobs.enqueue(wish(key))
        for delay_s, attempt in zip((30, 10), await jobs.claim(ALL), strict=True):
            await jobs.back_off(attempt, FAILURE, delay_s, burned=True)
        assert await jobs.promote() == clock.at_us + 10_000_000
        clock.advance(10)
        assert await jobs.promote() == clock.at_us + 20_000_000

    async def test_a_clock_that_goes_back_keeps_no_job_waiting(self, jobs, start, clock):
        """What was to run in minutes does not run in a day."""
        attempt = await start()
        await jobs.back_off(attempt, FAILURE, 900.0, burned=True)
        clock.advance(-86_400)
        assert await jobs.promote() is None
        (again,) = await jobs.claim(ALL)
        assert again.id == attempt.id

    @pytest.mark.parametrize("rounds", [1, 5])
    async def test_a_snooze_burns_no_attempt_but_counts_the_claim(self, jobs, start, clock, rounds):
        attempt = await start()
        for _ in range(rounds):
            await jobs.back_off(attempt, FAILURE, 2.0, burned=False)
            clock.advance(2)
            await jobs.promote()
            (attempt,) = await jobs.claim(ALL)
        assert (attempt.attempt, attempt.claim) == (1, 1 + rounds)

    async def test_stepping_aside_ends_a_job_with_its_reason(
        self, jobs, start, wish, events, clock
    ):
        attempt = await start(project="p")
        clock.advance(3)
        await jobs.step_aside(attempt, FAILURE)
        job = await jobs.job(attempt.id)
        assert (job.state, job.error, job.superseded_by) == (JobState.SUPERSEDED, FAILURE, None)
        assert (job.finished_us, job.epoch) == (clock.at_us, None)
        *_, event = await events.of_job(job.id)
        assert (event.type, event.project) == ("job.superseded", "p")
        assert event.data["code"] == "unavailable"
        assert event.data["message"] == "the registry is away"
        # Its key and its lock are free.
        again = await jobs.enqueue(wish())
        assert again.id != job.id
        assert [claimed.id for claimed in await jobs.claim(ALL)] == [again.id]

    async def test_an_interruption_burns_no_attempt_and_runs_again_at_once(self, jobs, start, told):
        attempt = await start()
        await jobs.interrupt(attempt)
        job = await jobs.job(attempt.id)
        assert (job.state, job.attempt, job.error) == (JobState.READY, 0, None)
        (again,) = await jobs.claim(ALL)
        assert (again.id, again.attempt, again.claim) == (job.id, 1, 2)
        assert told(job)[-2:] == ["job.interrupted", "job.started"]


async def give_up(jobs, attempt):
    await jobs.fail(attempt, FAILURE)


async def come_back(jobs, attempt):
    await jobs.back_off(attempt, FAILURE, 5.0, burned=True)


async def snooze(jobs, attempt):
    await jobs.back_off(attempt, FAILURE, 5.0, burned=False)


async def step_aside(jobs, attempt):
    await jobs.step_aside(attempt, FAILURE)


async def interrupt(jobs, attempt):
    await jobs.interrupt(attempt)


async def succeed(jobs, attempt):
    await jobs.succeed(attempt, b"{}", (Emit("kit.packed", "kit:x"),), ())


async def cancelled(jobs, attempt):
    await jobs.cancelled(attempt)


ENDS = pytest.mark.parametrize(
    "end", [give_up, come_back, snooze, step_aside, interrupt, succeed, cancelled]
)
COMEBACKS = pytest.mark.parametrize("end", [come_back, snooze, interrupt])
UNFINISHED = pytest.mark.parametrize("end", [come_back, snooze, step_aside, interrupt])


class TestFence:
    @ENDS
    async def test_an_attempt_ends_once(self, jobs, start, sql, end):
        attempt = await start()
        await end(jobs, attempt)
        before = sql("SELECT * FROM jobs"), sql("SELECT * FROM events")
        with pytest.raises(FencedError):
            await succeed(jobs, attempt)
        assert (sql("SELECT * FROM jobs"), sql("SELECT * FROM events")) == before

    @ENDS
    async def test_an_attempt_cannot_end_its_successor(self, jobs, start, sql, end):
        old = await start()
        await jobs.interrupt(old)
        (new,) = await jobs.claim(ALL)
        before = sql("SELECT * FROM jobs"), sql("SELECT * FROM events")
        with pytest.raises(FencedError):
            await end(jobs, old)
        assert (sql("SELECT * FROM jobs"), sql("SELECT * FROM events")) == before
        await succeed(jobs, new)

    @ENDS
    async def test_an_attempt_of_a_former_life_cannot_end_anything(
        self, jobs, next_life, start, end
    ):
        old = await start()
        assert await next_life.recover() == 1
        with pytest.raises(FencedError):
            await end(jobs, old)
        (new,) = await next_life.claim(ALL)
        with pytest.raises(FencedError):
            await end(jobs, old)
        assert (await next_life.job(new.id)).state is JobState.RUNNING


class TestComingBackToAWaitingOne:
    @UNFINISHED
    async def test_the_newer_job_that_waits_serves_both(self, jobs, start, wish, told, end):
        attempt = await start(args=b"1")
        newer = await jobs.enqueue(wish(args=b"2"))
        await end(jobs, attempt)
        job = await jobs.job(attempt.id)
        assert (job.state, job.superseded_by) == (JobState.SUPERSEDED, newer.id)
        assert told(job) == ["job.created", "job.started", "job.superseded"]
        assert [job.id for job in await jobs.claim(ALL)] == [newer.id]

    @COMEBACKS
    async def test_an_older_job_that_was_asked_for_again_does_not_win(
        self, jobs, start, wish, clock, end
    ):
        old = await start(args=b"1")
        await jobs.fail(old, FAILURE)
        new = await start(args=b"2")
        await jobs.retry(old.id)
        await end(jobs, new)
        old = await jobs.job(old.id)
        assert (old.state, old.superseded_by) == (JobState.SUPERSEDED, new.id)
        clock.advance(10)
        await jobs.promote()
        assert [job.id for job in await jobs.claim(ALL)] == [new.id]

    async def test_what_steps_aside_makes_way_for_an_older_job_that_was_asked_for_again(
        self, jobs, start, told
    ):
        """It does not come back itself: were it to take the other along, nobody would."""
        old = await start(args=b"1")
        await jobs.fail(old, FAILURE)
        new = await start(args=b"2")
        await jobs.retry(old.id)
        await jobs.step_aside(new, FAILURE)
        new = await jobs.job(new.id)
        assert (new.state, new.error) == (JobState.SUPERSEDED, FAILURE)
        assert new.superseded_by == old.id
        assert told(new) == ["job.created", "job.started", "job.superseded"]
        assert [job.id for job in await jobs.claim(ALL)] == [old.id]


class TestRecovery:
    async def test_a_new_life_puts_back_what_the_former_left(self, jobs, next_life, wish, told):
        for key in "abc":
            await jobs.enqueue(wish(key))
        one, two = await jobs.claim({Lane.PACK: 2})
        assert await next_life.recover() == 2
        for attempt in (one, two):
            job = await next_life.job(attempt.id)
            assert (job.state, job.attempt, job.epoch) == (JobState.READY, 0, None)
            assert told(job)[-1] == "job.interrupted"
        assert [job.epoch for job in await next_life.claim(ALL)] == [2, 2, 2]

    async def test_a_life_leaves_its_own_running_jobs_alone(self, jobs, start):
        attempt = await start()
        assert await jobs.recover() == 0
        assert (await jobs.job(attempt.id)).state is JobState.RUNNING

    async def test_recovering_twice_finds_nothing_more(self, next_life, start):
        await start()
        assert [await next_life.recover(), await next_life.recover()] == [1, 0]


class TestCancel:
    async def test_a_waiting_job_is_cancelled_at_once(self, jobs, wish, clock, told):
        job = await jobs.enqueue(wish())
        job = await jobs.request_cancel(job.id)
        assert (job.state, job.finished_us) == (JobState.CANCELLED, clock.at_us)
        assert told(job) == ["job.created", "job.cancelled"]
        assert list(await jobs.claim(ALL)) == []

    async def test_a_job_that_backs_off_is_cancelled_at_once(self, jobs, start):
        attempt = await start()
        await jobs.back_off(attempt, FAILURE, 60, burned=True)
        assert (await jobs.request_cancel(attempt.id)).state is JobState.CANCELLED
        assert await jobs.promote() is None

    async def test_a_running_job_is_marked_until_its_attempt_has_stopped(self, jobs, start, told):
        attempt = await start()
        job = await jobs.request_cancel(attempt.id)
        assert (job.state, job.cancel_requested) == (JobState.RUNNING, True)
        await jobs.cancelled(attempt)
        assert (await jobs.job(job.id)).state is JobState.CANCELLED
        assert told(job)[-2:] == ["job.cancelling", "job.cancelled"]

    @UNFINISHED
    async def test_a_job_that_was_cancelled_does_not_come_back(self, jobs, start, told, end):
        """The attempt noticed something else first, or kitd stopped: the answer was given."""
        attempt = await start()
        await jobs.request_cancel(attempt.id)
        await end(jobs, attempt)
        assert (await jobs.job(attempt.id)).state is JobState.CANCELLED
        assert told(attempt)[-1] == "job.cancelled"

    async def test_a_crash_does_not_forget_a_cancellation(self, jobs, next_life, start, told):
        attempt = await start()
        await jobs.request_cancel(attempt.id)
        assert await next_life.recover() == 1
        assert (await next_life.job(attempt.id)).state is JobState.CANCELLED
        assert told(attempt)[-1] == "job.cancelled"

    async def test_an_attempt_that_ends_well_first_has_ended_well(self, jobs, start):
        attempt = await start()
        await jobs.request_cancel(attempt.id)
        await jobs.succeed(attempt, b"{}", (), ())
        assert (await jobs.job(attempt.id)).state is JobState.SUCCEEDED

    @pytest.mark.parametrize("end", [give_up, step_aside, succeed, cancelled])
    async def test_what_has_ended_cannot_be_cancelled(self, jobs, start, sql, end):
        attempt = await start()
        await end(jobs, attempt)
        before = sql("SELECT * FROM jobs"), sql("SELECT * FROM events")
        with pytest.raises(IllegalTransitionError):
            await jobs.request_cancel(attempt.id)
        assert (sql("SELECT * FROM jobs"), sql("SELECT * FROM events")) == before

    async def test_a_job_that_does_not_exist_is_not_found(self, jobs):
        for action in (jobs.request_cancel, jobs.retry, jobs.job):
            with pytest.raises(NotFoundError, match="no job 7"):
                await action(7)


class TestRetry:
    @pytest.mark.parametrize("end", [give_up, cancelled])
    async def test_a_person_brings_a_job_back_with_all_its_attempts(
        self, jobs, start, clock, told, end
    ):
        attempt = await start()
        await jobs.request_cancel(attempt.id)
        await end(jobs, attempt)
        clock.advance(1)
        job = await jobs.retry(attempt.id)
        assert (job.state, job.attempt, job.error) == (JobState.READY, 0, None)
        assert (job.finished_us, job.cancel_requested, job.run_at_us) == (None, False, clock.at_us)
        (again,) = await jobs.claim(ALL)
        assert (again.id, again.attempt, again.claim) == (job.id, 1, 2)
        assert told(job)[-2:] == ["job.retried", "job.started"]

    @pytest.mark.parametrize("state", ["ready", "running", "succeeded", "superseded"])
    async def test_nothing_else_can_be_brought_back(self, jobs, wish, state):
        job = await jobs.enqueue(wish())
        if state == "superseded":
            await jobs.enqueue(wish(args=b"2"))
        elif state != "ready":
            (attempt,) = await jobs.claim(ALL)
            if state == "succeeded":
                await succeed(jobs, attempt)
        assert (await jobs.job(job.id)).state == state
        with pytest.raises(IllegalTransitionError):
            await jobs.retry(job.id)

    async def test_the_one_that_waits_serves_the_wish(self, jobs, start, wish, told):
        attempt = await start(args=b"1")
        await jobs.fail(attempt, FAILURE)
        waiting = await jobs.enqueue(wish(args=b"2"))
        before = told()
        assert await jobs.retry(attempt.id) == waiting
        assert (await jobs.job(attempt.id)).state is JobState.FAILED
        assert told() == before


class TestReading:
    async def test_lists_are_newest_first_and_come_in_pages(self, jobs, wish):
        ids = [(await jobs.enqueue(wish(str(number)))).id for number in range(7)]
        pages, before = [], None
        while page := await jobs.list(JobFilter(before=before, limit=3)):
            pages.append([job.id for job in page])
            before = page[-1].id
        assert pages == [ids[:3:-1], ids[3:0:-1], ids[:1]]

    @pytest.mark.parametrize(("limit", "length"), [(0, 0), (-1, 0), (5, 5), (10**9, MAX_LIST)])
    async def test_no_list_is_longer_than_it_may_be(self, jobs, wish, sql, limit, length):
        await jobs.enqueue(wish())
        sql(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600)"
            " INSERT INTO jobs (kind, lane, key, lock, state, args, priority, max_attempts,"
            " run_at_us, created_us) SELECT kind, lane, i, i, state, args, 0, 3, 0, 0 FROM jobs, n"
        )
        assert len(await jobs.list(JobFilter(limit=limit))) == length

    async def test_lists_are_filtered(self, jobs, wish):
        await jobs.enqueue(wish("a", project="p"))
        await jobs.enqueue(wish("b", kind="push", project="q"))
        await jobs.enqueue(wish("c"))
        (attempt,) = await jobs.claim({Lane.PACK: 1})
        await jobs.fail(attempt, FAILURE)

        async def keys(**wanted):
            return [job.key for job in await jobs.list(JobFilter(**wanted))]

        assert await keys() == ["c", "b", "a"]
        assert await keys(state=JobState.FAILED) == ["a"]
        assert await keys(kind="push") == ["b"]
        assert await keys(project="q") == ["b"]
        assert await keys(kind="push", project="p") == []

    async def test_a_project_has_its_latest_jobs(self, jobs, wish):
        for number in range(10):
            await jobs.enqueue(wish(str(number), project="p"))
            await jobs.enqueue(wish(f"other{number}"))
        assert [job.key for job in await jobs.latest("p")] == list("98765432")

    async def test_each_of_several_projects_has_its_latest_jobs(self, jobs, wish):
        for number in range(10):
            await jobs.enqueue(wish(f"p{number}", project="p"))
            await jobs.enqueue(wish(f"q{number}", project="q"))
        latest = await jobs.latest_of(["q", "p", "none"])
        assert {name: [job.key for job in of] for name, of in latest.items()} == {
            "p": [f"p{number}" for number in range(9, 1, -1)],
            "q": [f"q{number}" for number in range(9, 1, -1)],
            "none": [],
        }

    async def test_counts_are_of_what_is_not_quietly_over(self, jobs, wish):
        for key in "abcdefg":
            await jobs.enqueue(wish(key))
        attempts = list(await jobs.claim({Lane.PACK: 6}))
        await jobs.fail(attempts.pop(), FAILURE)
        await jobs.fail(attempts.pop(), FAILURE)
        await jobs.back_off(attempts.pop(), FAILURE, 9, burned=True)
        await jobs.succeed(attempts.pop(), b"{}", (), ())
        counts = await jobs.counts()
        assert counts.by_state == {
            JobState.READY: 1,
            JobState.RUNNING: 2,
            JobState.SCHEDULED: 1,
            JobState.FAILED: 2,
        }
        assert counts.of(JobState.SUCCEEDED) == 0

    async def test_counting_does_not_read_the_jobs_that_ended_well(self, jobs, wish, sql):
        await jobs.enqueue(wish("a"))
        sql(
            "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 30000)"
            " INSERT INTO jobs (kind, lane, key, lock, state, args, priority, max_attempts,"
            " run_at_us, created_us, finished_us)"
            " SELECT 'pack', 'pack', 'k', 'k', 'succeeded', zeroblob(500), 0, 3, 1, 1, 2 FROM n"
        )

        async def quickest(look) -> float:
            seconds = []
            for _ in range(5):
                began_s = time.perf_counter()
                await look()
                seconds.append(time.perf_counter() - began_s)
            return min(seconds)

        async def look_at_all() -> None:
            sql("SELECT count(*) FROM jobs WHERE result IS NOT NULL")

        assert (await jobs.counts()).by_state == {JobState.READY: 1}
        assert await quickest(jobs.counts) < await quickest(look_at_all) / 3


async def test_a_story_is_told_once_and_in_order(jobs, wish, clock, sql):
    """Every change has its one event, numbered without a gap."""
    await jobs.enqueue(wish("a", project="p", reference="r/x"))
    (attempt,) = await jobs.claim(ALL)
    await jobs.back_off(attempt, FAILURE, 1, burned=True)
    clock.advance(1)
    await jobs.promote()
    (attempt,) = await jobs.claim(ALL)
    await jobs.interrupt(attempt)
    await jobs.enqueue(wish("a", args=b"2", project="p", reference="r/x"))
    rows = sql("SELECT seq, type, subject, job, project, data FROM events ORDER BY seq")
    assert [seq for seq, *_ in rows] == list(range(1, len(rows) + 1))
    assert [(kind, job) for _, kind, _, job, _, _ in rows] == [
        ("job.created", 1),
        ("job.started", 1),
        ("job.retrying", 1),
        ("job.due", 1),
        ("job.started", 1),
        ("job.interrupted", 1),
        ("job.created", 2),
        ("job.superseded", 1),
    ]
    for _, _, subject, job, project, data in rows:
        assert (subject, project) == (f"job:{job}", "p")
        assert json.loads(data)["reference"] == "r/x"
