"""What in the queue needs a person: read by kitd's health and by `kitctl doctor`.

Every look is bounded, and goes by an index or over rows whose number retention bounds.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from kitd.ledger.database import Database
from kitd.queue.job import Failure, Lane
from kitd.queue.retry import SUSPECT_CRASHES

MAX_JOBS = 100


@dataclass(frozen=True, slots=True)
class Ailing:
    """A job that is in trouble, and since when."""

    id: int
    kind: str
    key: str
    project: str | None
    reference: str | None
    since_us: int
    error: Failure


@dataclass(frozen=True, slots=True)
class Overdue:
    """The job of a lane whose turn is next, and since when it could have run."""

    id: int
    lane: Lane
    since_us: int
    running: int
    """Jobs of the lane that run."""


class TroubleLedger:
    """Looks at the queue for what is wrong with it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def poisoned(self) -> Sequence[Ailing]:
        """Return the jobs that were set aside because kitd or a worker kept dying of them."""
        return await self._ailing(
            "error_code = 'poison' AND state = 'failed' ORDER BY id DESC", "finished_us"
        )

    async def retrying(self) -> Sequence[Ailing]:
        """Return the jobs that wait for another attempt because the last one failed."""
        return await self._ailing(
            "state = 'scheduled' AND error_code IS NOT NULL ORDER BY run_at_us", "created_us"
        )

    async def failed_since(self, since_us: int) -> Sequence[Ailing]:
        """Return the jobs that failed after a time, newest first, unless their key succeeded since.

        Poison is not among them.
        """
        failed = await self._ailing(
            "state = 'failed' AND finished_us > ? AND error_code <> 'poison'"
            " ORDER BY finished_us DESC",
            "finished_us",
            (since_us,),
        )
        rows = await self._database.read(
            "SELECT key, max(finished_us) AS at_us FROM jobs"
            " WHERE state = 'succeeded' AND finished_us > ? GROUP BY key",
            (since_us,),
        )
        mended_us = {row["key"]: row["at_us"] for row in rows}
        return [job for job in failed if mended_us.get(job.key, 0) < job.since_us]

    async def overdue(self) -> Sequence[Overdue]:
        """Return for each lane the job that nothing keeps from being the next.

        Jobs that kitd died of before run one at a time, and are not among them.
        """
        rows = await self._database.read(
            "SELECT jobs.id, jobs.lane, max(jobs.run_at_us, coalesce(jobs.started_us, 0)) AS at_us,"
            " (SELECT count(*) FROM jobs AS other WHERE other.state = 'running'"
            "  AND other.lane = jobs.lane) AS running"
            " FROM json_each(?1) AS lanes JOIN jobs ON jobs.id ="
            " (SELECT id FROM jobs AS waiting WHERE state = 'ready' AND lane = lanes.value"
            "  AND crashes < ?2"
            "  AND NOT EXISTS (SELECT 1 FROM jobs AS other WHERE other.state = 'running'"
            "                  AND other.lock = waiting.lock)"
            "  ORDER BY priority DESC, turn, id LIMIT 1)",
            (_json(tuple(Lane)), SUSPECT_CRASHES),
        )
        return [Overdue(row["id"], Lane(row["lane"]), row["at_us"], row["running"]) for row in rows]

    async def newest_event_us(self) -> int | None:
        """Return when the newest event happened, by the clock of that time."""
        rows = await self._database.read("SELECT at_us FROM events ORDER BY seq DESC LIMIT 1")
        return rows[0]["at_us"] if rows else None

    async def _ailing(
        self, condition: str, since: str, parameters: tuple[object, ...] = ()
    ) -> Sequence[Ailing]:
        columns = "id, kind, key, project, reference, error_code, error_message, error_hint"
        rows = await self._database.read(
            f"SELECT {columns}, {since} AS since_us FROM jobs WHERE {condition} LIMIT ?",  # noqa: S608 - constant words
            (*parameters, MAX_JOBS),
        )
        return [
            Ailing(
                row["id"],
                row["kind"],
                row["key"],
                row["project"],
                row["reference"],
                row["since_us"],
                Failure(row["error_code"], row["error_message"], row["error_hint"]),
            )
            for row in rows
        ]


def _json(values: Collection[object]) -> str:
    return json.dumps(list(values))
