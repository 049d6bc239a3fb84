"""What is measured of the ledger: read at every scrape, however much it holds.

Every look goes by an index that has all it needs, or reads a table that is small by nature.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from kitd.ledger.database import Database
from kitd.ledger.event_ledger import EventLedger
from kitd.ledger.tally import Tallied
from kitd.queue.job import JobState, Lane
from kitd.queue.retry import SUSPECT_CRASHES

MAX_ROWS = 20_000
"""Tallies and endpoints have names that configurations had once; none has so many."""
MAX_LOOKED_AT = 100
"""Of each lane, the oldest is looked for among so many of the jobs that nothing keeps, those that
were asked for first. What was tried before can have waited for less than what came later."""

_QUEUED_STATES = (JobState.READY, JobState.SCHEDULED, JobState.RUNNING)
_QUEUE = (
    # Left to itself SQLite would look at the row of each job that waits.
    "SELECT lanes.value AS lane,"
    " (SELECT count(*) FROM jobs INDEXED BY jobs_ready"
    "  WHERE state = 'ready' AND lane = lanes.value) AS ready,"
    " (SELECT count(*) FROM jobs INDEXED BY jobs_scheduled_by_lane"
    "  WHERE state = 'scheduled' AND lane = lanes.value) AS scheduled,"
    " (SELECT count(*) FROM jobs INDEXED BY jobs_running"
    "  WHERE state = 'running' AND lane = lanes.value) AS running,"
    " (SELECT min(max(run_at_us, coalesce(started_us, 0))) FROM jobs WHERE id IN"
    "  (SELECT id FROM jobs AS waiting INDEXED BY jobs_ready"
    "   WHERE state = 'ready' AND lane = lanes.value AND crashes < ?2"
    "   AND NOT EXISTS (SELECT 1 FROM jobs AS other INDEXED BY jobs_running"
    "                   WHERE other.state = 'running' AND other.lock = waiting.lock)"
    "   ORDER BY id LIMIT ?3)) AS since_us"
    " FROM json_each(?1) AS lanes"
)


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far an endpoint was told of events, and how often it has failed in a row."""

    seq: int
    failures: int


@dataclass(frozen=True, slots=True)
class LedgerReading:
    """The ledger's numbers, of one moment or of a few that lie side by side."""

    head_seq: int
    queue: Mapping[tuple[JobState, Lane], int]
    """How many jobs wait or run."""
    oldest_us: Mapping[Lane, int]
    """Since when the oldest job could have run that nothing keeps: neither another one that holds
    its lock, nor that kitd died of it before."""
    tallies: Mapping[Tallied, Mapping[tuple[str, str], int]]
    """By name and outcome."""
    cursors: Mapping[str, Cursor]


class MeterLedger:
    """Reads the numbers of one ledger."""

    def __init__(self, database: Database, events: EventLedger) -> None:
        self._database = database
        self._events = events

    async def read(self) -> LedgerReading:
        """Return the numbers as they are now. Raises `LedgerError`."""
        queue, oldest_us = await self._queue()
        rows = await self._database.read("SELECT * FROM tallies LIMIT ?", (MAX_ROWS,))
        tallies: dict[Tallied, dict[tuple[str, str], int]] = {each: {} for each in Tallied}
        for row in rows:
            tallies[Tallied(row["subject"])][row["name"], row["outcome"]] = row["count"]
        rows = await self._database.read(
            "SELECT name, cursor, failures FROM outbox LIMIT ?", (MAX_ROWS,)
        )
        return LedgerReading(
            head_seq=await self._events.head_seq(),
            queue=queue,
            oldest_us=oldest_us,
            tallies=tallies,
            cursors={row["name"]: Cursor(row["cursor"], row["failures"]) for row in rows},
        )

    async def _queue(self) -> tuple[dict[tuple[JobState, Lane], int], dict[Lane, int]]:
        rows = await self._database.read(
            _QUEUE, (json.dumps(list(Lane)), SUSPECT_CRASHES, MAX_LOOKED_AT)
        )
        queue = {
            (state, Lane(row["lane"])): row[state.value] for row in rows for state in _QUEUED_STATES
        }
        since_us = {Lane(row["lane"]): row["since_us"] for row in rows}
        return queue, {lane: at_us for lane, at_us in since_us.items() if at_us is not None}
