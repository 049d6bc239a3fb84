"""Events: what happened, in one order, readable from any point.

An event is written by `emit` inside the transaction of the change it tells of, so the stream is
neither ahead of the state nor behind it.
"""

import asyncio
import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import msgspec

from kitd.errors import KitdError
from kitd.ledger.database import Database

MAX_READ = 500
"""Events that one read returns at most."""


class CursorError(KitdError):
    """The reader's place in the stream does not exist."""


class CursorTruncatedError(CursorError):
    """Events after the cursor were removed by retention."""

    code: ClassVar[str] = "cursor_truncated"


class CursorFutureError(CursorError):
    """The cursor is beyond the newest event: the ledger is not the one it was taken from."""

    code: ClassVar[str] = "cursor_future"


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `subject` is `job:12`, `project:name`, `kit:sha256:…` or `daemon`."""

    seq: int
    at_us: int
    type: str
    subject: str
    job: int | None
    project: str | None
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events a reader wants; an empty filter wants all."""

    types: frozenset[str] = field(default_factory=frozenset)
    project: str | None = None
    job: int | None = None


def emit(
    connection: sqlite3.Connection,
    at_us: int,
    event_type: str,
    subject: str,
    data: Mapping[str, object],
    *,
    job: int | None = None,
    project: str | None = None,
) -> None:
    """Append an event to the transaction of `connection`."""
    connection.execute(
        "INSERT INTO events (at_us, type, subject, job, project, data) VALUES (?, ?, ?, ?, ?, ?)",
        (at_us, event_type, subject, job, project, msgspec.json.encode(data).decode()),
    )


def _event(row: sqlite3.Row) -> Event:
    return Event(
        seq=row["seq"],
        at_us=row["at_us"],
        type=row["type"],
        subject=row["subject"],
        job=row["job"],
        project=row["project"],
        data=json.loads(row["data"]),
    )


class EventLedger:
    """Reads the stream and wakes those who wait for its end to move."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._moved = asyncio.Event()
        database.on_commit(self._wake)

    def _wake(self) -> None:
        # Whoever waits holds the old event; the next reader gets a fresh one.
        self._moved.set()
        self._moved = asyncio.Event()

    async def head_seq(self) -> int:
        """Return the newest event's number, 0 where nothing ever happened."""
        # sqlite_sequence and not max(seq): retention must not move the head backwards.
        sql = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'"
        rows = await self._database.read(sql)
        head: int = rows[0][0]
        return head

    async def floor_seq(self) -> int:
        """Return the number before the oldest event that is still held."""
        rows = await self._database.read("SELECT min(seq) FROM events")
        oldest: int | None = rows[0][0]
        return await self.head_seq() if oldest is None else oldest - 1

    async def read(
        self, after_seq: int, limit: int, wanted: EventFilter | None = None
    ) -> Sequence[Event]:
        """Return events with `seq > after_seq`, oldest first, at most `limit`.

        Raises `CursorTruncatedError`, `CursorFutureError`.
        """
        wanted = wanted or EventFilter()
        rows = await self._database.read(
            "SELECT * FROM events"
            " WHERE seq > ?1 AND (?2 IS NULL OR job = ?2) AND (?3 IS NULL OR project = ?3)"
            " AND (?4 = '[]' OR type IN (SELECT value FROM json_each(?4)))"
            " ORDER BY seq LIMIT ?5",
            (
                after_seq,
                wanted.job,
                wanted.project,
                json.dumps(sorted(wanted.types)),
                # SQLite takes a negative limit for none.
                max(0, min(limit, MAX_READ)),
            ),
        )
        # Afterwards: where the floor is below the cursor by now, it was while the rows were read.
        floor, head = await self.floor_seq(), await self.head_seq()
        if after_seq < floor:
            raise CursorTruncatedError(
                f"events before {floor + 1} are no longer held", hint=f"start from {floor}"
            )
        if after_seq > head:
            raise CursorFutureError(
                f"the newest event is {head}, {after_seq} has not happened",
                hint="the ledger was replaced; read the state again and start from its head",
            )
        return [_event(row) for row in rows]

    async def of_job(self, job: int) -> Sequence[Event]:
        """Return what is still held of a job's events, oldest first, at most `MAX_READ`."""
        rows = await self._database.read(
            "SELECT * FROM events WHERE job = ? ORDER BY seq LIMIT ?", (job, MAX_READ)
        )
        return [_event(row) for row in rows]

    async def wait(self, after_seq: int) -> None:
        """Return once an event later than `after_seq` exists."""
        while True:
            moved = self._moved
            if await self.head_seq() > after_seq:
                return
            await moved.wait()
