"""What the ledger forgets, and when: jobs that ended, events, deliveries, keys of calls, lives.

Two bounds hold for each state that a job ends in, and for events: an age, which is configured, and
a number. The newest `KEPT_WHATEVER_AGE` are kept whatever their age: a clock that jumps years ahead
must not empty the ledger. Jobs that wait or run are never touched, nor those whose idempotency key
still holds; events go from the oldest on, so that the stream has an end and no holes.

A batch is a transaction of its own, small enough that nobody waits long behind it.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import takewhile

from kitd.clock import Clock
from kitd.config.model import RetentionConfig
from kitd.ledger.database import Database
from kitd.queue.job import JobState

BATCH_ROWS = 500
VACUUM_PAGES = 200
"""Pages that a batch gives back to the disk at most."""
KEPT_WHATEVER_AGE = 1_000
MAX_ENDED_JOBS = 10_000
"""Of each state that a job ends in."""
MAX_EVENTS = 200_000
MAX_KEYS = 100_000
MAX_LIVES = 1_000
MAX_DELIVERIES = 100_000
MAX_BODY_BYTES = 1 << 30
"""Of all deliveries that are held, as they are stored; the oldest bodies go first."""
DELIVERY_S = 7 * 24 * 3600.0
KEY_S = 24 * 3600.0
DROPPED_S = 2 * 24 * 3600.0
"""How long jobs are kept that were cancelled or superseded: nobody asks for them again."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How many rows of each kind a sweep removed."""

    jobs: int = 0
    events: int = 0
    keys: int = 0
    lives: int = 0
    deliveries: int = 0

    @property
    def rows(self) -> int:
        """All of them."""
        return self.jobs + self.events + self.keys + self.lives + self.deliveries


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one transaction removed, and whether there is nothing left to look at."""

    removed: int
    is_last: bool


class Retention:
    """Keeps the ledger within its bounds; they are asked for at every sweep."""

    def __init__(
        self, database: Database, clock: Clock, bounds: Callable[[], RetentionConfig]
    ) -> None:
        self._database = database
        self._clock = clock
        self._bounds = bounds

    async def sweep(self) -> Forgotten:
        """Remove what is beyond the bounds, batch by batch, and give its space back.

        Raises `LedgerError`, `DurabilityError`.
        """
        bounds, now_us = self._bounds(), self._clock.now_us()
        # Keys first: they hold the jobs that they stand for.
        keys = await self._drain(partial(_forget_keys, before_us=now_us - _us(KEY_S)))
        jobs = 0
        for state, keep_s in (
            (JobState.SUCCEEDED, bounds.succeeded_s),
            (JobState.FAILED, bounds.failed_s),
            (JobState.CANCELLED, DROPPED_S),
            (JobState.SUPERSEDED, DROPPED_S),
        ):
            cutoff = partial(_cutoff, state=state, aged_us=now_us - _us(keep_s))
            jobs += await self._drain(_EndedJobs(state, await self._database.write(cutoff)))
        aged_us = now_us - _us(bounds.events_s)
        events = await self._drain(partial(_forget_events, aged_us=aged_us))
        lives = await self._drain(_forget_lives)
        aged_us = now_us - _us(DELIVERY_S)
        deliveries = await self._drain(partial(_forget_deliveries, aged_us=aged_us))
        await self._forget_bodies()
        return Forgotten(jobs, events, keys, lives, deliveries)

    async def _forget_bodies(self) -> None:
        # Found by the reader: it looks at every row, and nobody must wait behind that.
        rows = await self._database.read(
            "SELECT max(id) AS newest FROM (SELECT id, sum(length(body)) OVER (ORDER BY id DESC)"
            " AS held_bytes FROM deliveries WHERE body IS NOT NULL) WHERE held_bytes > ?",
            (MAX_BODY_BYTES,),
        )
        if (newest := rows[0]["newest"]) is not None:
            await self._drain(partial(_forget_bodies, newest=newest))

    async def _drain(self, forget: Callable[[sqlite3.Connection], _Batch]) -> int:
        """Run batches until nothing is left; return how many rows they removed."""

        def transaction(connection: sqlite3.Connection) -> _Batch:
            batch = forget(connection)
            if batch.removed:
                _give_pages_back(connection)
            return batch

        total, is_last = 0, False
        while not is_last:
            batch = await self._database.write(transaction)
            total, is_last = total + batch.removed, batch.is_last
        return total


def _give_pages_back(connection: sqlite3.Connection) -> None:
    free: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
    # One at a time: the statement has a step for each page and no rows, and the `sqlite3` module
    # takes one step of such a statement.
    for _ in range(min(free, VACUUM_PAGES)):
        connection.execute("PRAGMA incremental_vacuum(1)")


def _us(duration_s: float) -> int:
    return int(duration_s * 1_000_000)


def _cutoff(connection: sqlite3.Connection, *, state: JobState, aged_us: int) -> int:
    """Return before which end a job of a state may be forgotten: by its age, or by their number."""
    nth = "SELECT finished_us FROM jobs WHERE state = ? AND finished_us IS NOT NULL"
    nth += " ORDER BY finished_us DESC LIMIT 1 OFFSET ?"
    kept = connection.execute(nth, (state, KEPT_WHATEVER_AGE - 1)).fetchone()
    if kept is None:
        return 0
    surplus = connection.execute(nth, (state, MAX_ENDED_JOBS - 1)).fetchone()
    by_age_us: int = min(aged_us, kept["finished_us"])
    return by_age_us if surplus is None else max(by_age_us, surplus["finished_us"])


class _EndedJobs:
    """The jobs of a state that ended before some time, a batch at a call, oldest first.

    It goes on after the last that it looked at, removed or held by a key: where many are held, no
    batch has to pass them all again.
    """

    def __init__(self, state: JobState, before_us: int) -> None:
        self._state = state
        self._before_us = before_us
        self._seen = (-(2**63), 0)

    def __call__(self, connection: sqlite3.Connection) -> _Batch:
        """Look at a batch; this is a transaction."""
        found = connection.execute(
            "SELECT id, finished_us, EXISTS (SELECT 1 FROM idempotency WHERE job = jobs.id) AS held"
            " FROM jobs WHERE state = ? AND finished_us < ? AND (finished_us, id) > (?, ?)"
            " ORDER BY finished_us, id LIMIT ?",
            (self._state, self._before_us, *self._seen, BATCH_ROWS),
        ).fetchall()
        if not found:
            return _Batch(0, is_last=True)
        self._seen = (found[-1]["finished_us"], found[-1]["id"])
        forgotten = [(row["id"],) for row in found if not row["held"]]
        # Who was superseded by one of them may stay for longer, and must not point into the void.
        connection.executemany(
            "UPDATE jobs SET superseded_by = NULL WHERE superseded_by = ?", forgotten
        )
        connection.executemany("DELETE FROM jobs WHERE id = ?", forgotten)
        return _Batch(len(forgotten), is_last=len(found) < BATCH_ROWS)


def _forget_events(connection: sqlite3.Connection, *, aged_us: int) -> _Batch:
    """Remove a batch of the oldest events, up to the first that has to stay."""
    head: int = connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0]
    oldest = connection.execute(
        "SELECT seq, at_us FROM events ORDER BY seq LIMIT ?", (BATCH_ROWS,)
    ).fetchall()
    forgotten = list(
        takewhile(
            lambda row: (
                row["seq"] <= head - MAX_EVENTS
                or (row["seq"] <= head - KEPT_WHATEVER_AGE and row["at_us"] < aged_us)
            ),
            oldest,
        )
    )
    if forgotten:
        connection.execute("DELETE FROM events WHERE seq <= ?", (forgotten[-1]["seq"],))
    return _Batch(len(forgotten), is_last=len(forgotten) < BATCH_ROWS)


def _forget_keys(connection: sqlite3.Connection, *, before_us: int) -> _Batch:
    """Remove a batch of idempotency keys: those that hold no longer, and the oldest surplus."""
    removed = connection.execute(
        "DELETE FROM idempotency WHERE (uid, key) IN"
        " (SELECT uid, key FROM idempotency WHERE created_us < max(?, coalesce("
        "   (SELECT created_us FROM idempotency ORDER BY created_us DESC LIMIT 1 OFFSET ?), 0))"
        "  ORDER BY created_us LIMIT ?)",
        (before_us, MAX_KEYS - 1, BATCH_ROWS),
    ).rowcount
    return _Batch(removed, is_last=removed < BATCH_ROWS)


def _forget_lives(connection: sqlite3.Connection) -> _Batch:
    """Remove a batch of the oldest lives of the daemon."""
    removed = connection.execute(
        "DELETE FROM epochs WHERE epoch IN (SELECT epoch FROM epochs WHERE epoch <="
        " (SELECT max(epoch) FROM epochs) - ? ORDER BY epoch LIMIT ?)",
        (MAX_LIVES, BATCH_ROWS),
    ).rowcount
    return _Batch(removed, is_last=removed < BATCH_ROWS)


def _forget_deliveries(connection: sqlite3.Connection, *, aged_us: int) -> _Batch:
    """Remove a batch of the oldest deliveries, up to the first that has to stay."""
    head: int = connection.execute("SELECT coalesce(max(id), 0) FROM deliveries").fetchone()[0]
    oldest = connection.execute(
        "SELECT id, received_us FROM deliveries ORDER BY id LIMIT ?", (BATCH_ROWS,)
    ).fetchall()
    forgotten = list(
        takewhile(
            lambda row: (
                row["id"] <= head - MAX_DELIVERIES
                or (row["id"] <= head - KEPT_WHATEVER_AGE and row["received_us"] < aged_us)
            ),
            oldest,
        )
    )
    if forgotten:
        connection.execute("DELETE FROM deliveries WHERE id <= ?", (forgotten[-1]["id"],))
    return _Batch(len(forgotten), is_last=len(forgotten) < BATCH_ROWS)


def _forget_bodies(connection: sqlite3.Connection, *, newest: int) -> _Batch:
    """Remove a batch of the bodies of the oldest deliveries, up to one; the rows stay."""
    removed = connection.execute(
        "UPDATE deliveries SET body = NULL WHERE id IN (SELECT id FROM deliveries"
        " WHERE body IS NOT NULL AND id <= ? ORDER BY id LIMIT ?)",
        (newest, BATCH_ROWS),
    ).rowcount
    return _Batch(removed, is_last=removed < BATCH_ROWS)
