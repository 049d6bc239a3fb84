"""What the queue promises whatever happens, in whatever order: a real ledger against a dict."""

import asyncio
import shutil
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from kitd.config.model import RetentionConfig
from kitd.ledger import life
from kitd.ledger.audit import audit_ledger
from kitd.ledger.database import Database
from kitd.ledger.job_ledger import MAX_DELAY_S, JobLedger
from kitd.ledger.retention import Retention
from kitd.queue.job import TERMINAL, WAITING, Failure, Job, JobRequest, JobState, Lane
from kitd.queue.transition import TRANSITIONS, FencedError, IllegalTransitionError

FAILURE = Failure("unavailable", "away")
LOCKS = {"a": "one", "b": "one", "c": "two", "d": "three"}
"""Two keys share a lock."""
LANES = {"a": Lane.PACK, "b": Lane.PUSH, "c": Lane.PACK, "d": Lane.PACK}
"""And not a lane."""
LEGAL = {(state, following) for (state, _), following in TRANSITIONS.items()}
RETRYABLE = {JobState.FAILED, JobState.CANCELLED}


class ManualClock:
    """A clock with hands."""

    def __init__(self) -> None:
        self.at_us = 1_700_000_000_000_000

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
    owner: str
    turn: int
    state: JobState = JobState.READY
    attempt: int = 0
    crashes: int = 0
    poisoned: bool = False
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
        self.jobs: dict[int, Expected] = {}
        self.reached: Counter[tuple[Lane, int]] = Counter()
        self.given: dict[tuple[Lane, int, str], int] = {}
        self.states: dict[int, JobState] = {}
        self.head_seq = 0
        self.open()

    def open(self) -> None:
        self.database = Database(self.directory / "ledger.sqlite3")
        self.runner.run(self.database.__aenter__())
        self.life = self.runner.run(life.begin(self.database, self.clock, pid=1, version="1"))
        self.ledger = JobLedger(self.database, self.clock, self.life.epoch)
        self.seen_us = self.clock.at_us
        self.claims: Counter[Lane] = Counter()

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
            attempt.epoch == self.life.epoch
        )

    def turn(self, lane: Lane, priority: int, owner: str) -> int:
        """Give an owner its next turn."""
        given = self.given.get((lane, priority, owner))
        turn = max(self.reached[lane, priority], -1 if given is None else given + 1)
        self.given[lane, priority, owner] = turn
        return turn

    def wait_again(self, job_id: int, state: JobState, **fields) -> None:
        """Expect what follows when a running job wants to come back."""
        other = self.waiting(self.jobs[job_id].key)
        if self.jobs[job_id].cancel_requested:
            self.change(job_id, state=JobState.CANCELLED)
        elif other is not None and other > job_id:
            crashes = max(self.jobs[job_id].crashes, self.jobs[other].crashes)
            self.change(job_id, state=JobState.SUPERSEDED, successor=other)
            self.change(other, crashes=crashes)
        else:
            if other is not None:
                crashes = max(self.jobs[job_id].crashes, self.jobs[other].crashes)
                self.change(other, state=JobState.SUPERSEDED, successor=job_id)
                self.change(job_id, crashes=crashes)
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
        owner=st.sampled_from(["one", "two"]),
        asked_by=st.sampled_from([None, 1000]),
    )
    def enqueue(
        self, key: str, args: bytes, priority: int, owner: str, asked_by: int | None
    ) -> None:
        lane = LANES[key]
        request = JobRequest(
            kind="pack",
            lane=lane,
            key=key,
            lock=LOCKS[key],
            args=args,
            max_attempts=3,
            priority=priority,
            project=owner,
            asked_by=asked_by,
        )
        found = self.runner.run(self.ledger.enqueue(request))
        waiting = self.waiting(key)
        if waiting is None:
            poisoned = {i for i, job in self.jobs.items() if job.poisoned and job.key == key}
            if asked_by is None and {i for i in poisoned if self.jobs[i].args == args}:
                assert found.id in poisoned
                return
            turn = self.turn(lane, priority, owner)
            self.jobs[found.id] = Expected(key, args, priority, owner, turn)
            return
        former = self.jobs[waiting]
        urgent, turn = max(priority, former.priority), former.turn
        if urgent != former.priority:
            turn = self.turn(lane, urgent, former.owner)
        if former.args == args:
            assert found.id == waiting
            self.change(waiting, state=JobState.READY, priority=urgent, turn=turn)
            return
        assert found.id not in self.jobs
        self.change(waiting, state=JobState.SUPERSEDED, successor=found.id)
        self.jobs[found.id] = Expected(key, args, urgent, owner, turn, crashes=former.crashes)

    def next_in(self, lane: Lane) -> int | None:
        """Return which job a lane would claim."""
        running = [job for job in self.jobs.values() if job.state is JobState.RUNNING]
        busy = {LOCKS[job.key] for job in running}
        watched = any(job.crashes >= 2 for job in running)
        patient = (self.claims[lane] + 1) % 4 == 0
        ready = [
            (job.priority if patient else -job.priority, job.turn, job_id)
            for job_id, job in self.jobs.items()
            if job.state is JobState.READY
            and LANES[job.key] is lane
            and LOCKS[job.key] not in busy
            and not (watched and job.crashes >= 2)
        ]
        return min(ready)[-1] if ready else None

    @rule(target=attempts, pack=st.integers(0, 3), push=st.integers(0, 1))
    def claim(self, pack: int, push: int):
        slots = {Lane.PACK: pack, Lane.PUSH: push}
        claimed = self.runner.run(self.ledger.claim(slots))
        expected = []
        for lane, number in slots.items():
            for _ in range(number):
                job_id = self.next_in(lane)
                if job_id is None:
                    break
                expected.append(job_id)
                job = self.jobs[job_id]
                self.claims[lane] += 1
                reached = max(self.reached[lane, job.priority], job.turn)
                self.reached[lane, job.priority] = reached
                self.change(
                    job_id, state=JobState.RUNNING, attempt=job.attempt + 1, claim=job.claim + 1
                )
        assert [job.id for job in claimed] == expected
        return multiple(*claimed)

    @rule(attempt=attempts)
    def succeed(self, attempt: Job) -> None:
        if self.end(attempt, self.ledger.succeed(attempt, b"{}", (), ())):
            self.change(attempt.id, state=JobState.SUCCEEDED)

    @rule(attempt=attempts)
    def fail(self, attempt: Job) -> None:
        if self.end(attempt, self.ledger.fail(attempt, FAILURE)):
            self.change(attempt.id, state=JobState.FAILED)

    @rule(
        attempt=attempts,
        delay_s=st.sampled_from([0, 1, 60]),
        how=st.sampled_from(["failed", "moved", "crashed"]),
    )
    def back_off(self, attempt: Job, delay_s: int, how: str) -> None:
        burned, crashed = how != "moved", how == "crashed"
        writing = self.ledger.back_off(attempt, FAILURE, delay_s, burned=burned, crashed=crashed)
        if self.end(attempt, writing):
            job = self.jobs[attempt.id]
            self.change(attempt.id, crashes=job.crashes + 1 if crashed else 0)
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
            job = self.jobs[job_id]
            self.change(
                job_id,
                state=JobState.READY,
                turn=self.turn(LANES[job.key], job.priority, job.owner),
                attempt=0,
                crashes=0,
                poisoned=False,
                cancel_requested=False,
            )

    @rule(delay_s=st.sampled_from([0, 1, 30, 60, 86_400, -30, -7_200]))
    def time_passes(self, delay_s: int) -> None:
        """Suspends and clocks that are set are time that passes, in either direction."""
        self.clock.at_us += delay_s * 1_000_000
        back_us = self.seen_us - self.clock.at_us
        if back_us >= 1_000_000:
            for job_id, job in self.jobs.items():
                if job.state is JobState.SCHEDULED:
                    self.change(job_id, run_at_us=job.run_at_us - back_us)
        self.seen_us = self.clock.at_us
        due_s = self.runner.run(self.ledger.promote())
        for job_id, job in self.jobs.items():
            late_s = (self.clock.at_us - job.run_at_us) / 1_000_000
            if job.state is JobState.SCHEDULED and not -MAX_DELAY_S <= late_s < 0:
                self.change(job_id, state=JobState.READY)
        later = [job.run_at_us for job in self.jobs.values() if job.state is JobState.SCHEDULED]
        assert due_s == (min(later) - self.clock.at_us) / 1_000_000 if later else due_s is None

    @rule(orderly=st.booleans())
    def restart(self, orderly: bool) -> None:
        """A life ends and leaves its jobs running; the next one puts them back, or one aside."""
        if orderly:
            self.runner.run(life.end(self.database, self.clock, self.life))
        self.runner.run(self.database.close())
        self.open()
        running = [i for i, job in self.jobs.items() if job.state is JobState.RUNNING]
        suspects = [i for i in running if self.jobs[i].crashes >= 2] or running
        assert self.runner.run(self.ledger.recover()) == len(running)
        for job_id in running:
            if not orderly and job_id in suspects:
                self.change(job_id, crashes=self.jobs[job_id].crashes + 1)
            job = self.jobs[job_id]
            if job.crashes >= 3 and not job.cancel_requested:
                self.change(job_id, state=JobState.FAILED, poisoned=True)
            else:
                self.wait_again(job_id, JobState.READY, attempt=job.attempt - 1)

    @rule()
    def forget_what_is_old(self) -> None:
        """A month on, what there is is still too little to be forgotten."""
        later = ManualClock()
        later.at_us = self.clock.at_us + 40 * 86_400 * 1_000_000
        retention = Retention(self.database, later, RetentionConfig)
        assert self.runner.run(retention.sweep()).jobs == 0

    # What is promised.

    @invariant()
    def the_ledger_is_what_it_should_be(self) -> None:
        """Nothing is lost, nothing is invented, only legal steps were taken, each told once."""
        with closing(sqlite3.connect(self.database.path)) as connection:
            rows = connection.execute(
                "SELECT id, key, args, priority, state, attempt, claim, cancel_requested,"
                " superseded_by, owner, turn, crashes, error_code, lock FROM jobs"
            ).fetchall()
            events = connection.execute(
                "SELECT seq, job FROM events WHERE seq > ? ORDER BY seq", (self.head_seq,)
            ).fetchall()
        found = {row[0]: row for row in rows}
        assert set(found) == set(self.jobs), "a job vanished or came from nowhere"
        for job_id, job in self.jobs.items():
            _, key, args, priority, state, attempt, claim, cancelling, successor, *rest = found[
                job_id
            ]
            assert (key, args, priority) == (job.key, job.args, job.priority)
            assert (state, attempt, claim) == (job.state, job.attempt, job.claim)
            assert (bool(cancelling), successor) == (job.cancel_requested, job.successor)
            owner, turn, crashes, error, _ = rest
            assert (owner, turn, crashes) == (f"project:{job.owner}", job.turn, job.crashes)
            assert (error == "poison") == job.poisoned
        running = [row[-1] for row in rows if row[4] == "running"]
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

    def teardown(self) -> None:
        self.runner.run(self.database.close())
        self.runner.close()
        # The events tell the same story as the rows.
        assert list(audit_ledger(self.database.path)) == []
        shutil.rmtree(self.directory)


Queue.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestQueue = Queue.TestCase
# It passes in seconds; making a failure small takes minutes on a real file.
TestQueue.pytestmark = [pytest.mark.timeout(360)]
