"""The queue's rows: how jobs are admitted, claimed and ended, and what is told of it."""

import asyncio
import json
import sqlite3
import time

import pytest

from kitd.errors import NotFoundError
from kitd.ledger.job_ledger import (
    FORGET_CLAIMS,
    MAX_LIST,
    IdempotencyKey,
    IdempotencyMismatchError,
    JobFilter,
    JobLedger,
)
from kitd.queue.effect import Emit
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

    async def test_jobs_of_a_lock_are_counted_until_they_end(self, jobs, wish, start):
        assert await jobs.under_way("a", 9) == 0
        running = await start("a")
        await come_back(jobs, await start("b", lock="b"))
        for key in ("c", "d"):
            await jobs.enqueue(wish(key, lock="a"))
        assert await jobs.under_way("a", 9) == 3
        assert await jobs.under_way("a", 2) == 2
        assert await jobs.under_way("b", 9) == 1
        await give_up(jobs, running)
        assert await jobs.under_way("a", 9) == 2

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

    async def test_an_answer_without_a_job_is_kept(self, jobs):
        assert await jobs.recall(self.KEY) is None
        assert await jobs.remember(self.KEY, b"first") == b"first"
        assert await jobs.recall(self.KEY) == b"first"
        assert await jobs.recall(IdempotencyKey(1001, "k", "fingerprint")) is None

    async def test_what_was_answered_first_stays(self, jobs):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(jobs.remember(self.KEY, str(n).encode())) for n in range(20)]
        assert {task.result() for task in tasks} == {await jobs.recall(self.KEY)}

    async def test_another_call_under_the_same_key_is_an_error(self, jobs, wish):
        other = IdempotencyKey(1000, "k", "another")
        await jobs.remember(self.KEY, b"first")
        with pytest.raises(IdempotencyMismatchError):
            await jobs.recall(other)
        with pytest.raises(IdempotencyMismatchError):
            await jobs.remember(other, b"second")
        with pytest.raises(IdempotencyMismatchError):
            await jobs.enqueue(wish(), other)

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


class TestTurns:
    """Start-time fair queueing between owners."""

    async def owners_of(self, jobs, slots, lane=Lane.PACK):
        return [job.owner.partition(":")[2] for job in await jobs.claim({lane: slots})]

    async def wish_many(self, jobs, wish, project, number, **fields):
        for n in range(number):
            await jobs.enqueue(wish(f"{project}{n}", project=project, **fields))

    async def test_owners_take_turns_however_many_jobs_each_has(self, jobs, wish):
        await self.wish_many(jobs, wish, "a", 50)
        await self.wish_many(jobs, wish, "b", 3)
        await self.wish_many(jobs, wish, "c", 3)
        assert "".join(await self.owners_of(jobs, 12)) == "abcabcabcaaa"

    async def test_a_newcomer_waits_for_at_most_one_job_of_each_other(self, jobs, wish):
        await self.wish_many(jobs, wish, "a", 50)
        await self.wish_many(jobs, wish, "b", 50)
        assert len(await self.owners_of(jobs, 21)) == 21
        await self.wish_many(jobs, wish, "c", 2)
        assert (await self.owners_of(jobs, 3)).index("c") <= 2

    async def test_who_was_idle_has_saved_nothing_up(self, jobs, wish):
        await self.wish_many(jobs, wish, "a", 1)
        await self.wish_many(jobs, wish, "b", 60)
        await self.owners_of(jobs, 41)
        await self.wish_many(jobs, wish, "a", 20)
        assert "".join(await self.owners_of(jobs, 10)).count("a") == 5

    async def test_owners_are_projects_then_people_then_kitd(self, jobs, wish):
        for n in range(3):
            await jobs.enqueue(wish(f"p{n}", project="p", asked_by=7))
            await jobs.enqueue(wish(f"u{n}", asked_by=7))
            await jobs.enqueue(wish(f"k{n}"))
        claimed = [job.owner for job in await jobs.claim({Lane.PACK: 9})]
        assert claimed == ["project:p", "user:7", "kitd"] * 3

    async def test_what_is_urgent_goes_first_and_every_fourth_claim_is_for_the_others(
        self, jobs, wish
    ):
        await self.wish_many(jobs, wish, "a", 20)
        await self.wish_many(jobs, wish, "u", 20, priority=10)
        assert "".join(await self.owners_of(jobs, 12)) == "uuuauuuauuua"

    async def test_what_is_urgent_for_one_does_not_cost_another_his_turn(self, jobs, wish):
        """The turns of a priority are its own: c is new, and waits for one job of a."""
        await self.wish_many(jobs, wish, "a", 30)
        await self.wish_many(jobs, wish, "u", 30, priority=10)
        await self.owners_of(jobs, 30)
        await self.wish_many(jobs, wish, "c", 1)
        claimed = [job for job in await jobs.claim({Lane.PACK: 20}) if job.priority == 0]
        assert [job.project for job in claimed].index("c") <= 1

    @pytest.mark.parametrize("comes_back", ["back_off", "interrupt"])
    async def test_a_job_that_comes_back_keeps_its_turn(self, jobs, wish, comes_back):
        await self.wish_many(jobs, wish, "a", 9)
        (first,) = await jobs.claim({Lane.PACK: 1})
        if comes_back == "interrupt":
            await jobs.interrupt(first)
        else:
            await jobs.back_off(first, FAILURE, 0.0, burned=True)
            await jobs.promote()
        assert [job.id for job in await jobs.claim({Lane.PACK: 1})] == [first.id]

    @pytest.mark.parametrize("args", [b"{}", b"new"], ids=["joined", "replaced"])
    async def test_a_wish_for_what_waits_keeps_its_turn(self, jobs, wish, args):
        await self.wish_many(jobs, wish, "a", 9)
        job = await jobs.enqueue(wish("a0", project="a", args=args))
        assert [claimed.id for claimed in await jobs.claim({Lane.PACK: 1})] == [job.id]

    async def test_what_becomes_urgent_takes_its_turn_among_the_urgent(self, jobs, wish):
        await self.wish_many(jobs, wish, "u", 3, priority=10)
        await self.wish_many(jobs, wish, "a", 1)
        await jobs.enqueue(wish("a0", project="a", priority=10))
        assert "".join(await self.owners_of(jobs, 4)) == "uauu"

    async def test_what_a_person_tries_again_queues_anew(self, jobs, wish):
        await self.wish_many(jobs, wish, "a", 9)
        for job in await jobs.claim({Lane.PACK: 9}):
            await jobs.fail(job, FAILURE)
        await self.wish_many(jobs, wish, "b", 20)
        await self.owners_of(jobs, 5)
        for job in await jobs.list(JobFilter(state=JobState.FAILED)):
            await jobs.retry(job.id)
        claimed = "".join(await self.owners_of(jobs, 8))
        assert abs(claimed.count("a") - claimed.count("b")) <= 2
        assert "aaa" not in claimed

    async def test_owners_that_are_gone_are_forgotten(self, jobs, wish, sql):
        for n in range(FORGET_CLAIMS):
            await jobs.enqueue(wish(str(n), project=str(n)))
            (job,) = await jobs.claim({Lane.PACK: 1})
            await jobs.enqueue(wish("again", project="again"))
            await jobs.succeed(job, b"{}", (), ())
            (again,) = await jobs.claim({Lane.PACK: 1})
            await jobs.succeed(again, b"{}", (), ())
        assert sql("SELECT count(*) FROM turns")[0][0] < FORGET_CLAIMS / 2

    async def test_turns_outlive_a_restart(self, jobs, next_life, wish):
        await self.wish_many(jobs, wish, "a", 30)
        await self.owners_of(jobs, 20)
        for n in range(9):
            await next_life.enqueue(wish(f"b{n}", project="b"))
        assert "".join(await self.owners_of(next_life, 6)).count("b") == 3


class TestParts:
    """What an attempt that failed made of its parts is the job's result until the next begins."""

    PARTS = Failure("mirror_incomplete", "one is missing", None, b'{"failed":1}')

    async def test_it_is_there_while_the_job_waits_and_gone_when_it_runs(self, jobs, start):
        attempt = await start()
        await jobs.back_off(attempt, self.PARTS, 0.0, burned=True)
        assert (await jobs.job(attempt.id)).result == b'{"failed":1}'
        await jobs.promote()
        (again,) = await jobs.claim(ALL)
        assert again.result is None
        assert (await jobs.job(attempt.id)).result is None

    async def test_it_stays_with_a_job_that_failed(self, jobs, start):
        attempt = await start()
        await jobs.fail(attempt, self.PARTS)
        failed = await jobs.job(attempt.id)
        assert (failed.state, failed.result) == (JobState.FAILED, b'{"failed":1}')


class TestLooking:
    """The dispatcher is woken by every commit: where there is nothing to do, nothing is written."""

    async def test_nothing_is_written_where_nothing_is_ready_or_due(self, jobs, database, start):
        attempt = await start()
        await jobs.back_off(attempt, FAILURE, 10.0, burned=True)
        assert await jobs.promote() == 10.0
        assert list(await jobs.claim(ALL)) == []
        await database.close()
        assert await jobs.promote() == 10.0
        assert list(await jobs.claim(ALL)) == []

    async def test_nothing_is_written_where_no_slot_is_free(self, jobs, database, wish):
        await jobs.enqueue(wish())
        await database.close()
        assert list(await jobs.claim({Lane.PACK: 0})) == []

    async def test_what_waits_for_a_lock_that_runs_is_not_looked_at(self, jobs, database, wish):
        await jobs.enqueue(wish("a", lock="same"))
        await jobs.claim(ALL)
        assert list(await jobs.claim(ALL)) == []
        await jobs.enqueue(wish("b", lock="same"))
        await database.close()
        assert list(await jobs.claim(ALL)) == []

    @ENDS
    async def test_an_end_lets_what_waits_for_its_lock_begin(self, jobs, wish, end):
        await jobs.enqueue(wish("a", lock="same"))
        (first,) = await jobs.claim(ALL)
        waiting = await jobs.enqueue(wish("b", lock="same", lane=Lane.PUSH))
        assert list(await jobs.claim(ALL)) == []
        await end(jobs, first)
        assert waiting.id in [job.id for job in await jobs.claim({Lane.PUSH: 1})]

    async def test_ten_thousand_jobs_behind_a_lock_hold_up_nobody(self, jobs, wish, database):
        """Skipping ten thousand takes about a millisecond: the index knows all that forbids it."""
        async with asyncio.TaskGroup() as group:
            for n in range(10_000):
                group.create_task(jobs.enqueue(wish(str(n), lock="same", project="many")))
        await jobs.claim({Lane.PACK: 1})
        await jobs.enqueue(wish("other", project="other", priority=-1))
        began = time.perf_counter()
        claimed = await jobs.claim({Lane.PACK: 2})
        assert [job.key for job in claimed] == ["other"]
        assert time.perf_counter() - began < 5


class TestPlans:
    """No call looks through the jobs that ended: they only ever become more."""

    @pytest.fixture
    async def plans(self, database, sql):
        """Return how SQLite goes about every statement that a call runs."""

        async def plans(call) -> list[str]:
            statements = []
            await database.write(lambda c: c.set_trace_callback(statements.append))
            await call
            await database.write(lambda c: c.set_trace_callback(None))
            asked = [
                s for s in statements if s.startswith(("SELECT", "INSERT", "UPDATE", "DELETE"))
            ]
            return [row[3] for each in asked for row in sql(f"EXPLAIN QUERY PLAN {each}")]

        return plans

    def check(self, plans):
        for plan in plans:
            assert "SCAN jobs" not in plan, plans
            assert "SCAN waiting" not in plan, plans
            assert "TEMP B-TREE" not in plan, plans

    async def test_asking(self, jobs, wish, plans):
        self.check(await plans(jobs.enqueue(wish(), IdempotencyKey(1, "k", "f"))))
        self.check(await plans(jobs.enqueue(wish(priority=10))))
        self.check(await plans(jobs.enqueue(wish(args=b"2"))))

    async def test_claiming(self, jobs, wish, plans):
        await jobs.enqueue(wish())
        seen = await plans(jobs.claim({Lane.PACK: 1}))
        self.check(seen)
        assert "SEARCH waiting USING COVERING INDEX jobs_ready (lane=?)" in seen

    async def test_claiming_what_is_least_urgent(self, jobs, wish, plans):
        for n in range(4):
            await jobs.enqueue(wish(str(n)))
        await jobs.claim({Lane.PACK: 3})
        seen = await plans(jobs.claim({Lane.PACK: 1}))
        self.check(seen)
        assert "SEARCH waiting USING COVERING INDEX jobs_least_urgent (lane=?)" in seen

    async def test_promoting(self, jobs, start, clock, plans):
        await jobs.back_off(await start(), FAILURE, 1.0, burned=True)
        clock.advance(1)
        self.check(await plans(jobs.promote()))

    @pytest.mark.parametrize("end", [give_up, come_back, step_aside, interrupt, succeed, cancelled])
    async def test_ending(self, jobs, start, plans, end):
        self.check(await plans(end(jobs, await start())))

    async def test_recovering(self, start, next_life, plans):
        await start()
        self.check([plan for plan in await plans(next_life.recover()) if "epochs" not in plan])

    @pytest.mark.parametrize(
        ("wanted", "index"),
        [
            (JobFilter(), "SCAN jobs"),
            (JobFilter(before=9), "INTEGER PRIMARY KEY"),
            (JobFilter(state=JobState.CANCELLED), "jobs_by_state"),
            (JobFilter(state=JobState.CANCELLED, kind="pack"), "jobs_by_state"),
            (JobFilter(kind="pack"), "jobs_by_kind"),
            (JobFilter(kind="pack", project="p"), "jobs_by_project"),
        ],
        ids=["all", "before", "state", "state and kind", "kind", "project"],
    )
    async def test_listing(self, jobs, database, sql, wanted, index):
        """The newest of all are the last of the table; the rest is looked up and never sorted."""
        asked = []
        await database._reader.set_trace_callback(asked.append)
        await jobs.list(wanted)
        (statement,) = asked
        (plan,) = [row[3] for row in sql(f"EXPLAIN QUERY PLAN {statement}")]
        assert index in plan


class TestPoison:
    """A job that a process dies of again and again is set aside, and no other."""

    async def crash(self, clock, database, epoch):
        """Let the daemon die and return its next life's queue."""
        life = JobLedger(database, clock, epoch)
        await life.recover()
        return life

    async def test_the_third_death_in_a_row_sets_a_job_aside(
        self, jobs, wish, clock, database, events, told
    ):
        job = await jobs.enqueue(wish())
        life = jobs
        for death in (1, 2, 3):
            (attempt,) = await life.claim(ALL)
            assert attempt.attempt == 1
            life = await self.crash(clock, database, 1 + death)
            job = await life.job(job.id)
            assert job.crashes == death
        assert (job.state, job.error.code) == (JobState.FAILED, "poison")
        assert "3 times" in job.error.message
        assert job.error.hint == f"kitctl jobs retry {job.id} once the cause is gone"
        assert told(job)[-2:] == ["job.started", "job.failed"]
        assert list(await life.claim(ALL)) == []

    async def test_a_worker_that_dies_counts_as_kitd_does(self, jobs, start, clock, next_life):
        attempt = await start()
        await jobs.back_off(attempt, FAILURE, 0.0, burned=True, crashed=True)
        await jobs.promote()
        (attempt,) = await jobs.claim(ALL)
        assert (attempt.crashes, attempt.attempt) == (1, 2)
        await next_life.recover()
        assert (await jobs.job(attempt.id)).crashes == 2

    async def test_an_end_in_good_order_forgives(self, jobs, start):
        attempt = await start()
        await jobs.back_off(attempt, FAILURE, 0.0, burned=True, crashed=True)
        await jobs.promote()
        (attempt,) = await jobs.claim(ALL)
        await jobs.back_off(attempt, FAILURE, 0.0, burned=True)
        assert (await jobs.job(attempt.id)).crashes == 0

    async def test_a_stop_is_no_crash_and_proves_nothing(
        self, jobs, start, clock, database, sql, next_life
    ):
        """Neither an attempt that was put back, nor one that the stop had to leave behind."""
        attempt = await start()
        await jobs.back_off(attempt, FAILURE, 0.0, burned=True, crashed=True)
        await jobs.promote()
        (attempt,) = await jobs.claim(ALL)
        await jobs.interrupt(attempt)
        assert (await jobs.job(attempt.id)).crashes == 1
        await jobs.claim(ALL)
        sql("INSERT INTO epochs VALUES (1, 1, 'x', 1, 2)")
        assert await next_life.recover() == 1
        job = await jobs.job(attempt.id)
        assert (job.state, job.crashes) == (JobState.READY, 1)

    async def test_one_suspect_runs_at_a_time_and_alone_is_blamed(
        self, jobs, wish, clock, database
    ):
        keys = ["a", "b", "c"]
        for key in keys:
            await jobs.enqueue(wish(key))
        life = jobs
        for epoch in (2, 3):
            assert len(await life.claim(ALL)) == 3
            life = await self.crash(clock, database, epoch)
        fresh = await life.enqueue(wish("fresh"))
        first, other = await life.claim(ALL)
        assert (first.key, other.id) == ("a", fresh.id)
        # An end in good order clears it, and the next suspect may show what it does.
        await life.succeed(first, b"{}", (), ())
        (second,) = await life.claim(ALL)
        assert second.key == "b"
        life = await self.crash(clock, database, 4)
        assert (await life.job(second.id)).error.code == "poison"
        assert (await life.job(fresh.id)).crashes == 0
        assert [job.key for job in await life.claim(ALL)] == ["c", "fresh"]

    async def test_a_suspect_waits_across_lanes(self, jobs, wish, clock, database, sql):
        await jobs.enqueue(wish("a"))
        await jobs.enqueue(wish("b", lane=Lane.PUSH))
        sql("UPDATE jobs SET crashes = 2")
        (first,) = await jobs.claim(ALL)
        assert list(await jobs.claim(ALL)) == []
        await jobs.succeed(first, b"{}", (), ())
        assert len(await jobs.claim(ALL)) == 1

    async def test_what_replaces_a_suspect_is_one(self, jobs, wish, sql):
        old = await jobs.enqueue(wish(args=b"1"))
        sql("UPDATE jobs SET crashes = 2")
        new = await jobs.enqueue(wish(args=b"2"))
        assert (new.id != old.id, new.crashes) == (True, 2)

    async def test_what_waits_behind_a_suspect_is_one_once_it_takes_its_place(
        self, jobs, start, wish, next_life
    ):
        running = await start()
        waiting = await jobs.enqueue(wish(args=b"2"))
        await next_life.recover()
        assert (await jobs.job(running.id)).state is JobState.SUPERSEDED
        assert (await jobs.job(waiting.id)).crashes == 1

    async def test_kitd_itself_does_not_ask_again_for_what_was_set_aside(self, jobs, start, wish):
        """Else a watched project would take kitd down again after every start."""
        attempt = await start(args=b"1")
        await jobs.fail(attempt, Failure("poison", "set aside"))
        assert (await jobs.enqueue(wish(args=b"1"))).id == attempt.id
        assert list(await jobs.claim(ALL)) == []
        other = await jobs.enqueue(wish(args=b"2"))
        assert other.id != attempt.id
        await jobs.request_cancel(other.id)
        assert (await jobs.enqueue(wish(args=b"1", asked_by=7))).id > other.id

    async def test_a_person_may_try_it_again(self, jobs, start, next_life):
        attempt = await start()
        await jobs.fail(attempt, Failure("poison", "set aside"))
        job = await jobs.retry(attempt.id)
        assert (job.state, job.crashes, job.error) == (JobState.READY, 0, None)

    async def test_a_job_that_was_to_be_cancelled_is_cancelled_and_not_set_aside(
        self, jobs, start, next_life, sql
    ):
        attempt = await start()
        sql("UPDATE jobs SET crashes = 2")
        await jobs.request_cancel(attempt.id)
        await next_life.recover()
        assert (await jobs.job(attempt.id)).state is JobState.CANCELLED


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
        nameless = Emit(None, "kit:x")
        with pytest.raises(sqlite3.IntegrityError):
            await jobs.succeed(
                attempt, b"{}", (Emit("kit.packed", "kit:x"), nameless), (wish("b"),)
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
        assert await jobs.promote() == (due_us - clock.at_us) / 1_000_000
        clock.advance(2.499)
        assert await jobs.promote() == (due_us - clock.at_us) / 1_000_000
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
        assert await jobs.promote() == 10.0
        clock.advance(10)
        assert await jobs.promote() == 20.0

    @pytest.mark.parametrize("back_s", [5, 3_600, 86_400])
    async def test_a_clock_that_goes_back_keeps_no_job_waiting(self, jobs, start, clock, back_s):
        """What was to run in minutes runs in minutes, whatever the clock says by then."""
        attempt = await start()
        await jobs.back_off(attempt, FAILURE, 900.0, burned=True)
        assert await jobs.promote() == 900.0
        clock.advance(-back_s)
        assert await jobs.promote() == 900.0
        clock.advance(899)
        assert await jobs.promote() == 1.0
        clock.advance(1)
        assert await jobs.promote() is None
        (again,) = await jobs.claim(ALL)
        assert again.id == attempt.id

    async def test_a_clock_that_goes_forward_loses_no_job(self, jobs, start, wish, clock, told):
        """A day asleep: what was to wait is due, once, and what runs goes on."""
        running = await start("a")
        waiting = await start("b")
        await jobs.back_off(waiting, FAILURE, 900.0, burned=True)
        clock.advance(86_400)
        assert await jobs.promote() is None
        assert await jobs.promote() is None
        assert told(waiting) == ["job.created", "job.started", "job.retrying", "job.due"]
        (again,) = await jobs.claim(ALL)
        assert (again.id, again.attempt) == (waiting.id, 2)
        await jobs.succeed(running, b"{}", (), ())

    async def test_a_clock_that_went_back_between_two_lives_keeps_no_job_waiting(
        self, jobs, start, clock, database
    ):
        attempt = await start()
        await jobs.back_off(attempt, FAILURE, 900.0, burned=True)
        clock.advance(-86_400)
        next_life = JobLedger(database, clock, epoch=2)
        assert await next_life.promote() is None
        assert [job.id for job in await next_life.claim(ALL)] == [attempt.id]

    async def test_a_clock_that_is_set_right_moves_nothing(self, jobs, start, clock):
        attempt = await start()
        await jobs.back_off(attempt, FAILURE, 10.0, burned=True)
        clock.advance(-0.5)
        assert await jobs.promote() == 10.5

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

    async def test_it_may_be_brought_back_with_less(self, jobs, start, wish):
        attempt = await start("wide", args=b"wide")
        await jobs.fail(attempt, FAILURE)
        job = await jobs.retry(attempt.id, wish("narrow", args=b"narrow"))
        assert (job.id, job.args, job.key) == (attempt.id, b"narrow", wish("narrow").key)
        await jobs.request_cancel(job.id)
        waiting = await jobs.enqueue(wish("narrow", args=b"narrow"))
        assert await jobs.retry(attempt.id, wish("narrow", args=b"narrow")) == waiting

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
