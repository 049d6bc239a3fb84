"""Deliveries of webhooks: kept once, in one transaction with the jobs that follow from them.

So an answer that a sender was given is true: there is a row, and its jobs are in the queue; and
what is sent again, because the answer was lost, is known by its name or its content.
"""

import json
import sqlite3
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kitd.clock import Clock
from kitd.errors import KitdError, NotFoundError
from kitd.ledger.database import Database
from kitd.ledger.event_ledger import emit
from kitd.ledger.job_ledger import JobLedger
from kitd.queue.job import JobRequest

MAX_LIST = 500
NAME_HOLDS_S = 24 * 3600.0
"""How long a name that comes again with the same content is the same delivery."""
FINGERPRINT_HOLDS_S = 600.0
"""How long equal content without a name is not kept once more."""
_LEVEL = 1
"""Of zlib: half of the best in a tenth of the time."""
_COLUMNS = (
    "id, source, name, received_us, state, reason, changes, jobs, replays, body_bytes,"
    " body IS NOT NULL AS has_body"
)


class NotReplayableError(KitdError):
    """Nothing is left of a delivery that could be read again."""

    code = "not_replayable"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelivery:
    """What is to be kept. Times are microseconds since the epoch."""

    source: str
    name: str | None
    """What the sender calls it, and will call it when it is sent again."""
    fingerprint: bytes
    received_us: int
    state: str
    """`accepted`, `ignored` or `malformed`."""
    reason: str | None
    changes: int
    headers: Mapping[str, str]
    body_bytes: int
    body: bytes | None
    """Packed by `pack_body`; None where it is not to be kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDelivery:
    """A delivery as the ledger holds it, without its body."""

    id: int
    source: str
    name: str | None
    received_us: int
    state: str
    reason: str | None
    changes: int
    jobs: tuple[int, ...]
    replays: int
    body_bytes: int
    has_body: bool


@dataclass(frozen=True, slots=True)
class Letter:
    """What a delivery can be read again from."""

    headers: Mapping[str, str]
    packed_body: bytes
    """For `unpack_body`."""
    received_us: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What reading a delivery again came to."""

    state: str
    reason: str | None
    changes: int


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries a list shows: those before or after some id, and not before some time."""

    source: str | None = None
    state: str | None = None
    before: int | None = None
    after: int | None = None
    since_us: int | None = None
    limit: int = 50


def pack_body(body: bytes) -> bytes:
    """Return a body as it is kept. Takes a while for a large one."""
    return zlib.compress(body, _LEVEL)


def unpack_body(packed: bytes) -> bytes:
    """Return a body as it came. Takes a while for a large one."""
    return zlib.decompress(packed)


class DeliveryLedger:
    """The deliveries of one ledger."""

    def __init__(self, database: Database, clock: Clock, jobs: JobLedger) -> None:
        self._database = database
        self._clock = clock
        self._jobs = jobs

    async def keep(self, new: NewDelivery, requests: Sequence[JobRequest]) -> int | None:
        """Keep a delivery and admit its jobs, all or nothing; return its number.

        None where it was kept before: then nothing is done again, unless it has no name. What is
        the same without one may be news all the same, and asks for its jobs, of which those that
        wait are joined. Raises `LedgerError`.
        """

        def transaction(connection: sqlite3.Connection) -> int | None:
            if _is_known(connection, new):
                if new.name is None:
                    self._admit(connection, requests)
                return None
            jobs = self._admit(connection, requests)
            cursor = connection.execute(
                "INSERT INTO deliveries (source, name, fingerprint, received_us, state, reason,"
                " changes, jobs, headers, body_bytes, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
                " ?)",
                (
                    new.source,
                    new.name,
                    new.fingerprint,
                    new.received_us,
                    new.state,
                    new.reason,
                    new.changes,
                    json.dumps(jobs),
                    json.dumps(dict(new.headers)),
                    new.body_bytes,
                    new.body,
                ),
            )
            delivery = cursor.lastrowid
            assert delivery is not None
            if new.state == "malformed":
                told = {"source": new.source, "delivery": delivery, "reason": new.reason}
                self._tell(connection, "webhook.malformed", new.source, told)
            return delivery

        return await self._database.write(transaction)

    async def replayed(
        self, delivery: int, outcome: Outcome, requests: Sequence[JobRequest]
    ) -> StoredDelivery:
        """Note what reading a delivery again came to, and admit its jobs, all or nothing.

        Raises `NotFoundError`, `LedgerError`.
        """

        def transaction(connection: sqlite3.Connection) -> StoredDelivery:
            jobs = self._admit(connection, requests)
            change = "state = ?, reason = ?, changes = ?, jobs = ?, replays = replays + 1"
            row = connection.execute(
                f"UPDATE deliveries SET {change} WHERE id = ? RETURNING {_COLUMNS}",  # noqa: S608 - constant words
                (outcome.state, outcome.reason, outcome.changes, json.dumps(jobs), delivery),
            ).fetchone()
            if row is None:
                raise _unknown(delivery)
            stored = _stored(row)
            told = {"source": stored.source, "delivery": delivery, "state": outcome.state}
            self._tell(connection, "webhook.replayed", stored.source, {**told, "jobs": jobs})
            return stored

        return await self._database.write(transaction)

    async def tell_refused(self, source: str, count: int) -> None:
        """Write an event of so many deliveries that were refused."""
        await self._database.write(
            lambda connection: self._tell(
                connection, "webhook.refused", source, {"source": source, "count": count}
            )
        )

    async def letter(self, delivery: int) -> Letter:
        """Return what can be read again.

        Raises `NotFoundError`, `NotReplayableError`.
        """
        rows = await self._database.read(
            "SELECT headers, body, received_us FROM deliveries WHERE id = ?", (delivery,)
        )
        if not rows:
            raise _unknown(delivery)
        row = rows[0]
        if row["body"] is None:
            raise NotReplayableError(
                f"the body of delivery {delivery} was not kept",
                hint="those that were ignored, and those that are old, cannot be replayed",
            )
        return Letter(json.loads(row["headers"]), row["body"], row["received_us"])

    async def get(self, delivery: int) -> StoredDelivery:
        """Return a delivery. Raises `NotFoundError`."""
        rows = await self._database.read(
            f"SELECT {_COLUMNS} FROM deliveries WHERE id = ?",  # noqa: S608 - constant words
            (delivery,),
        )
        if not rows:
            raise _unknown(delivery)
        return _stored(rows[0])

    async def list(self, wanted: DeliveryFilter) -> Sequence[StoredDelivery]:
        """Return deliveries, newest first; oldest first after an id."""
        conditions = {
            "source = ?": wanted.source,
            "state = ?": wanted.state,
            "id < ?": wanted.before,
            "id > ?": wanted.after,
            "received_us >= ?": wanted.since_us,
        }
        given = {words: value for words, value in conditions.items() if value is not None}
        order = "DESC" if wanted.after is None else "ASC"
        rows = await self._database.read(
            f"SELECT {_COLUMNS} FROM deliveries WHERE {' AND '.join(given) or 'true'}"  # noqa: S608 - constant words
            f" ORDER BY id {order} LIMIT ?",
            # SQLite takes a negative limit for none.
            (*given.values(), max(0, min(wanted.limit, MAX_LIST))),
        )
        return [_stored(row) for row in rows]

    async def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Return by source and state how many deliveries are held."""
        rows = await self._database.read(
            "SELECT source, state, count(*) AS deliveries FROM deliveries GROUP BY source, state"
        )
        found: dict[str, Counter[str]] = {}
        for row in rows:
            found.setdefault(row["source"], Counter())[row["state"]] = row["deliveries"]
        return found

    def _admit(
        self, connection: sqlite3.Connection, requests: Sequence[JobRequest]
    ) -> Sequence[int]:
        admitted = (self._jobs.admit(connection, request).id for request in requests)
        return list(dict.fromkeys(admitted))

    def _tell(
        self,
        connection: sqlite3.Connection,
        event_type: str,
        source: str,
        data: Mapping[str, object],
    ) -> None:
        emit(connection, self._clock.now_us(), event_type, f"webhook:{source}", data)


def _is_known(connection: sqlite3.Connection, new: NewDelivery) -> bool:
    """Whether a delivery came before. A row from a future that was none holds no longer either.

    The name alone does not tell: it may stand in a header that nobody signs.
    """
    if new.name is not None:
        held_us = int(NAME_HOLDS_S * 1_000_000)
        sql = "SELECT 1 FROM deliveries WHERE source = ? AND name = ? AND fingerprint = ?"
        key: tuple[object, ...] = (new.source, new.name, new.fingerprint)
    else:
        held_us = int(FINGERPRINT_HOLDS_S * 1_000_000)
        sql = "SELECT 1 FROM deliveries WHERE fingerprint = ? AND name IS NULL"
        key = (new.fingerprint,)
    span = (new.received_us - held_us, new.received_us + held_us)
    found = connection.execute(f"{sql} AND received_us BETWEEN ? AND ? LIMIT 1", (*key, *span))
    return found.fetchone() is not None


def _stored(row: sqlite3.Row) -> StoredDelivery:
    return StoredDelivery(
        id=row["id"],
        source=row["source"],
        name=row["name"],
        received_us=row["received_us"],
        state=row["state"],
        reason=row["reason"],
        changes=row["changes"],
        jobs=tuple(json.loads(row["jobs"])),
        replays=row["replays"],
        body_bytes=row["body_bytes"],
        has_body=bool(row["has_body"]),
    )


def _unknown(delivery: int) -> NotFoundError:
    return NotFoundError(
        f"there is no delivery {delivery}", hint="kitctl webhooks list shows what is held"
    )
