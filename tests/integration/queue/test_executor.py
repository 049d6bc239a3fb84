"""The executor over a real ledger: what it starts, what it makes of each end, how it stops."""

import asyncio
import json
from dataclasses import replace

import msgspec
import pytest

from kitd.clock import SystemClock
from kitd.errors import Disposition, DurabilityError, KitdError, UnavailableError
from kitd.ledger.failure import LedgerError, LedgerFullError
from kitd.ledger.job_ledger import JobLedger
from kitd.oci.reference import parse_reference
from kitd.queue.effect import Emit
from kitd.queue.fact import PullAsked
from kitd.queue.job import JobState, Lane, Progress
from kitd.queue.kind import Done


class Result(msgspec.Struct, frozen=True):
    name: str


class InvalidError(KitdError):
    code = "invalid_input"


class MovedError(KitdError):
    code = "input_changed"
    disposition = Disposition.SNOOZE


class GoneError(KitdError):
    code = "input_changed"
    disposition = Disposition.STEP_ASIDE


class FullError(KitdError):
    code = "no_space"
    disposition = Disposition.PAUSE


class Relay:
    """A store that hands everything on to the ledger; tests change one call of it."""

    def __init__(self, jobs: JobLedger) -> None:
        self._jobs = jobs
        self.calls: list[str] = []

    async def promote(self):
        return await self.call("promote")

    async def claim(self, lanes):
        return await self.call("claim", lanes)

    async def succeed(self, attempt, result, effects, requests):
        return await self.call("succeed", attempt, result, effects, requests)

    async def fail(self, attempt, failure):
        return await self.call("fail", attempt, failure)

    async def back_off(self, attempt, failure, delay_s, *, burned, crashed):
        return await self.call(
            "back_off", attempt, failure, delay_s, burned=burned, crashed=crashed
        )

    async def step_aside(self, attempt, failure):
        return await self.call("step_aside", attempt, failure)

    async def interrupt(self, attempt):
        return await self.call("interrupt", attempt)

    async def cancelled(self, attempt):
        return await self.call("cancelled", attempt)

    async def paused(self, reason):
        return await self.call("paused", reason)

    async def resumed(self):
        return await self.call("resumed")

    async def call(self, name, *arguments, **named):
        self.calls.append(name)
        return await getattr(self._jobs, name)(*arguments, **named)


class FullDisk(Relay):
    """A ledger that cannot be written the first few times that something is asked of it."""

    def __init__(self, jobs, name, times=1, error=LedgerError):
        super().__init__(jobs)
        self.name, self.times, self.error = name, times, error

    async def call(self, name, *arguments, **named):
        if name == self.name and self.times:
            self.times -= 1
            self.calls.append(name)
            raise self.error("the ledger cannot be written: disk is full")
        return await super().call(name, *arguments, **named)


async def test_jobs_run_and_their_results_are_kept(jobs, executing, until, request_of):
    early = await jobs.enqueue(request_of("early"))
    async with executing():
        late = await jobs.enqueue(request_of("late", lane=Lane.PUSH))
        for job in await until(JobState.SUCCEEDED, early, late):
            assert json.loads(job.result) == {"name": json.loads(job.args)["name"]}


async def test_a_lane_never_has_more_jobs_than_slots(
    jobs, executing, until, request_of, stage, poll
):
    names = [f"job{number}" for number in range(6)]
    gates = [stage.gate(name) for name in names]
    waiting = [await jobs.enqueue(request_of(name)) for name in names]
    async with executing(slots={Lane.PACK: 2, Lane.PUSH: 1, Lane.PULL: 0}):
        pulled = await jobs.enqueue(request_of("pull", lane=Lane.PULL))
        pushed = await jobs.enqueue(request_of("push", lane=Lane.PUSH))
        # A full lane does not hold up another one.
        await until(JobState.SUCCEEDED, pushed)
        await poll(lambda: stage.inside == {"job0", "job1"})
        for gate in gates:
            gate.set()
        await until(JobState.SUCCEEDED, *waiting)
        assert stage.most_inside <= 3
        assert (await jobs.job(pulled.id)).state is JobState.READY


async def test_jobs_of_one_lock_never_meet(jobs, executing, until, request_of, stage):
    waiting = [await jobs.enqueue(request_of(str(n), lock="same")) for n in range(5)]
    async with executing():
        await until(JobState.SUCCEEDED, *waiting)
    assert stage.most_inside == 1
    assert stage.entered == list("01234")


async def test_a_passing_error_is_tried_again_until_it_has_passed(
    jobs, executing, until, request_of, stage
):
    stage.script["a"] = [UnavailableError("away"), UnavailableError("away")]
    job = await jobs.enqueue(request_of("a"))
    async with executing():
        (job,) = await until(JobState.SUCCEEDED, job)
    assert (job.attempt, job.error, stage.entered) == (3, None, ["a", "a", "a"])


async def test_patience_ends(jobs, executing, until, request_of, stage):
    stage.script["a"] = [UnavailableError("away", hint="wait")] * 9
    job = await jobs.enqueue(request_of("a"))
    async with executing():
        (job,) = await until(JobState.FAILED, job)
    assert (job.attempt, len(stage.entered)) == (3, 3)
    assert (job.error.code, job.error.message, job.error.hint) == ("unavailable", "away", "wait")


async def test_what_cannot_get_better_is_tried_once(jobs, executing, until, request_of, stage):
    stage.script["a"] = [InvalidError("no Kitfile")]
    job = await jobs.enqueue(request_of("a"))
    async with executing():
        (job,) = await until(JobState.FAILED, job)
    assert (job.error.code, stage.entered) == ("invalid_input", ["a"])


async def test_an_input_that_moved_waits_and_burns_nothing(
    jobs, executing, until, request_of, stage
):
    stage.script["a"] = [MovedError("weights.bin changed")]
    job = await jobs.enqueue(request_of("a"))
    async with executing():
        (job,) = await until(JobState.SCHEDULED, job)
    assert (job.attempt, job.claim) == (0, 1)


async def test_a_job_whose_reason_is_gone_ends_and_says_why(
    jobs, events, executing, until, request_of, stage, poll
):
    """Nothing of it waits any more; who wants it again gets another job."""
    stage.script["a"] = [GoneError("a changed since it came to rest", hint="wait")]
    ended = []
    job = await jobs.enqueue(request_of("a"))
    async with executing(finished=ended.append):
        (job,) = await until(JobState.SUPERSEDED, job)
        await poll(lambda: ended)
        again = await jobs.enqueue(request_of("a"))
        assert again.id != job.id
        await until(JobState.SUCCEEDED, again)
    assert (job.error.code, job.error.hint, job.superseded_by) == ("input_changed", "wait", None)
    assert stage.entered == ["a", "a"]
    assert [event.type for event in await events.of_job(job.id)][-1] == "job.superseded"


async def test_a_job_that_steps_aside_leaves_the_field_to_a_newer_wish(
    jobs, executing, until, request_of, stage, poll
):
    gate = stage.gate("a")
    stage.script["a"] = [GoneError("a changed since it came to rest")]
    job = await jobs.enqueue(request_of("a"))
    async with executing():
        await poll(lambda: stage.inside)
        newer = await jobs.enqueue(request_of("a"))
        gate.set()
        (job,) = await until(JobState.SUPERSEDED, job)
        await until(JobState.SUCCEEDED, newer)
    assert job.superseded_by == newer.id


async def test_a_job_that_steps_aside_after_it_was_cancelled_is_cancelled(
    jobs, executing, until, request_of, stage, poll
):
    gate = stage.gate("a")
    stage.script["a"] = [GoneError("a changed since it came to rest")]
    job = await jobs.enqueue(request_of("a"))
    async with executing():
        await poll(lambda: stage.inside)
        await jobs.request_cancel(job.id)
        gate.set()
        await until(JobState.CANCELLED, job)


async def test_a_defect_fails_its_job_and_nothing_else(jobs, executing, until, request_of, stage):
    stage.script["a"] = [ZeroDivisionError("division by zero")]
    job = await jobs.enqueue(request_of("a"))
    async with executing():
        (job,) = await until(JobState.FAILED, job)
        other = await jobs.enqueue(request_of("b"))
        await until(JobState.SUCCEEDED, other)
    assert job.error.code == "internal"
    assert "ZeroDivisionError" in job.error.message


@pytest.mark.parametrize(
    "done",
    [
        pytest.param(Done(Result("a"), (Emit(None, "x"),)), id="an effect that breaks a rule"),
        pytest.param(
            Done(Result("a"), (), (PullAsked(parse_reference("x")),)), id="a fact nobody follows"
        ),
        pytest.param(Done(object()), id="a result that cannot be written"),
    ],
)
async def test_an_end_that_cannot_be_written_fails_its_job_and_nothing_else(
    jobs, executing, until, request_of, stage, done
):
    def follow(fact):
        raise LookupError(fact)

    stage.script["a"] = [done]
    job = await jobs.enqueue(request_of("a"))
    async with executing(follow=follow):
        (job,) = await until(JobState.FAILED, job)
        other = await jobs.enqueue(request_of("b"))
        await until(JobState.SUCCEEDED, other)
    assert job.error.code == "internal"
    assert job.result is None


async def test_a_kind_of_another_version_fails_its_job(jobs, executing, until, request_of):
    request = request_of("a")
    job = await jobs.enqueue(type(request)(**{**fields_of(request), "kind": "teleport"}))
    async with executing():
        (job,) = await until(JobState.FAILED, job)
    assert job.error.code == "unknown_kind"
    assert "teleport" in job.error.message


def fields_of(request):
    return {name: getattr(request, name) for name in request.__dataclass_fields__}


async def test_what_follows_is_enqueued_with_the_end(jobs, executing, until, request_of, stage):
    stage.script["a"] = [
        Done(Result("a"), (Emit("told", "x"),), (PullAsked(parse_reference("x")),))
    ]

    def follow(_fact):
        return (request_of("b"), request_of("c", lane=Lane.PUSH))

    job = await jobs.enqueue(request_of("a"))
    async with executing(follow=follow):
        (job,) = await until(JobState.SUCCEEDED, job)
        followers = [await jobs.job(follower) for follower in job.followed_by]
        await until(JobState.SUCCEEDED, *followers)
    assert [follower.key for follower in followers] == ["act-pack:b", "act-push:c"]


async def test_what_follows_is_his_who_asked(jobs, executing, until, request_of, stage):
    """Though nobody is named by the fact that it follows from."""
    stage.script["a"] = [Done(Result("a"), (), (PullAsked(parse_reference("x")),))]
    job = await jobs.enqueue(replace(request_of("a"), asked_by=1000))
    async with executing(follow=lambda _fact: (request_of("b"),)):
        (job,) = await until(JobState.SUCCEEDED, job)
        (follower,) = await until(JobState.SUCCEEDED, await jobs.job(*job.followed_by))
    assert (follower.asked_by, follower.owner) == (1000, "user:1000")


async def test_progress_is_seen_while_a_job_runs(jobs, executing, until, request_of, stage, poll):
    gate = stage.gate("a")
    heard, ended = [], []
    job = await jobs.enqueue(request_of("a"))
    async with executing(
        progress=lambda job, progress: heard.append((job.id, progress)), finished=ended.append
    ) as executor:
        await poll(lambda: stage.inside)
        assert executor.progress_of(job.id) is None
        stage.contexts["a"].report(Progress("packing", 3, 9))
        assert executor.progress_of(job.id) == Progress("packing", 3, 9)
        gate.set()
        await until(JobState.SUCCEEDED, job)
        await poll(lambda: ended)
        assert executor.progress_of(job.id) is None
    assert heard == [(job.id, Progress("packing", 3, 9))]
    assert [job.id for job in ended] == [job.id]


async def test_an_idle_executor_is_not_woken_by_its_own_looking(
    jobs, database, executing, until, request_of
):
    store = Relay(jobs)
    async with executing(store):
        job = await jobs.enqueue(request_of("a"))
        await until(JobState.SUCCEEDED, job)
        for _ in range(300):
            await database.write(lambda connection: connection.execute("SELECT 1").fetchone())
        assert store.calls.count("promote") < 10


async def test_a_running_job_is_cancelled(jobs, executing, until, request_of, stage, poll):
    stage.gate("a")
    job = await jobs.enqueue(request_of("a"))
    async with executing() as executor:
        await poll(lambda: stage.inside)
        await jobs.request_cancel(job.id)
        executor.cancel(job.id)
        executor.cancel(job.id)
        (job,) = await until(JobState.CANCELLED, job)
        await poll(lambda: not stage.inside)
        # Its slot and its lock are free again.
        del stage.gates["a"]
        again = await jobs.enqueue(request_of("a"))
        await until(JobState.SUCCEEDED, again)


async def test_cancelling_what_does_not_run_is_nothing(jobs, executing, until, request_of):
    async with executing() as executor:
        executor.cancel(999)
        job = await jobs.enqueue(request_of("a"))
        await until(JobState.SUCCEEDED, job)
        executor.cancel(job.id)


async def test_a_job_is_cancelled_between_its_claim_and_its_first_step(
    jobs, executing, until, request_of, stage
):
    class CancelAtOnce(Relay):
        async def claim(self, lanes):
            claimed = await super().claim(lanes)
            for job in claimed:
                await jobs.request_cancel(job.id)
                asyncio.get_running_loop().call_soon(lambda job=job: executor.cancel(job.id))
            return claimed

    job = await jobs.enqueue(request_of("a"))
    async with executing(CancelAtOnce(jobs)) as executor:
        await until(JobState.CANCELLED, job)
    assert stage.entered == []


async def test_an_attempt_that_fails_because_it_was_cancelled_is_cancelled(
    jobs, executing, until, request_of, stage, poll
):
    gate = stage.gate("a")
    stage.script["a"] = [UnavailableError("the worker is gone")]
    job = await jobs.enqueue(request_of("a"))
    async with executing():
        await poll(lambda: stage.inside)
        await jobs.request_cancel(job.id)
        gate.set()
        await until(JobState.CANCELLED, job)
    assert stage.entered == ["a"]


async def test_stopping_puts_running_jobs_back_unburned(
    jobs, executing, until, request_of, stage, poll
):
    for name in "ab":
        stage.gate(name)
    running = [await jobs.enqueue(request_of(name)) for name in "ab"]
    async with executing():
        await poll(lambda: stage.inside == {"a", "b"})
    for job in await until(JobState.READY, *running):
        assert (job.attempt, job.claim) == (0, 1)
    assert await jobs.recover() == 0
    stage.gates.clear()
    async with executing():
        await until(JobState.SUCCEEDED, *running)


async def test_stopping_does_not_wait_for_a_full_disk(
    jobs, database, executing, request_of, stage, poll
):
    """The job stays running in the ledger, where the next life finds it."""
    stage.gate("a")
    job = await jobs.enqueue(request_of("a"))
    async with executing(FullDisk(jobs, "interrupt")):
        await poll(lambda: stage.inside)
    assert (await jobs.job(job.id)).state is JobState.RUNNING
    assert await JobLedger(database, SystemClock(), epoch=2).recover() == 1


@pytest.mark.parametrize(
    ("call", "outcome", "state"),
    [
        ("succeed", Done(Result("a")), JobState.SUCCEEDED),
        ("fail", InvalidError("no"), JobState.FAILED),
        ("back_off", MovedError("moved"), JobState.SCHEDULED),
        ("step_aside", GoneError("gone"), JobState.SUPERSEDED),
        ("promote", Done(Result("a")), JobState.SUCCEEDED),
        ("claim", Done(Result("a")), JobState.SUCCEEDED),
    ],
)
async def test_a_full_disk_is_waited_for(
    jobs, executing, until, request_of, stage, call, outcome, state
):
    """An attempt's end is written late rather than lost, and the work is not done twice."""
    stage.script["a"] = [outcome]
    store = FullDisk(jobs, call)
    job = await jobs.enqueue(request_of("a"))
    async with executing(store):
        await until(state, job)
    assert stage.entered == ["a"]
    assert store.calls.count(call) >= 2


async def test_a_cancellation_is_written_once_the_disk_takes_it(
    jobs, executing, until, request_of, stage, poll
):
    stage.gate("a")
    store = FullDisk(jobs, "cancelled")
    job = await jobs.enqueue(request_of("a"))
    async with executing(store) as executor:
        await poll(lambda: stage.inside)
        await jobs.request_cancel(job.id)
        executor.cancel(job.id)
        await poll(lambda: "cancelled" in store.calls)
        # A person who asks twice does not cut the writing short.
        executor.cancel(job.id)
        await until(JobState.CANCELLED, job)


async def test_an_unknown_kind_is_written_once_the_disk_takes_it(
    jobs, executing, until, request_of
):
    request = request_of("a")
    job = await jobs.enqueue(type(request)(**{**fields_of(request), "kind": "teleport"}))
    async with executing(FullDisk(jobs, "fail")):
        await until(JobState.FAILED, job)


async def test_an_attempt_that_was_given_up_changes_nothing(
    jobs, database, executing, until, request_of, stage, poll
):
    """Another life took the job over: the late success is dropped, and the executor goes on."""
    gate = stage.gate("a")
    job = await jobs.enqueue(request_of("a"))
    # One slot, so that this executor does not take the job over from itself.
    async with executing(slots={Lane.PACK: 1, Lane.PUSH: 1}):
        await poll(lambda: stage.inside)
        other_life = JobLedger(database, SystemClock(), epoch=2)
        await other_life.recover()
        (taken,) = await other_life.claim({Lane.PACK: 1})
        gate.set()
        other = await jobs.enqueue(request_of("b", lane=Lane.PUSH))
        await until(JobState.SUCCEEDED, other)
        assert await jobs.job(job.id) == taken


class TestPause:
    """Where there is no room nothing begins, nothing burns, and all goes on by itself."""

    async def test_a_full_disk_pauses_all_but_the_collection(
        self, jobs, executing, until, request_of, stage, poll, room, sql
    ):
        stage.script["a"] = [FullError("the disk is full", hint="free some")]
        job = await jobs.enqueue(request_of("a"))
        async with executing() as executor:
            await poll(lambda: room.looks)
            assert (executor.paused.code, executor.paused.hint) == ("no_space", "free some")
            (job,) = await until(JobState.SCHEDULED, job)
            assert (job.attempt, job.claim, job.error.code) == (0, 1, "no_space")
            waiting = await jobs.enqueue(request_of("b", lane=Lane.PUSH))
            collect = await jobs.enqueue(request_of("c", lane=Lane.COLLECT))
            await until(JobState.SUCCEEDED, collect)
            assert (await jobs.job(waiting.id)).state is JobState.READY
            room.back.set()
            await until(JobState.SUCCEEDED, job, waiting)
            assert executor.paused is None
        assert stage.entered == ["a", "c", "b", "a"]
        told = sql("SELECT type, subject, data FROM events WHERE type LIKE 'queue.%'")
        assert [kind for kind, _, _ in told] == ["queue.paused", "queue.resumed"]
        assert told[0][1] == "queue"
        assert json.loads(told[0][2])["message"] == "the disk is full"

    async def test_many_that_find_no_room_pause_once(
        self, jobs, executing, until, request_of, stage, room, sql
    ):
        names = "abcd"
        for name in names:
            stage.script[name] = [FullError("full")]
        waiting = [await jobs.enqueue(request_of(name)) for name in names]
        async with executing():
            await until(JobState.SCHEDULED, *waiting)
            room.back.set()
            await until(JobState.SUCCEEDED, *waiting)
        assert room.ways_made == 1
        assert sql("SELECT count(*) FROM events WHERE type = 'queue.paused'") == [(1,)]

    async def test_a_ledger_that_is_full_pauses_and_is_given_way(
        self, jobs, executing, until, request_of, room, poll
    ):
        """The end that found no room is written all the same, with what was kept back."""

        class Full(Relay):
            async def succeed(self, *arguments):
                self.calls.append("succeed")
                if not room.ways_made:
                    raise LedgerFullError("database or disk is full")
                await jobs.succeed(*arguments)

        store = Full(jobs)
        job = await jobs.enqueue(request_of("a"))
        async with executing(store) as executor:
            await until(JobState.SUCCEEDED, job)
            assert executor.paused is not None
            room.back.set()
            await poll(lambda: executor.paused is None)
        assert store.calls.count("succeed") == 2

    @pytest.mark.parametrize("call", ["promote", "claim"])
    async def test_a_ledger_that_is_full_where_work_is_looked_for(
        self, jobs, executing, until, request_of, room, call
    ):
        room.back.set()
        store = FullDisk(jobs, call, error=LedgerFullError)
        job = await jobs.enqueue(request_of("a"))
        async with executing(store):
            await until(JobState.SUCCEEDED, job)
        assert room.ways_made == 1

    async def test_nothing_that_is_only_told_keeps_the_queue_paused(
        self, jobs, executing, until, request_of, room, stage
    ):
        stage.script["a"] = [FullError("full")]
        room.back.set()
        job = await jobs.enqueue(request_of("a"))
        async with executing(FullDisk(jobs, "paused", error=LedgerFullError)):
            await until(JobState.SUCCEEDED, job)

    async def test_a_paused_queue_stops(self, jobs, executing, request_of, stage, room, poll):
        stage.script["a"] = [FullError("full")]
        await jobs.enqueue(request_of("a"))
        async with executing():
            await poll(lambda: room.looks)

    async def test_an_attempt_that_finds_no_room_as_kitd_stops(
        self, jobs, executing, request_of, stage, poll
    ):
        async def fill():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise FullError("full") from None

        stage.works["a"] = fill
        job = await jobs.enqueue(request_of("a"))
        async with executing():
            await poll(lambda: stage.inside)
        assert (await jobs.job(job.id)).state is JobState.SCHEDULED


async def test_what_is_fatal_ends_the_executor_and_leaves_the_attempt_running(
    jobs, executor_over, request_of, stage
):
    """Whether its effects are durable is for the next life to find out."""
    stage.script["a"] = [DurabilityError("fsync of /cache failed: Input/output error")]
    job = await jobs.enqueue(request_of("a"))
    async with asyncio.timeout(10):
        with pytest.raises(ExceptionGroup) as caught:
            await executor_over().run()
    (error,) = caught.value.exceptions
    assert isinstance(error, DurabilityError)
    assert (await jobs.job(job.id)).state is JobState.RUNNING


async def test_a_job_whose_process_dies_three_times_is_set_aside(
    jobs, executing, until, request_of, stage
):
    class DeadError(KitdError):
        code = "worker_died"
        disposition = Disposition.CRASH

    stage.script["a"] = [DeadError("it died")] * 9
    job = await jobs.enqueue(request_of("a"))
    async with executing():
        (job,) = await until(JobState.FAILED, job)
        other = await jobs.enqueue(request_of("b"))
        await until(JobState.SUCCEEDED, other)
    assert (job.error.code, len(stage.entered)) == ("poison", 4)
    assert "it died" in job.error.message


async def test_slots_change_while_jobs_run(jobs, executing, until, request_of, stage, poll):
    gates = [stage.gate(name) for name in "abcd"]
    waiting = [await jobs.enqueue(request_of(name)) for name in "abcd"]
    async with executing(slots={Lane.PACK: 1}) as executor:
        await poll(lambda: len(stage.inside) == 1)
        executor.resize({Lane.PACK: 3})
        await poll(lambda: len(stage.inside) == 3)
        executor.resize({Lane.PACK: 1})
        for gate in gates:
            gate.set()
        await until(JobState.SUCCEEDED, *waiting)
    assert stage.most_inside == 3


async def test_work_that_is_cancelled_by_nobody_is_a_defect(
    jobs, executing, until, request_of, stage
):
    stage.script["a"] = [asyncio.CancelledError()]
    job = await jobs.enqueue(request_of("a"))
    async with executing():
        (job,) = await until(JobState.FAILED, job)
    assert job.error.code == "internal"


async def test_what_is_wrong_with_the_ledger_itself_ends_the_executor(jobs, executor_over):
    """Only what may pass is waited for."""

    class Damaged(Relay):
        async def promote(self):
            raise InvalidError("not a ledger")

    async with asyncio.timeout(10):
        with pytest.raises(ExceptionGroup) as caught:
            await executor_over(Damaged(jobs)).run()
    (error,) = caught.value.exceptions
    assert error.code == "invalid_input"
