"""How far each endpoint has been told of events, and what is wrong with those that fail."""

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from kitd.clock import Clock
from kitd.ledger.database import Database
from kitd.ledger.event_ledger import CursorTruncatedError, Event, EventLedger, emit
from kitd.ledger.tally import Tallied, tally
from kitd.queue.job import Failure

MAX_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Page:
    """Events after a cursor; none if those up to `forgotten_seq` are no longer held."""

    events: Sequence[Event] = ()
    forgotten_seq: int | None = None


@dataclass(frozen=True, slots=True)
class FailingEndpoint:
    """An endpoint that failed so many times in a row, the last time with `error`."""

    name: str
    failures: int
    since_us: int
    error: Failure


class OutboxLedger:
    """The cursors of the endpoints, beside the events that they point into."""

    def __init__(self, database: Database, events: EventLedger, clock: Clock) -> None:
        self._database = database
        self._events = events
        self._clock = clock

    async def keep(self, names: Collection[str]) -> Mapping[str, int]:
        """Keep these endpoints and forget all others; return the cursor of each.

        One that is new begins at the newest event.
        """

        def transaction(connection: sqlite3.Connection) -> Mapping[str, int]:
            listed = json.dumps(sorted(names))
            connection.execute(
                "DELETE FROM outbox WHERE name NOT IN (SELECT value FROM json_each(?))", (listed,)
            )
            connection.execute(
                "INSERT INTO outbox (name, cursor) SELECT value, coalesce("
                "  (SELECT max(seq) FROM sqlite_sequence WHERE name = 'events'), 0)"
                " FROM json_each(?) WHERE true ON CONFLICT DO NOTHING",
                (listed,),
            )
            rows = connection.execute("SELECT name, cursor FROM outbox").fetchall()
            return {row["name"]: row["cursor"] for row in rows}

        return await self._database.write(transaction)

    async def read(self, after_seq: int, limit: int) -> Page:
        """Return events after a cursor, oldest first, or how far they are forgotten."""
        try:
            return Page(await self._events.read(after_seq, limit))
        except CursorTruncatedError:
            return Page(forgotten_seq=await self._events.floor_seq())

    async def wait(self, after_seq: int) -> None:
        """Return once an event later than `after_seq` exists."""
        await self._events.wait(after_seq)

    async def advance(self, name: str, seq: int, *, told: bool) -> None:
        """Record that an endpoint needs no event up to `seq`.

        With `told` because it took one of them, which ends whatever was wrong with it.
        """
        mended = ", failures = 0, failing_since_us = NULL, error_code = NULL"
        mended += ", error_message = NULL, error_hint = NULL"
        sql = f"UPDATE outbox SET cursor = max(cursor, ?){mended if told else ''} WHERE name = ?"  # noqa: S608

        def transaction(connection: sqlite3.Connection) -> None:
            connection.execute(sql, (seq, name))

        await self._database.write(transaction)

    async def note_failure(self, name: str, error: Failure) -> None:
        """Record that an endpoint failed once more, and why."""
        now_us = self._clock.now_us()

        def transaction(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE outbox SET failures = failures + 1, error_code = ?, error_message = ?,"
                " error_hint = ?, failing_since_us = coalesce(failing_since_us, ?)"
                " WHERE name = ?",
                (error.code, error.message, error.hint, now_us, name),
            )

        await self._database.write(transaction)

    async def drop(self, name: str, seq: int, *, events: int, why: str) -> None:
        """Record that an endpoint is never told of so many events up to `seq`, and tell that."""
        now_us = self._clock.now_us()

        def transaction(connection: sqlite3.Connection) -> None:
            moved = connection.execute(
                "UPDATE outbox SET cursor = ?1 WHERE name = ?2 AND cursor < ?1", (seq, name)
            ).rowcount
            # An endpoint that was taken out of the configuration meanwhile is missed by nobody.
            if moved:
                data = {"endpoint": name, "events": events, "through": seq, "why": why}
                emit(connection, now_us, "notification.dropped", f"notification:{name}", data)
                tally(connection, Tallied.NOTIFICATION, name, "dropped", events)

        await self._database.write(transaction)

    async def failing(self, at_least: int) -> Sequence[FailingEndpoint]:
        """Return the endpoints that failed so often in a row, by name, at most `MAX_SHOWN`."""
        rows = await self._database.read(
            "SELECT * FROM outbox WHERE failures >= ? ORDER BY name LIMIT ?",
            (max(at_least, 1), MAX_SHOWN),
        )
        return [
            FailingEndpoint(
                row["name"],
                row["failures"],
                row["failing_since_us"],
                Failure(row["error_code"], row["error_message"], row["error_hint"]),
            )
            for row in rows
        ]
