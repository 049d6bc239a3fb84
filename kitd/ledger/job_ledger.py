"""The queue's rows: enqueue, claim, end, recover. Every change is one transaction with its event.

State changes go through `kitd.queue.transition.step`; ends of attempts are fenced by the epoch and
the claim number, so an attempt that was given up for dead cannot finish its successor.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from kitd.clock import Clock
from kitd.errors import KitdError, NotFoundError
from kitd.ledger.catalog import apply
from kitd.ledger.database import Database
from kitd.ledger.event_ledger import emit
from kitd.ledger.turn import forget_idle_owners, reach_turn, take_turn
from kitd.queue.effect import Effect
from kitd.queue.job import Failure, Job, JobRequest, JobState, Lane, QueueCounts
from kitd.queue.retry import MAX_CRASHES, SUSPECT_CRASHES, blamed, poison
from kitd.queue.transition import (
    Admission,
    FencedError,
    IllegalTransitionError,
    Signal,
    admit,
    step,
)

MAX_LIST = 500
MAX_DELAY_S = 3600.0
"""Jobs wait minutes. One that is due later than this was scheduled before the clock went back."""
CLOCK_SLACK_US = 1_000_000
"""A clock that is set right goes back by less than this."""
NOT_KNOWN_US = 0
PATIENCE_CLAIMS = 4
"""Every so many claims of a lane the least urgent may go first: urgent work keeps others waiting,
and not for ever."""
FORGET_CLAIMS = 256
"""How often the owners are forgotten who have had nothing to do for a while."""
STOPPED = "kitd stopped"
ENDED = "kitd ended without stopping"

_CLAIM = (
    "UPDATE jobs SET state = 'running', epoch = ?1, attempt = attempt + 1, claim = claim + 1,"
    " started_us = ?2, error_code = NULL, error_message = NULL, error_hint = NULL"
    " WHERE id = (SELECT id FROM jobs AS waiting WHERE state = 'ready' AND lane = ?3"
    "  AND lock NOT IN (SELECT lock FROM jobs WHERE state = 'running')"
    "  AND (crashes < ?4 OR NOT EXISTS"
    "       (SELECT 1 FROM jobs WHERE state = 'running' AND crashes >= ?4))"
    "  ORDER BY priority{order}, turn, id LIMIT 1)"
    " RETURNING *"
)
_IDEMPOTENCY = "SELECT job, result, fingerprint FROM idempotency WHERE uid = ? AND key = ?"


class IdempotencyMismatchError(KitdError):
    """The idempotency key was used before, for something else."""

    code = "idempotency_mismatch"


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs a list shows."""

    state: JobState | None = None
    kind: str | None = None
    project: str | None = None
    before: int | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A caller's name for one wish; `fingerprint` is a digest of its method and parameters."""

    uid: int
    key: str
    fingerprint: str


def _job(row: sqlite3.Row) -> Job:
    error = None
    if row["error_code"] is not None:
        error = Failure(row["error_code"], row["error_message"], row["error_hint"])
    return Job(
        id=row["id"],
        kind=row["kind"],
        lane=Lane(row["lane"]),
        key=row["key"],
        lock=row["lock"],
        state=JobState(row["state"]),
        args=row["args"],
        project=row["project"],
        reference=row["reference"],
        priority=row["priority"],
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        run_at_us=row["run_at_us"],
        created_us=row["created_us"],
        started_us=row["started_us"],
        finished_us=row["finished_us"],
        epoch=row["epoch"],
        claim=row["claim"],
        cancel_requested=bool(row["cancel_requested"]),
        result=row["result"],
        error=error,
        superseded_by=row["superseded_by"],
        followed_by=tuple(json.loads(row["followed_by"])),
        crashes=row["crashes"],
        asked_by=row["asked_by"],
        needs=row["needs"],
        owner=row["owner"],
        turn=row["turn"],
    )


def _checked(row: sqlite3.Row, key: IdempotencyKey) -> sqlite3.Row:
    if row["fingerprint"] != key.fingerprint:
        raise IdempotencyMismatchError(
            f"the idempotency key {key.key!r} was used for something else",
            hint="use a new key for a new request",
        )
    return row


def _used(connection: sqlite3.Connection, key: IdempotencyKey) -> sqlite3.Row | None:
    """Return what a key was used for. Raises `IdempotencyMismatchError`."""
    row = connection.execute(_IDEMPOTENCY, (key.uid, key.key)).fetchone()
    return None if row is None else _checked(row, key)


def _is_locked(connection: sqlite3.Connection, lock: str) -> bool:
    row = connection.execute("SELECT 1 FROM jobs WHERE state = 'running' AND lock = ?", (lock,))
    return row.fetchone() is not None


def _select(connection: sqlite3.Connection, job_id: int) -> Job:
    row = connection.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        raise _unknown(job_id)
    return _job(row)


def _unknown(job_id: int) -> NotFoundError:
    return NotFoundError(f"there is no job {job_id}", hint="kitctl jobs list shows what exists")


def _tell(
    connection: sqlite3.Connection,
    at_us: int,
    event_type: str,
    job: Job,
    data: Mapping[str, object] | None = None,
) -> None:
    facts = {"kind": job.kind, "project": job.project, "reference": job.reference}
    named = {key: value for key, value in facts.items() if value is not None}
    emit(
        connection,
        at_us,
        event_type,
        f"job:{job.id}",
        {**named, **(data or {})},
        job=job.id,
        project=job.project,
    )


def _failure_data(failure: Failure) -> Mapping[str, object]:
    return {"code": failure.code, "message": failure.message, "hint": failure.hint}


def _cause(request: JobRequest) -> Mapping[str, object]:
    return {"why": request.why} if request.why else {}


def _waiting(connection: sqlite3.Connection, key: str) -> Job | None:
    """Return the job of a key that waits; the schema allows one."""
    row = connection.execute(
        "SELECT * FROM jobs WHERE key = ? AND state IN ('scheduled', 'ready')", (key,)
    ).fetchone()
    return None if row is None else _job(row)


def _set_aside(connection: sqlite3.Connection, request: JobRequest) -> Job | None:
    """Return the job that was set aside as poison while it did what kitd wants to do again."""
    if request.asked_by is not None:
        return None
    row = connection.execute(
        # The words of the condition are those of the index `jobs_poison`.
        "SELECT * FROM jobs WHERE key = ? AND state = 'failed' AND error_code = 'poison'"
        " AND args = ? LIMIT 1",
        (request.key, request.args),
    ).fetchone()
    return None if row is None else _job(row)


def _enqueue(connection: sqlite3.Connection, request: JobRequest, now_us: int) -> Job:
    """Admit a wish and return the job that serves it, or that was set aside when it tried to."""
    waiting = _waiting(connection, request.key)
    set_aside = _set_aside(connection, request) if waiting is None else None
    match admit(request, waiting, set_aside), waiting or set_aside:
        case Admission.JOIN, Job() as found:
            return _join(connection, found, request, now_us)
        case Admission.REPLACE, Job() as found:
            # The new row needs the key that the old one holds, and the old one the new id. Whoever
            # waited for the old one waits for the new one now, as urgently and no longer; and what
            # it did to kitd, the new one may do as well.
            _end(connection, found, Signal.SUPERSEDE, now_us)
            urgent = replace(request, priority=max(request.priority, found.priority))
            turn = _turn(connection, found, urgent.priority)
            job = _insert(connection, urgent, turn, now_us, crashes=found.crashes)
            _succeeded_by(connection, found, job.id, now_us)
            return job
        case Admission.REFUSE, Job() as found:
            return found
        case _:
            turn = take_turn(connection, request.lane, request.priority, request.owner)
            return _insert(connection, request, turn, now_us)


def _turn(connection: sqlite3.Connection, job: Job, priority: int) -> int:
    """Return the turn that a waiting job has with a priority: another one needs another turn."""
    if priority == job.priority:
        return job.turn
    return take_turn(connection, job.lane, priority, job.owner)


def _join(connection: sqlite3.Connection, job: Job, request: JobRequest, now_us: int) -> Job:
    """Let a waiting job serve one more wish: now, and with the higher priority."""
    priority = max(job.priority, request.priority)
    row = connection.execute(
        "UPDATE jobs SET priority = ?, turn = ?, run_at_us = ?, state = 'ready' WHERE id = ?"
        " RETURNING *",
        (priority, _turn(connection, job, priority), min(job.run_at_us, now_us), job.id),
    ).fetchone()
    _tell(connection, now_us, "job.joined", job, _cause(request))
    return _job(row)


def _insert(
    connection: sqlite3.Connection, request: JobRequest, turn: int, now_us: int, *, crashes: int = 0
) -> Job:
    cursor = connection.execute(
        "INSERT INTO jobs (kind, lane, key, lock, state, args, project, reference, priority,"
        " max_attempts, owner, turn, crashes, asked_by, needs, run_at_us, created_us)"
        " VALUES (?, ?, ?, ?, 'ready', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            request.kind,
            request.lane,
            request.key,
            request.lock,
            request.args,
            request.project,
            request.reference,
            request.priority,
            request.max_attempts,
            request.owner,
            turn,
            crashes,
            request.asked_by,
            request.needs,
            now_us,
            now_us,
        ),
    )
    assert cursor.lastrowid is not None
    # Not read back: thousands a second are made, and nothing of it is the file's to decide.
    job = Job(
        id=cursor.lastrowid,
        kind=request.kind,
        lane=request.lane,
        key=request.key,
        lock=request.lock,
        state=JobState.READY,
        args=request.args,
        project=request.project,
        reference=request.reference,
        priority=request.priority,
        attempt=0,
        max_attempts=request.max_attempts,
        run_at_us=now_us,
        created_us=now_us,
        crashes=crashes,
        asked_by=request.asked_by,
        needs=request.needs,
        owner=request.owner,
        turn=turn,
    )
    _tell(connection, now_us, "job.created", job, _cause(request))
    return job


def _end(connection: sqlite3.Connection, job: Job, signal: Signal, now_us: int) -> None:
    connection.execute(
        "UPDATE jobs SET state = ?, finished_us = ?, epoch = NULL WHERE id = ?",
        (step(job.state, signal), now_us, job.id),
    )


def _end_cancelled(connection: sqlite3.Connection, job: Job, now_us: int) -> None:
    _end(connection, job, Signal.CANCEL, now_us)
    _tell(connection, now_us, "job.cancelled", job)


def _step_asked(job: Job, signal: Signal) -> JobState:
    """Return the state that follows what a person asks for. Raises `IllegalTransitionError`."""
    try:
        return step(job.state, signal)
    except IllegalTransitionError as error:
        raise IllegalTransitionError(f"cannot {signal} job {job.id}: it is {job.state}") from error


def _succeeded_by(connection: sqlite3.Connection, job: Job, successor: int, now_us: int) -> None:
    connection.execute("UPDATE jobs SET superseded_by = ? WHERE id = ?", (successor, job.id))
    _tell(connection, now_us, "job.superseded", job, {"by": successor})


def _note_failure(connection: sqlite3.Connection, job: Job, failure: Failure) -> None:
    connection.execute(
        "UPDATE jobs SET error_code = ?, error_message = ?, error_hint = ? WHERE id = ?",
        (failure.code, failure.message, failure.hint, job.id),
    )


def _current(connection: sqlite3.Connection, attempt: Job) -> Job:
    """Return the job if this attempt of it is the running one. Raises `FencedError`."""
    job = _select(connection, attempt.id)
    if (job.state, job.epoch, job.claim) != (JobState.RUNNING, attempt.epoch, attempt.claim):
        raise FencedError(f"attempt {attempt.claim} of job {attempt.id} is not its current one")
    return job


def _may_wait(connection: sqlite3.Connection, job: Job, now_us: int) -> bool:
    """Clear the way for a running job to wait again, or end it: cancelled, or out of date.

    Where another job of its key waits, the newer of the two is the one that is still wanted.
    """
    if job.cancel_requested:
        _end_cancelled(connection, job, now_us)
        return False
    waiting = _waiting(connection, job.key)
    if waiting is None:
        return True
    older, newer = (job, waiting) if job.id < waiting.id else (waiting, job)
    _end(connection, older, Signal.SUPERSEDE, now_us)
    _succeeded_by(connection, older, newer.id, now_us)
    connection.execute(
        "UPDATE jobs SET crashes = max(crashes, ?) WHERE id = ?", (older.crashes, newer.id)
    )
    return newer is job


def _come_back(
    connection: sqlite3.Connection, job: Job, failure: Failure, run_at_us: int, now_us: int
) -> None:
    """Let a job wait for its next attempt, if it still may."""
    _note_failure(connection, job, failure)
    if not _may_wait(connection, job, now_us):
        return
    connection.execute(
        "UPDATE jobs SET state = ?, epoch = NULL, run_at_us = ? WHERE id = ?",
        (step(job.state, Signal.BACK_OFF), run_at_us, job.id),
    )
    delay_ms = (run_at_us - now_us) // 1000
    _tell(connection, now_us, "job.retrying", job, {**_failure_data(failure), "delay_ms": delay_ms})


def _count_crashes(connection: sqlite3.Connection, job: Job, crashes: int) -> Job:
    connection.execute("UPDATE jobs SET crashes = ? WHERE id = ?", (crashes, job.id))
    return replace(job, crashes=crashes)


def _fail(connection: sqlite3.Connection, job: Job, failure: Failure, now_us: int) -> None:
    _note_failure(connection, job, failure)
    _end(connection, job, Signal.FAIL, now_us)
    _tell(connection, now_us, "job.failed", job, _failure_data(failure))


def _interrupt(connection: sqlite3.Connection, job: Job, now_us: int, why: str) -> None:
    """Put a running job back as it was, if it still may wait."""
    if not _may_wait(connection, job, now_us):
        return
    connection.execute(
        "UPDATE jobs SET state = ?, epoch = NULL, attempt = attempt - 1 WHERE id = ?",
        (step(job.state, Signal.INTERRUPT), job.id),
    )
    _tell(connection, now_us, "job.interrupted", job, {"why": why})


class JobLedger:
    """The queue of one daemon's life. Implements `kitd.queue.executor.JobStore`."""

    def __init__(self, database: Database, clock: Clock, epoch: int) -> None:
        self._database = database
        self._clock = clock
        self._epoch = epoch
        # What the dispatcher need not ask the file for. Noted by transactions, so that it is never
        # behind the file; one that is undone leaves a look for nothing.
        self._ripe = set(Lane)
        self._due_us: int | None = NOT_KNOWN_US
        self._seen_us = clock.now_us()
        self._claims: Counter[Lane] = Counter()

    async def enqueue(self, request: JobRequest, key: IdempotencyKey | None = None) -> Job:
        """Admit a wish durably and return the job that serves it.

        A wish of kitd's own for what was set aside as poison returns that job, which has failed.
        With an idempotency key the same wish returns the same job; another wish under the same
        key raises `IdempotencyMismatchError`.
        """

        def transaction(connection: sqlite3.Connection) -> Job:
            if key is None:
                return self._admit(connection, request)
            row = _used(connection, key)
            if row is not None:
                return _select(connection, row["job"])
            job = self._admit(connection, request)
            connection.execute(
                "INSERT INTO idempotency (uid, key, fingerprint, job, created_us)"
                " VALUES (?, ?, ?, ?, ?)",
                (key.uid, key.key, key.fingerprint, job.id, self._clock.now_us()),
            )
            return job

        return await self._database.write(transaction)

    async def recall(self, key: IdempotencyKey) -> bytes | None:
        """Return what a call without a job was answered before under this key.

        Raises `IdempotencyMismatchError`.
        """
        rows = await self._database.read(_IDEMPOTENCY, (key.uid, key.key))
        return _checked(rows[0], key)["result"] if rows else None

    async def remember(self, key: IdempotencyKey, result: bytes) -> bytes:
        """Keep the answer to a call without a job; return the one that was kept first.

        Raises `IdempotencyMismatchError`.
        """

        def transaction(connection: sqlite3.Connection) -> bytes:
            row = _used(connection, key)
            if row is None:
                connection.execute(
                    "INSERT INTO idempotency (uid, key, fingerprint, result, created_us)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (key.uid, key.key, key.fingerprint, result, self._clock.now_us()),
                )
                return result
            kept: bytes = row["result"]
            return kept

        return await self._database.write(transaction)

    def _admit(self, connection: sqlite3.Connection, request: JobRequest) -> Job:
        job = _enqueue(connection, request, self._clock.now_us())
        if job.lane not in self._ripe and not _is_locked(connection, job.lock):
            self._ripe.add(job.lane)
        return job

    async def promote(self) -> float | None:
        """Make due jobs ready and return in how many seconds the next one is due, if any.

        Writes nothing where nothing is due. When the clock went back, all that waits for a time
        is moved with it.
        """
        now_us = self._clock.now_us()
        back_us = max(0, self._seen_us - now_us)
        if back_us < CLOCK_SLACK_US:
            back_us = 0
            self._seen_us = max(self._seen_us, now_us)
            if self._due_us is None or self._due_us > now_us:
                return self._due_s(now_us)

        def transaction(connection: sqlite3.Connection) -> None:
            if back_us:
                connection.execute(
                    "UPDATE jobs SET run_at_us = run_at_us - ? WHERE state = 'scheduled'",
                    (back_us,),
                )
            due = connection.execute(
                "UPDATE jobs SET state = 'ready' WHERE state = 'scheduled'"
                " AND (run_at_us <= ?1 OR run_at_us > ?2) RETURNING *",
                (now_us, now_us + int(MAX_DELAY_S * 1_000_000)),
            ).fetchall()
            for job in map(_job, due):
                _tell(connection, now_us, "job.due", job)
                self._ripe.add(job.lane)
            row = connection.execute(
                "SELECT min(run_at_us) FROM jobs WHERE state = 'scheduled'"
            ).fetchone()
            self._due_us = row[0]

        try:
            await self._database.write(transaction)
        except KitdError:
            self._due_us = NOT_KNOWN_US
            raise
        if back_us:
            self._seen_us = now_us
        return self._due_s(now_us)

    def _due_s(self, now_us: int) -> float | None:
        return None if self._due_us is None else max(0.0, (self._due_us - now_us) / 1_000_000)

    async def claim(self, lanes: Mapping[Lane, int]) -> Sequence[Job]:
        """Start up to so many jobs of each lane.

        The most urgent first, and among equals in turn; every fourth claim of a lane takes from
        what is least urgent. Writes nothing where nothing can be claimed.
        """
        open_lanes = {lane: slots for lane, slots in lanes.items() if slots and lane in self._ripe}
        if not open_lanes:
            return ()

        def transaction(connection: sqlite3.Connection) -> Sequence[Job]:
            return [
                job
                for lane, slots in open_lanes.items()
                for _ in range(slots)
                if (job := self._claim(connection, lane)) is not None
            ]

        try:
            return await self._database.write(transaction)
        except KitdError:
            self._ripe.update(open_lanes)
            raise

    def _claim(self, connection: sqlite3.Connection, lane: Lane) -> Job | None:
        number = self._claims[lane] + 1
        now_us = self._clock.now_us()
        row = connection.execute(
            _CLAIM.format(order="" if number % PATIENCE_CLAIMS == 0 else " DESC"),
            (self._epoch, now_us, lane, SUSPECT_CRASHES),
        ).fetchone()
        if row is None:
            self._ripe.discard(lane)
            return None
        job = _job(row)
        self._claims[lane] = number
        reach_turn(connection, lane, job.priority, job.turn)
        if number % FORGET_CLAIMS == 0:
            forget_idle_owners(connection, lane)
        _tell(connection, now_us, "job.started", job, {"attempt": job.attempt})
        return job

    async def succeed(
        self,
        attempt: Job,
        result: bytes,
        effects: Iterable[Effect],
        requests: Iterable[JobRequest],
    ) -> None:
        """End an attempt well: its effects, its result and the jobs that follow, all or nothing.

        Raises `FencedError`.
        """

        def transaction(connection: sqlite3.Connection) -> None:
            job, now_us = self._ending(connection, attempt), self._clock.now_us()
            for effect in effects:
                apply(connection, effect, now_us, job)
            followers = [self._admit(connection, request) for request in requests]
            ids = [follower.id for follower in followers]
            _end(connection, job, Signal.SUCCEED, now_us)
            connection.execute(
                "UPDATE jobs SET result = ?, followed_by = ? WHERE id = ?",
                (result, json.dumps(ids), job.id),
            )
            _tell(connection, now_us, "job.succeeded", job, {"followed_by": ids} if ids else {})

        await self._database.write(transaction)

    async def fail(self, attempt: Job, failure: Failure) -> None:
        """End a job for good. Raises `FencedError`."""

        def transaction(connection: sqlite3.Connection) -> None:
            job, now_us = self._ending(connection, attempt), self._clock.now_us()
            _fail(connection, job, failure, now_us)

        await self._database.write(transaction)

    async def back_off(
        self,
        attempt: Job,
        failure: Failure,
        delay_s: float,
        *,
        burned: bool,
        crashed: bool = False,
    ) -> None:
        """End an attempt that will be followed by another. Raises `FencedError`."""

        def transaction(connection: sqlite3.Connection) -> None:
            job, now_us = self._ending(connection, attempt), self._clock.now_us()
            if not burned:
                connection.execute("UPDATE jobs SET attempt = attempt - 1 WHERE id = ?", (job.id,))
            job = _count_crashes(connection, job, job.crashes + 1 if crashed else 0)
            run_at_us = now_us + int(delay_s * 1_000_000)
            _come_back(connection, job, failure, run_at_us, now_us)
            if self._due_us is None or run_at_us < self._due_us:
                self._due_us = run_at_us

        await self._database.write(transaction)

    async def step_aside(self, attempt: Job, failure: Failure) -> None:
        """End an attempt whose job will be asked for anew if need be. Raises `FencedError`."""

        def transaction(connection: sqlite3.Connection) -> None:
            job, now_us = self._ending(connection, attempt), self._clock.now_us()
            _note_failure(connection, job, failure)
            if job.cancel_requested:
                _end_cancelled(connection, job, now_us)
                return
            _end(connection, job, Signal.SUPERSEDE, now_us)
            waiting = _waiting(connection, job.key)
            if waiting is None:
                _tell(connection, now_us, "job.superseded", job, _failure_data(failure))
            else:
                # Whichever is the newer: this one does not come back.
                _succeeded_by(connection, job, waiting.id, now_us)

        await self._database.write(transaction)

    async def interrupt(self, attempt: Job) -> None:
        """Put a running job back because kitd stops. Raises `FencedError`."""

        def transaction(connection: sqlite3.Connection) -> None:
            job = self._ending(connection, attempt)
            _interrupt(connection, job, self._clock.now_us(), STOPPED)

        await self._database.write(transaction)

    async def cancelled(self, attempt: Job) -> None:
        """End an attempt that was cancelled. Raises `FencedError`."""

        def transaction(connection: sqlite3.Connection) -> None:
            _end_cancelled(connection, self._ending(connection, attempt), self._clock.now_us())

        await self._database.write(transaction)

    async def paused(self, reason: Failure) -> None:
        """Tell that nothing begins for now."""
        await self._tell_of_queue("queue.paused", _failure_data(reason))

    async def resumed(self) -> None:
        """Tell that jobs begin again."""
        await self._tell_of_queue("queue.resumed", {})

    async def _tell_of_queue(self, event_type: str, data: Mapping[str, object]) -> None:
        await self._database.write(
            lambda connection: emit(connection, self._clock.now_us(), event_type, "queue", data)
        )

    def _ending(self, connection: sqlite3.Connection, attempt: Job) -> Job:
        """Return the job that this attempt may end, and let what waits for its lock be looked at.

        Raises `FencedError`.
        """
        self._ripe.update(Lane)
        return _current(connection, attempt)

    async def request_cancel(self, job_id: int) -> Job:
        """Cancel a waiting job, or mark a running one; a job that has ended is a conflict.

        Raises `NotFoundError`, `IllegalTransitionError`.
        """

        def transaction(connection: sqlite3.Connection) -> Job:
            job, now_us = _select(connection, job_id), self._clock.now_us()
            _step_asked(job, Signal.CANCEL)
            if job.state is JobState.RUNNING:
                connection.execute("UPDATE jobs SET cancel_requested = 1 WHERE id = ?", (job_id,))
                _tell(connection, now_us, "job.cancelling", job)
            else:
                _end_cancelled(connection, job, now_us)
            return _select(connection, job_id)

        return await self._database.write(transaction)

    async def retry(self, job_id: int) -> Job:
        """Let a failed or cancelled job run again, with all its attempts, and return it.

        Where a job of its key waits already, that one is returned and nothing changes. Raises
        `NotFoundError`, `IllegalTransitionError`.
        """

        def transaction(connection: sqlite3.Connection) -> Job:
            job, now_us = _select(connection, job_id), self._clock.now_us()
            state = _step_asked(job, Signal.RETRY)
            waiting = _waiting(connection, job.key)
            if waiting is not None:
                # The same thing waits already: that job serves this wish too.
                return waiting
            row = connection.execute(
                "UPDATE jobs SET state = ?, turn = ?, attempt = 0, crashes = 0, run_at_us = ?,"
                " finished_us = NULL, cancel_requested = 0, error_code = NULL,"
                " error_message = NULL, error_hint = NULL WHERE id = ? RETURNING *",
                (
                    state,
                    take_turn(connection, job.lane, job.priority, job.owner),
                    now_us,
                    job_id,
                ),
            ).fetchone()
            _tell(connection, now_us, "job.retried", job)
            self._ripe.add(job.lane)
            return _job(row)

        return await self._database.write(transaction)

    async def recover(self) -> int:
        """Put back or end every job that a former life left running; return how many.

        Where that life did not end in good order, what ran then may have been the cause: whoever
        was for the third time in a row is set aside.
        """

        def transaction(connection: sqlite3.Connection) -> int:
            rows = connection.execute(
                "SELECT jobs.*, stopped_us IS NULL AS died FROM jobs LEFT JOIN epochs USING (epoch)"
                " WHERE state = 'running' AND epoch <> ?",
                (self._epoch,),
            ).fetchall()
            now_us = self._clock.now_us()
            suspects = {job.id for job in blamed(_job(row) for row in rows if row["died"])}
            for row in rows:
                job, why = _job(row), ENDED if row["died"] else STOPPED
                if job.id in suspects:
                    job = _count_crashes(connection, job, job.crashes + 1)
                if job.crashes >= MAX_CRASHES and not job.cancel_requested:
                    _fail(connection, job, poison(job.id, why), now_us)
                else:
                    _interrupt(connection, job, now_us, why)
            return len(rows)

        return await self._database.write(transaction)

    async def job(self, job_id: int) -> Job:
        """Return a job. Raises `NotFoundError`."""
        rows = await self._database.read("SELECT * FROM jobs WHERE id = ?", (job_id,))
        if not rows:
            raise _unknown(job_id)
        return _job(rows[0])

    async def list(self, wanted: JobFilter) -> Sequence[Job]:
        """Return jobs, newest first."""
        conditions = {
            "state = ?": wanted.state,
            "project = ?": wanted.project,
            # Of several conditions only one can be looked up, and there are few kinds.
            "kind = ?" if wanted.state is wanted.project is None else "+kind = ?": wanted.kind,
            "id < ?": wanted.before,
        }
        given = {words: value for words, value in conditions.items() if value is not None}
        rows = await self._database.read(
            f"SELECT * FROM jobs WHERE {' AND '.join(given) or 'true'} ORDER BY id DESC LIMIT ?",  # noqa: S608 - constant words
            # SQLite takes a negative limit for none.
            (*given.values(), max(0, min(wanted.limit, MAX_LIST))),
        )
        return [_job(row) for row in rows]

    async def latest(self, project: str) -> Sequence[Job]:
        """Return the newest few jobs of a project, newest first."""
        return (await self.latest_of([project]))[project]

    async def latest_of(self, projects: Sequence[str]) -> Mapping[str, Sequence[Job]]:
        """Return the newest few jobs of each project, newest first, in one look."""
        rows = await self._database.read(
            "SELECT jobs.* FROM json_each(?) AS wanted JOIN jobs ON jobs.id IN"
            " (SELECT id FROM jobs WHERE project = wanted.value ORDER BY id DESC LIMIT 8)"
            " ORDER BY jobs.id DESC",
            (json.dumps(list(projects)),),
        )
        found: dict[str, list[Job]] = {project: [] for project in projects}
        for job in map(_job, rows):
            assert job.project is not None
            found[job.project].append(job)
        return found

    async def counts(self) -> QueueCounts:
        """Return how many jobs are in each state that is not a quiet end."""
        rows = await self._database.read(
            "SELECT state, count(*) AS jobs FROM jobs"
            " WHERE state IN ('ready', 'running', 'scheduled', 'failed') GROUP BY state"
        )
        return QueueCounts({JobState(row["state"]): row["jobs"] for row in rows})
