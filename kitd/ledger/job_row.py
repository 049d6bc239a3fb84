"""Rows of jobs, inside a transaction: how they are read, admitted, ended and put back.

Every end and every return goes through `kitd.queue.transition.step`, and every change comes with
its event. What SQL picks by itself is written where it is picked: what is claimed, due or joined.
What a transaction is made of is in `job_ledger`.
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import replace

from kitd.errors import NotFoundError
from kitd.ledger.event_ledger import emit
from kitd.ledger.tally import Tallied, tally
from kitd.ledger.turn import take_turn
from kitd.queue.job import Failure, Job, JobRequest, JobState, Lane
from kitd.queue.transition import (
    Admission,
    FencedError,
    IllegalTransitionError,
    Signal,
    admit,
    step,
)

_TALLIED = {
    f"job.{word}": word
    for word in (
        "created",
        "started",
        "succeeded",
        "failed",
        "cancelled",
        "superseded",
        "retrying",
        "interrupted",
    )
}
"""The events that are counted by kind, and what they are counted as."""


def job_of(row: sqlite3.Row) -> Job:
    """Return the job that a whole row is."""
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


def is_locked(connection: sqlite3.Connection, lock: str) -> bool:
    """Whether an attempt runs under a lock."""
    sql = "SELECT 1 FROM jobs WHERE state = 'running' AND lock = ?"
    return connection.execute(sql, (lock,)).fetchone() is not None


def select(connection: sqlite3.Connection, job_id: int) -> Job:
    """Return a job. Raises `NotFoundError`."""
    row = connection.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        raise unknown(job_id)
    return job_of(row)


def unknown(job_id: int) -> NotFoundError:
    """Return the error for a job that there is not."""
    return NotFoundError(f"there is no job {job_id}", hint="kitctl jobs list shows what exists")


def tell(
    connection: sqlite3.Connection,
    at_us: int,
    event_type: str,
    job: Job,
    data: Mapping[str, object] | None = None,
) -> None:
    """Write an event about a job, and count it."""
    if (outcome := _TALLIED.get(event_type)) is not None:
        tally(connection, Tallied.JOB, job.kind, outcome)
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


def failure_data(failure: Failure) -> Mapping[str, object]:
    """Return a failure as events tell it."""
    return {"code": failure.code, "message": failure.message, "hint": failure.hint}


def _cause(request: JobRequest) -> Mapping[str, object]:
    return {"why": request.why} if request.why else {}


def find_waiting(connection: sqlite3.Connection, key: str) -> Job | None:
    """Return the job of a key that waits; the schema allows one."""
    row = connection.execute(
        "SELECT * FROM jobs WHERE key = ? AND state IN ('scheduled', 'ready')", (key,)
    ).fetchone()
    return None if row is None else job_of(row)


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
    return None if row is None else job_of(row)


def enqueue(connection: sqlite3.Connection, request: JobRequest, now_us: int) -> Job:
    """Admit a wish and return the job that serves it, or that was set aside when it tried to."""
    waiting = find_waiting(connection, request.key)
    set_aside = _set_aside(connection, request) if waiting is None else None
    match admit(request, waiting, set_aside), waiting or set_aside:
        case Admission.JOIN, Job() as found:
            return _join(connection, found, request, now_us)
        case Admission.REPLACE, Job() as found:
            # The new row needs the key that the old one holds, and the old one the new id. Whoever
            # waited for the old one waits for the new one now, as urgently and no longer; and what
            # it did to kitd, the new one may do as well.
            end(connection, found, Signal.SUPERSEDE, now_us)
            urgent = replace(request, priority=max(request.priority, found.priority))
            turn = _turn(connection, found, urgent.priority)
            job = _insert(connection, urgent, turn, now_us, crashes=found.crashes)
            succeeded_by(connection, found, job.id, now_us)
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
    tell(connection, now_us, "job.joined", job, _cause(request))
    return job_of(row)


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
    tell(connection, now_us, "job.created", job, _cause(request))
    return job


def end(connection: sqlite3.Connection, job: Job, signal: Signal, now_us: int) -> None:
    """End a job; whoever calls tells of it. Raises `IllegalTransitionError`."""
    connection.execute(
        "UPDATE jobs SET state = ?, finished_us = ?, epoch = NULL WHERE id = ?",
        (step(job.state, signal), now_us, job.id),
    )


def end_cancelled(connection: sqlite3.Connection, job: Job, now_us: int) -> None:
    """End a job that a person took back."""
    end(connection, job, Signal.CANCEL, now_us)
    tell(connection, now_us, "job.cancelled", job)


def step_asked(job: Job, signal: Signal) -> JobState:
    """Return the state that follows what a person asks for. Raises `IllegalTransitionError`."""
    try:
        return step(job.state, signal)
    except IllegalTransitionError as error:
        raise IllegalTransitionError(f"cannot {signal} job {job.id}: it is {job.state}") from error


def succeeded_by(connection: sqlite3.Connection, job: Job, successor: int, now_us: int) -> None:
    """Name the job that an ended one left the field to."""
    connection.execute("UPDATE jobs SET superseded_by = ? WHERE id = ?", (successor, job.id))
    tell(connection, now_us, "job.superseded", job, {"by": successor})


def note_failure(connection: sqlite3.Connection, job: Job, failure: Failure) -> None:
    """Keep why an attempt ended."""
    connection.execute(
        "UPDATE jobs SET error_code = ?, error_message = ?, error_hint = ?, result = ?"
        " WHERE id = ?",
        (failure.code, failure.message, failure.hint, failure.result, job.id),
    )


def find_current(connection: sqlite3.Connection, attempt: Job) -> Job:
    """Return the job if this attempt of it is the running one. Raises `FencedError`."""
    job = select(connection, attempt.id)
    if (job.state, job.epoch, job.claim) != (JobState.RUNNING, attempt.epoch, attempt.claim):
        raise FencedError(f"attempt {attempt.claim} of job {attempt.id} is not its current one")
    return job


def _may_wait(connection: sqlite3.Connection, job: Job, now_us: int) -> bool:
    """Clear the way for a running job to wait again, or end it: cancelled, or out of date.

    Where another job of its key waits, the newer of the two is the one that is still wanted.
    """
    if job.cancel_requested:
        end_cancelled(connection, job, now_us)
        return False
    waiting = find_waiting(connection, job.key)
    if waiting is None:
        return True
    older, newer = (job, waiting) if job.id < waiting.id else (waiting, job)
    end(connection, older, Signal.SUPERSEDE, now_us)
    succeeded_by(connection, older, newer.id, now_us)
    connection.execute(
        "UPDATE jobs SET crashes = max(crashes, ?) WHERE id = ?", (older.crashes, newer.id)
    )
    return newer is job


def come_back(
    connection: sqlite3.Connection, job: Job, failure: Failure, run_at_us: int, now_us: int
) -> None:
    """Let a job wait for its next attempt, if it still may."""
    note_failure(connection, job, failure)
    if not _may_wait(connection, job, now_us):
        return
    connection.execute(
        "UPDATE jobs SET state = ?, epoch = NULL, run_at_us = ? WHERE id = ?",
        (step(job.state, Signal.BACK_OFF), run_at_us, job.id),
    )
    delay_ms = (run_at_us - now_us) // 1000
    tell(connection, now_us, "job.retrying", job, {**failure_data(failure), "delay_ms": delay_ms})


def count_crashes(connection: sqlite3.Connection, job: Job, crashes: int) -> Job:
    """Keep how often in a row a process died of a job, and return the job as it is then."""
    connection.execute("UPDATE jobs SET crashes = ? WHERE id = ?", (crashes, job.id))
    return replace(job, crashes=crashes)


def fail(connection: sqlite3.Connection, job: Job, failure: Failure, now_us: int) -> None:
    """End a job for good."""
    note_failure(connection, job, failure)
    end(connection, job, Signal.FAIL, now_us)
    tell(connection, now_us, "job.failed", job, failure_data(failure))


def interrupt(connection: sqlite3.Connection, job: Job, now_us: int, why: str) -> None:
    """Put a running job back as it was, if it still may wait."""
    if not _may_wait(connection, job, now_us):
        return
    connection.execute(
        "UPDATE jobs SET state = ?, epoch = NULL, attempt = attempt - 1 WHERE id = ?",
        (step(job.state, Signal.INTERRUPT), job.id),
    )
    tell(connection, now_us, "job.interrupted", job, {"why": why})
