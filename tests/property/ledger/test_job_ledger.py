"""What the queue promises whatever happens, in whatever order: a real ledger against a dict."""

import asyncio
import shutil
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from kitd.ledger.database import Database
from kitd.ledger.job_ledger import JobLedger
from kitd.queue.job import TERMINAL, WAITING, Failure, Job, JobRequest, JobState, Lane
from kitd.queue.transition import TRANSITIONS, FencedError, IllegalTransitionError

FAILURE = Failure("unavailable", "away")
LOCKS = {"a": "one", "b": "one", "c": "two"}
"""Two keys share a lock."""
LEGAL = {(state, following) for (state, _), following in TRANSITIONS.items()}
RETRYABLE = {JobState.FAILED, JobState.CANCELLED}


class ManualClock:
    """A clock with hands."""

    def __init__(self) -> None:
        self.at_us = 1_000_000

    def now_us(self) -> int:
        return self.at_us

    def monotonic_s(self) -> float:
        return self.at_us / 1_000_000


@dataclass(frozen=True)
class Expected:
    """What the model believes of one job."""

    key: str
    args: bytes
    priority: int
    state: JobState = JobState.READY
    attempt: int = 0
    claim: int = 0
    run_at_us: int = 0
    cancel_requested: bool = False
    successor: int | None = None


class Queue(RuleBasedStateMachine):
    """A queue that people, slots and crashes work on; `jobs` is what should be in it."""

    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp(prefix="kitd-queue-"))
        self.clock = ManualClock()
        self.epoch = 0
        self.jobs: dict[int, Expected] = {}
        self.states: dict[int, JobState] = {}
        self.head_seq = 0
        self.open()

    def open(self) -> None:
        self.epoch += 1
        self.database = Database(self.directory / "ledger.sqlite3")
        self.runner.run(self.database.__aenter__())
        self.ledger = JobLedger(self.database, self.clock, self.epoch)

    def teardown(self) -> None:
        self.runner.run(self.database.close())
        self.runner.close()
        shutil.rmtree(self.directory)

    # What the model knows.

    def change(self, job_id: int, **fields) -> None:
        self.jobs[job_id] = replace(self.jobs[job_id], **fields)

    def waiting(self, key: str) -> int | None:
        found = [i for i, job in self.jobs.items() if job.key == key and job.state in WAITING]
        assert len(found) <= 1
        return found[0] if found else None

    def current(self, attempt: Job) -> bool:
        job = self.jobs[attempt.id]
        return (job.state, job.claim) == (JobState.RUNNING, attempt.claim) and (
            attempt.epoch == self.epoch
        )

    def wait_again(self, job_id: int, state: JobState, **fields) -> None:
        """Expect what follows when a running job wants to come back."""
        other = self.waiting(self.jobs[job_id].key)
        if self.jobs[job_id].cancel_requested:
            self.change(job_id, state=JobState.CANCELLED)
        elif other is not None and other > job_id:
            self.change(job_id, state=JobState.SUPERSEDED, successor=other)
        else:
            if other is not None:
                self.change(other, state=JobState.SUPERSEDED, successor=job_id)
            self.change(job_id, state=state, **fields)

    def end(self, attempt: Job, writing) -> bool:
        """Write an attempt's end; it counts exactly where the attempt is the current one."""
        try:
            self.runner.run(writing)
        except FencedError:
            assert not self.current(attempt)
            return False
        assert self.current(attempt)
        return True

    # What happens.

    @rule(
        key=st.sampled_from(sorted(LOCKS)),
        args=st.sampled_from([b"1", b"2"]),
        priority=st.sampled_from([0, 10]),
    )
    def enqueue(self, key: str, args: bytes, priority: int) -> None:
        request = JobRequest(
            kind="pack",
            lane=Lane.PACK,
            key=key,
            lock=LOCKS[key],
            args=args,
            max_attempts=3,
            priority=priority,
        )
        found = self.runner.run(self.ledger.enqueue(request))
        waiting = self.waiting(key)
        if waiting is not None and self.jobs[waiting].args == args:
            assert found.id == waiting
            urgent = max(priority, self.jobs[waiting].priority)
            self.change(waiting, state=JobState.READY, priority=urgent)
            return
        assert found.id not in self.jobs
        if waiting is not None:
            priority = max(priority, self.jobs[waiting].priority)
            self.change(waiting, state=JobState.SUPERSEDED, successor=found.id)
        self.jobs[found.id] = Expected(key, args, priority)

    @rule(target=attempts, slots=st.integers(1, 3))
    def claim(self, slots: int):
        claimed = self.runner.run(self.ledger.claim({Lane.PACK: slots}))
        busy = {LOCKS[job.key] for job in self.jobs.values() if job.state is JobState.RUNNING}
        expected = []
        for job_id, job in sorted(self.jobs.items(), key=lambda item: (-item[1].priority, item[0])):
            if job.state is JobState.READY and LOCKS[job.key] not in busy and len(expected) < slots:
                busy.add(LOCKS[job.key])
                expected.append(job_id)
        assert [job.id for job in claimed] == expected
        for job in claimed:
            known = self.jobs[job.id]
            self.change(
                job.id, state=JobState.RUNNING, attempt=known.attempt + 1, claim=known.claim + 1
            )
        return multiple(*claimed)

    @rule(attempt=attempts)
    def succeed(self, attempt: Job) -> None:
        if self.end(attempt, self.ledger.succeed(attempt, b"{}", (), ())):
            self.change(attempt.id, state=JobState.SUCCEEDED)

    @rule(attempt=attempts)
    def fail(self, attempt: Job) -> None:
        if self.end(attempt, self.ledger.fail(attempt, FAILURE)):
            self.change(attempt.id, state=JobState.FAILED)

    @rule(attempt=attempts, delay_s=st.sampled_from([0, 1, 60]), burned=st.booleans())
    def back_off(self, attempt: Job, delay_s: int, burned: bool) -> None:
        if self.end(attempt, self.ledger.back_off(attempt, FAILURE, delay_s, burned=burned)):
            job = self.jobs[attempt.id]
            if not burned:
                self.change(attempt.id, attempt=job.attempt - 1)
            run_at_us = self.clock.at_us + delay_s * 1_000_000
            self.wait_again(attempt.id, JobState.SCHEDULED, run_at_us=run_at_us)

    @rule(attempt=attempts)
    def step_aside(self, attempt: Job) -> None:
        if not self.end(attempt, self.ledger.step_aside(attempt, FAILURE)):
            return
        if self.jobs[attempt.id].cancel_requested:
            self.change(attempt.id, state=JobState.CANCELLED)
        else:
            other = self.waiting(self.jobs[attempt.id].key)
            self.change(attempt.id, state=JobState.SUPERSEDED, successor=other)

    @rule(attempt=consumes(attempts))
    def interrupt(self, attempt: Job) -> None:
        if self.end(attempt, self.ledger.interrupt(attempt)):
            burned = self.jobs[attempt.id].attempt
            self.wait_again(attempt.id, JobState.READY, attempt=burned - 1)

    @rule(attempt=attempts)
    def stop_for_a_person(self, attempt: Job) -> None:
        if self.end(attempt, self.ledger.cancelled(attempt)):
            self.change(attempt.id, state=JobState.CANCELLED)

    @rule(pick=st.integers(0, 1000))
    def cancel(self, pick: int) -> None:
        if not self.jobs:
            return
        job_id = sorted(self.jobs)[pick % len(self.jobs)]
        job = self.jobs[job_id]
        try:
            self.runner.run(self.ledger.request_cancel(job_id))
        except IllegalTransitionError:
            assert job.state in TERMINAL
        else:
            assert job.state not in TERMINAL
            if job.state is JobState.RUNNING:
                self.change(job_id, cancel_requested=True)
            else:
                self.change(job_id, state=JobState.CANCELLED)

    @rule(pick=st.integers(0, 1000))
    def retry(self, pick: int) -> None:
        ended = sorted(job_id for job_id, job in self.jobs.items() if job.state in TERMINAL)
        if not ended:
            return
        job_id = ended[pick % len(ended)]
        try:
            found = self.runner.run(self.ledger.retry(job_id))
        except IllegalTransitionError:
            assert self.jobs[job_id].state not in RETRYABLE
            return
        assert self.jobs[job_id].state in RETRYABLE
        waiting = self.waiting(self.jobs[job_id].key)
        assert found.id == (job_id if waiting is None else waiting)
        if waiting is None:
            self.change(job_id, state=JobState.READY, attempt=0, cancel_requested=False)

    @rule(delay_s=st.sampled_from([0, 1, 30, 60]))
    def time_passes(self, delay_s: int) -> None:
        self.clock.at_us += delay_s * 1_000_000
        due_us = self.runner.run(self.ledger.promote())
        for job_id, job in self.jobs.items():
            if job.state is JobState.SCHEDULED and job.run_at_us <= self.clock.at_us:
                self.change(job_id, state=JobState.READY)
        later = [job.run_at_us for job in self.jobs.values() if job.state is JobState.SCHEDULED]
        assert due_us == min(later, default=None)

    @rule()
    def crash(self) -> None:
        """A life ends and leaves its jobs running; the next one puts them back."""
        self.runner.run(self.database.close())
        self.open()
        running = [i for i, job in self.jobs.items() if job.state is JobState.RUNNING]
        assert self.runner.run(self.ledger.recover()) == len(running)
        for job_id in running:
            burned = self.jobs[job_id].attempt
            self.wait_again(job_id, JobState.READY, attempt=burned - 1)

    # What is promised.

    @invariant()
    def the_ledger_is_what_it_should_be(self) -> None:
        """Nothing is lost, nothing is invented, only legal steps were taken, each told once."""
        with closing(sqlite3.connect(self.database.path)) as connection:
            rows = connection.execute(
                "SELECT id, key, args, priority, state, attempt, claim, cancel_requested,"
                " superseded_by, lock FROM jobs"
            ).fetchall()
            events = connection.execute(
                "SELECT seq, job FROM events WHERE seq > ? ORDER BY seq", (self.head_seq,)
            ).fetchall()
        found = {row[0]: row for row in rows}
        assert set(found) == set(self.jobs), "a job vanished or came from nowhere"
        for job_id, job in self.jobs.items():
            _, key, args, priority, state, attempt, claim, cancelling, successor, _ = found[job_id]
            assert (key, args, priority) == (job.key, job.args, job.priority)
            assert (state, attempt, claim) == (job.state, job.attempt, job.claim)
            assert (bool(cancelling), successor) == (job.cancel_requested, job.successor)
        running = [row[9] for row in rows if row[4] == "running"]
        assert len(running) == len(set(running)), "two attempts of one lock"
        waiting = [row[1] for row in rows if row[4] in WAITING]
        assert len(waiting) == len(set(waiting)), "two jobs of one key wait"
        self.check_steps({job_id: JobState(row[4]) for job_id, row in found.items()}, events)

    def check_steps(self, states: dict[int, JobState], events: list[tuple[int, int]]) -> None:
        numbers = [seq for seq, _ in events]
        assert numbers == list(range(self.head_seq + 1, self.head_seq + 1 + len(numbers)))
        told = [job for _, job in events]
        for job_id, state in states.items():
            former = self.states.get(job_id)
            if former is None:
                assert state is JobState.READY
            if former is state:
                continue
            assert told.count(job_id) == 1, "a change has one event"
            # Joining makes a scheduled job ready as if it were due.
            assert former is None or (former, state) in LEGAL, f"{former} became {state}"
        self.head_seq, self.states = self.head_seq + len(numbers), states


Queue.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestQueue = Queue.TestCase
# It passes in seconds; making a failure small takes minutes on a real file.
TestQueue.pytestmark = [pytest.mark.timeout(360)]
