"""The queue: enqueue, claim, end, recover. Every change is one transaction with its event.

Ends of attempts are fenced by the epoch and the claim number, so an attempt that was given up for
dead cannot finish its successor. What a transaction does to a row is in `job_row`, whose turn it is
in `turn`.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kitd.clock import Clock
from kitd.errors import KitdError
from kitd.ledger import job_row
from kitd.ledger.catalog import apply
from kitd.ledger.database import Database
from kitd.ledger.event_ledger import emit
from kitd.ledger.turn import forget_idle_owners, reach_turn, take_turn
from kitd.queue.effect import Effect
from kitd.queue.job import Failure, Job, JobRequest, JobState, Lane, QueueCounts
from kitd.queue.retry import MAX_CRASHES, SUSPECT_CRASHES, blamed, poison
from kitd.queue.transition import Signal

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
    " started_us = ?2, error_code = NULL, error_message = NULL, error_hint = NULL,"
    " result = NULL WHERE id = (SELECT id FROM jobs AS waiting WHERE state = 'ready' AND lane = ?3"
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
                return self.admit(connection, request)
            row = _used(connection, key)
            if row is not None:
                return job_row.select(connection, row["job"])
            job = self.admit(connection, request)
            connection.execute(
                "INSERT INTO idempotency (uid, key, fingerprint, job, created_us)"
                " VALUES (?, ?, ?, ?, ?)",
                (key.uid, key.key, key.fingerprint, job.id, self._clock.now_us()),
            )
            return job

        return await self._database.write(transaction)

    async def under_way(self, lock: str, limit: int) -> int:
        """Return how many jobs of a lock wait or run, at most `limit`."""
        rows = await self._database.read(
            "SELECT count(*) AS jobs FROM (SELECT 1 FROM jobs"
            " WHERE state IN ('scheduled', 'ready', 'running') AND lock = ? LIMIT ?)",
            (lock, limit),
        )
        count: int = rows[0]["jobs"]
        return count

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

    def admit(self, connection: sqlite3.Connection, request: JobRequest) -> Job:
        """Admit a wish within somebody's transaction and return the job that serves it."""
        job = job_row.enqueue(connection, request, self._clock.now_us())
        if job.lane not in self._ripe and not job_row.is_locked(connection, job.lock):
            self._ripe.add(job.lane)
        return job

    def admission(self, requests: Iterable[JobRequest]) -> Callable[[sqlite3.Connection], None]:
        """Return what admits wishes, for the transaction that writes down why they came."""

        def admit(connection: sqlite3.Connection) -> None:
            for request in requests:
                self.admit(connection, request)

        return admit

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
            for job in map(job_row.job_of, due):
                job_row.tell(connection, now_us, "job.due", job)
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
        job = job_row.job_of(row)
        self._claims[lane] = number
        reach_turn(connection, lane, job.priority, job.turn)
        if number % FORGET_CLAIMS == 0:
            forget_idle_owners(connection, lane)
        job_row.tell(connection, now_us, "job.started", job, {"attempt": job.attempt})
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
            followers = [self.admit(connection, request) for request in requests]
            ids = [follower.id for follower in followers]
            job_row.end(connection, job, Signal.SUCCEED, now_us)
            connection.execute(
                "UPDATE jobs SET result = ?, followed_by = ? WHERE id = ?",
                (result, json.dumps(ids), job.id),
            )
            job_row.tell(
                connection, now_us, "job.succeeded", job, {"followed_by": ids} if ids else {}
            )

        await self._database.write(transaction)

    async def fail(self, attempt: Job, failure: Failure) -> None:
        """End a job for good. Raises `FencedError`."""

        def transaction(connection: sqlite3.Connection) -> None:
            job, now_us = self._ending(connection, attempt), self._clock.now_us()
            job_row.fail(connection, job, failure, now_us)

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
            job = job_row.count_crashes(connection, job, job.crashes + 1 if crashed else 0)
            run_at_us = now_us + int(delay_s * 1_000_000)
            job_row.come_back(connection, job, failure, run_at_us, now_us)
            if self._due_us is None or run_at_us < self._due_us:
                self._due_us = run_at_us

        await self._database.write(transaction)

    async def step_aside(self, attempt: Job, failure: Failure) -> None:
        """End an attempt whose job will be asked for anew if need be. Raises `FencedError`."""

        def transaction(connection: sqlite3.Connection) -> None:
            job, now_us = self._ending(connection, attempt), self._clock.now_us()
            job_row.note_failure(connection, job, failure)
            if job.cancel_requested:
                job_row.end_cancelled(connection, job, now_us)
                return
            job_row.end(connection, job, Signal.SUPERSEDE, now_us)
            waiting = job_row.find_waiting(connection, job.key)
            if waiting is None:
                job_row.tell(
                    connection, now_us, "job.superseded", job, job_row.failure_data(failure)
                )
            else:
                # Whichever is the newer: this one does not come back.
                job_row.succeeded_by(connection, job, waiting.id, now_us)

        await self._database.write(transaction)

    async def interrupt(self, attempt: Job) -> None:
        """Put a running job back because kitd stops. Raises `FencedError`."""

        def transaction(connection: sqlite3.Connection) -> None:
            job = self._ending(connection, attempt)
            job_row.interrupt(connection, job, self._clock.now_us(), STOPPED)

        await self._database.write(transaction)

    async def cancelled(self, attempt: Job) -> None:
        """End an attempt that was cancelled. Raises `FencedError`."""

        def transaction(connection: sqlite3.Connection) -> None:
            job_row.end_cancelled(
                connection, self._ending(connection, attempt), self._clock.now_us()
            )

        await self._database.write(transaction)

    async def paused(self, reason: Failure) -> None:
        """Tell that nothing begins for now."""
        await self._tell_of_queue("queue.paused", job_row.failure_data(reason))

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
        return job_row.find_current(connection, attempt)

    async def request_cancel(self, job_id: int) -> Job:
        """Cancel a waiting job, or mark a running one; a job that has ended is a conflict.

        Raises `NotFoundError`, `IllegalTransitionError`.
        """

        def transaction(connection: sqlite3.Connection) -> Job:
            job, now_us = job_row.select(connection, job_id), self._clock.now_us()
            job_row.step_asked(job, Signal.CANCEL)
            if job.state is JobState.RUNNING:
                connection.execute("UPDATE jobs SET cancel_requested = 1 WHERE id = ?", (job_id,))
                job_row.tell(connection, now_us, "job.cancelling", job)
            else:
                job_row.end_cancelled(connection, job, now_us)
            return job_row.select(connection, job_id)

        return await self._database.write(transaction)

    async def retry(self, job_id: int, asked: JobRequest | None = None) -> Job:
        """Let a failed or cancelled job run again, with all its attempts, and return it.

        With `asked` it has key and arguments of that from then on. Where a job of its key waits
        already, that one is returned and nothing changes. Raises `NotFoundError`,
        `IllegalTransitionError`.
        """

        def transaction(connection: sqlite3.Connection) -> Job:
            job, now_us = job_row.select(connection, job_id), self._clock.now_us()
            state = job_row.step_asked(job, Signal.RETRY)
            key, args = (job.key, job.args) if asked is None else (asked.key, asked.args)
            waiting = job_row.find_waiting(connection, key)
            if waiting is not None:
                # The same thing waits already: that job serves this wish too.
                return waiting
            row = connection.execute(
                "UPDATE jobs SET key = ?, args = ?, state = ?, turn = ?, attempt = 0, crashes = 0,"
                " run_at_us = ?,"
                " finished_us = NULL, cancel_requested = 0, error_code = NULL,"
                " error_message = NULL, error_hint = NULL WHERE id = ? RETURNING *",
                (
                    key,
                    args,
                    state,
                    take_turn(connection, job.lane, job.priority, job.owner),
                    now_us,
                    job_id,
                ),
            ).fetchone()
            job_row.tell(connection, now_us, "job.retried", job)
            self._ripe.add(job.lane)
            return job_row.job_of(row)

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
            suspects = {
                job.id for job in blamed(job_row.job_of(row) for row in rows if row["died"])
            }
            for row in rows:
                job, why = job_row.job_of(row), ENDED if row["died"] else STOPPED
                if job.id in suspects:
                    job = job_row.count_crashes(connection, job, job.crashes + 1)
                if job.crashes >= MAX_CRASHES and not job.cancel_requested:
                    job_row.fail(connection, job, poison(job.id, why), now_us)
                else:
                    job_row.interrupt(connection, job, now_us, why)
            return len(rows)

        return await self._database.write(transaction)

    async def job(self, job_id: int) -> Job:
        """Return a job. Raises `NotFoundError`."""
        rows = await self._database.read("SELECT * FROM jobs WHERE id = ?", (job_id,))
        if not rows:
            raise job_row.unknown(job_id)
        return job_row.job_of(rows[0])

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
        return [job_row.job_of(row) for row in rows]

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
        for job in map(job_row.job_of, rows):
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
