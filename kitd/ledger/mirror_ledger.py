"""What mirrors remember: how the ends of each edge stood, schedules' starts, ages of manifests."""

import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from kitd.clock import Clock
from kitd.ledger.database import Database
from kitd.ledger.event_ledger import emit
from kitd.ledger.tally import Tallied, tally
from kitd.mirror.decide import AT_ONCE_US
from kitd.mirror.edge import (
    Agreed,
    Back,
    Conflict,
    Eased,
    Edge,
    Failed,
    Forgotten,
    Gone,
    Memory,
    Note,
    Referred,
    Removed,
)
from kitd.oci.digest import Digest
from kitd.oci.reference import Repository

MAX_AGES = 100_000
MAX_GIVEN_UP = 100
PAGE = 5000
"""Rows that are made into values at once: everybody else waits for it."""

_UNSAID = -(1 << 62)
"""Stands in the ledger for a time that a manifest does not tell."""

_BETWEEN = (
    "SELECT source_tag, target_tag, digest, equal_us, referrers_us, gone_us, rule, error_code"
    " FROM mirror_edges"
    " WHERE source_registry = ?1 AND source_name = ?2"
    " AND target_registry = ?3 AND target_name = ?4"
)
_PAGE = " AND (source_tag, target_tag) > (?5, ?6) ORDER BY source_tag, target_tag LIMIT ?7"
_AGREED_ON = (
    " AND digest IN (SELECT value FROM json_each(?5)"
    " UNION SELECT root FROM index_manifests WHERE manifest IN (SELECT value FROM json_each(?5)))"
)
# As two selects, because each of them is a look into the index.
_BOTH_WAYS = (
    "SELECT digest, equal_us, error_code, gone_us FROM mirror_edges"
    " WHERE source_registry = ?1 AND source_name = ?2 AND source_tag = ?3"
    " AND target_registry = ?4 AND target_name = ?5 AND target_tag = ?6"
    " UNION ALL SELECT digest, equal_us, error_code, gone_us FROM mirror_edges"
    " WHERE source_registry = ?4 AND source_name = ?5 AND source_tag = ?6"
    " AND target_registry = ?1 AND target_name = ?2 AND target_tag = ?3"
    " ORDER BY equal_us DESC"
)
_TAKE_UP = (
    "INSERT INTO mirror_edges (source_registry, source_name, source_tag, target_registry,"
    " target_name, target_tag, rule) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"
    # Only who copied it, or found it there, has it from another: what is its own it may remove.
    " ON CONFLICT DO UPDATE SET"
    " rule = CASE WHEN ?8 OR digest IS NULL THEN coalesce(excluded.rule, rule) ELSE rule END"
    " RETURNING id, conflict"
)
_IS = (
    "source_registry = ? AND source_name = ? AND source_tag = ?"
    " AND target_registry = ? AND target_name = ? AND target_tag = ?"
)
_FORGET = f"DELETE FROM mirror_edges WHERE {_IS}"  # noqa: S608
_FORGIVE = (
    "UPDATE mirror_edges SET error_code = NULL, error_message = NULL, failed_us = NULL"  # noqa: S608
    f" WHERE {_IS}"
)
_PUT_OFF = f"UPDATE mirror_edges SET failed_us = ? WHERE {_IS} AND error_code IS NOT NULL"  # noqa: S608
_COUNT_REMOVED = (
    "INSERT INTO mirror_removals (source_registry, source_name, target_registry, target_name,"
    " removed_us) VALUES (?, ?, ?, ?, ?)"
)


@dataclass(frozen=True, slots=True)
class RuleCounts:
    """How the edges of one mirror stand."""

    edges: int
    failed: int
    conflicts: int
    gone: int
    equal_us: int | None
    """When one of them was last seen equal."""


@dataclass(frozen=True, slots=True)
class EdgeRow:
    """One edge, for people."""

    edge: Edge
    rule: str | None
    digest: Digest | None
    equal_us: int | None
    gone_us: int | None
    conflict: str | None
    error_code: str | None
    error_message: str | None


class MirrorLedger:
    """The memory of mirrors. Implements `kitd.jobs.port.MirrorMemory`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def edges(
        self, source: Repository, target: Repository, tags: Collection[str] | None = None
    ) -> Mapping[tuple[str, str], Memory]:
        """Return what is remembered between two repositories, by source's and target's tag.

        That is of some tags of the source, or of all. What the other direction remembers counts
        where it is newer: it is the same agreement.
        """
        here, there = (source.registry, source.name), (target.registry, target.name)
        found = {}
        async for row in self._rows((*here, *there), "source_tag", tags):
            found[row["source_tag"], row["target_tag"]] = _memory(row)
        async for row in self._rows((*there, *here), "target_tag", tags):
            key = (row["target_tag"], row["source_tag"])
            own = found.get(key, Memory(None, 0, 0, None))
            own = replace(own, returned=row["rule"] is not None and row["digest"] is not None)
            if row["equal_us"] > own.equal_us:
                own = replace(own, digest=row["digest"], equal_us=row["equal_us"])
            if key in found or own.digest is not None:
                found[key] = own
        return found

    async def _rows(
        self, pair: tuple[str, str, str, str], column: str, tags: Collection[str] | None
    ) -> AsyncIterator[sqlite3.Row]:
        """Yield the rows between two repositories, a page at a time."""
        if tags is not None:
            sql = f"{_BETWEEN} AND {column} IN (SELECT value FROM json_each(?5))"  # noqa: S608
            for row in await self._database.read(sql, (*pair, json.dumps(list(tags)))):
                yield row
            return
        last = ("", "")
        while page := await self._database.read(_BETWEEN + _PAGE, (*pair, *last, PAGE)):
            for row in page:
                yield row
            last = (page[-1]["source_tag"], page[-1]["target_tag"])

    async def had_no_source(self, source: Repository, target: Repository) -> bool:
        """Whether nothing could be told of a source when it was last to be copied to a target."""
        rows = await self._database.read(
            f"{_BETWEEN} AND source_tag = ''",
            (source.registry, source.name, target.registry, target.name),
        )
        return bool(rows)

    async def agreed_on(
        self, source: Repository, target: Repository, manifests: Collection[Digest]
    ) -> Mapping[Digest, Sequence[tuple[str, str]]]:
        """Return what both ends agreed on and that is, or lists, one of these manifests.

        By its digest the tags of source and target that name it. What the other direction agreed
        on is among it.
        """
        asked = json.dumps(list(manifests))
        here, there = (source.registry, source.name), (target.registry, target.name)
        found: dict[Digest, dict[tuple[str, str], None]] = {}
        for row in await self._database.read(_BETWEEN + _AGREED_ON, (*here, *there, asked)):
            tags = row["source_tag"], row["target_tag"]
            found.setdefault(row["digest"], {})[tags] = None
        for row in await self._database.read(_BETWEEN + _AGREED_ON, (*there, *here, asked)):
            tags = row["target_tag"], row["source_tag"]
            found.setdefault(row["digest"], {})[tags] = None
        return {digest: tuple(tags) for digest, tags in found.items()}

    async def agreed_among(
        self, source: Repository, target: Repository, manifests: Collection[Digest]
    ) -> frozenset[Digest]:
        """Return those of some manifests that both ends agreed on, or that are listed by such.

        Whichever direction did.
        """
        asked = json.dumps(list(manifests))
        here, there = (source.registry, source.name), (target.registry, target.name)
        found: set[Digest] = set()
        for pair in ((*here, *there), (*there, *here)):
            rows = await self._database.read(
                "SELECT value FROM json_each(?5) WHERE EXISTS (SELECT 1 FROM mirror_edges"
                " WHERE source_registry = ?1 AND source_name = ?2"
                " AND target_registry = ?3 AND target_name = ?4"
                " AND (digest = value"
                " OR digest IN (SELECT root FROM index_manifests WHERE manifest = value)))",
                (*pair, asked),
            )
            found.update(Digest(row["value"]) for row in rows)
        return frozenset(found)

    async def removed(self, source: Repository, target: Repository) -> int:
        """Return how many tags of a target went within `AT_ONCE_US` because the source's had gone.

        Those that a person has agreed to are not among them.
        """
        rows = await self._database.read(
            "SELECT count(*) AS removed FROM mirror_removals"
            " WHERE source_registry = ? AND source_name = ?"
            " AND target_registry = ? AND target_name = ? AND removed_us > ?",
            (
                *(source.registry, source.name, target.registry, target.name),
                self._clock.now_us() - AT_ONCE_US,
            ),
        )
        count: int = rows[0]["removed"]
        return count

    async def note(self, rule: str | None, notes: Sequence[Note]) -> None:
        """Write down how edges stand, with the events that tell of it, in one transaction."""
        if not notes:
            return

        def transaction(connection: sqlite3.Connection) -> None:
            now_us = self._clock.now_us()
            for note in notes:
                _write(connection, rule, note, now_us)
            outcomes = Counter(filter(None, map(_outcome, notes)))
            for outcome, count in outcomes.items():
                tally(connection, Tallied.MIRROR_EDGE, rule or "", outcome, count)

        await self._database.write(transaction)

    async def sources(self, rule: str) -> Sequence[Repository]:
        """Return the repositories that a mirror was seen to concern."""
        rows = await self._database.read(
            "SELECT DISTINCT source_registry, source_name FROM mirror_edges WHERE rule = ?",
            (rule,),
        )
        return [Repository(*row) for row in rows]

    async def ages(self, digests: Collection[Digest]) -> Mapping[Digest, int | None]:
        """Return when manifests were made (microseconds), of those that were looked at.

        None is for those that do not say so.
        """
        rows = await self._database.read(
            "SELECT digest, created_us FROM manifest_ages"
            " WHERE digest IN (SELECT value FROM json_each(?))",
            (json.dumps(list(digests)),),
        )
        return {
            Digest(row["digest"]): None if row["created_us"] == _UNSAID else row["created_us"]
            for row in rows
        }

    async def learn_ages(self, ages: Mapping[Digest, int | None]) -> None:
        """Remember when manifests were made."""

        def transaction(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT INTO manifest_ages (digest, created_us) VALUES (?, ?)"
                " ON CONFLICT DO NOTHING",
                [(digest, _UNSAID if us is None else us) for digest, us in ages.items()],
            )
            connection.execute(
                "DELETE FROM manifest_ages WHERE digest IN (SELECT digest FROM manifest_ages"
                " ORDER BY created_us DESC LIMIT -1 OFFSET ?)",
                (MAX_AGES,),
            )

        await self._database.write(transaction)

    async def tidy(self) -> None:
        """Forget what indexes list that no mirror has agreed on any more, and old removals."""
        before_us = self._clock.now_us() - AT_ONCE_US

        def transaction(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM mirror_removals WHERE removed_us < ?", (before_us,))
            connection.execute(
                "DELETE FROM index_manifests WHERE NOT EXISTS"
                " (SELECT 1 FROM mirror_edges WHERE digest = root)"
            )

        await self._database.write(transaction)

    async def starts(self) -> Mapping[str, int]:
        """Return when each mirror was last started by its schedule (microseconds)."""
        rows = await self._database.read("SELECT rule, started_us FROM mirror_starts")
        return {row["rule"]: row["started_us"] for row in rows}

    async def note_start(self, rule: str, at_us: int) -> None:
        """Note that a schedule has started a mirror."""

        def transaction(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO mirror_starts (rule, started_us) VALUES (?1, ?2)"
                " ON CONFLICT DO UPDATE SET started_us = ?2",
                (rule, at_us),
            )

        await self._database.write(transaction)

    async def given_up(self, before_us: int) -> Sequence[EdgeRow]:
        """Return edges that failed before that and not since, at most `MAX_GIVEN_UP`, oldest first.

        They may belong to mirrors, targets and tags that nobody means any more.
        """
        rows = await self._database.read(
            "SELECT * FROM mirror_edges WHERE error_code IS NOT NULL AND failed_us < ?"
            " ORDER BY failed_us LIMIT ?",
            (before_us, MAX_GIVEN_UP),
        )
        return list(map(_edge_row, rows))

    async def put_off(self, edges: Collection[Edge]) -> None:
        """Note that it was asked again for edges that failed: others come first next time."""
        now_us = self._clock.now_us()

        def transaction(connection: sqlite3.Connection) -> None:
            connection.executemany(
                _PUT_OFF,
                [(now_us, *_here(edge), *_there(edge)) for edge in edges],
            )

        await self._database.write(transaction)

    async def forgive(self, edges: Collection[Edge]) -> None:
        """Forget that edges failed; what both ends once agreed on is kept."""

        def transaction(connection: sqlite3.Connection) -> None:
            for edge in edges:
                ends = (*_here(edge), *_there(edge))
                connection.execute(f"{_FORGET} AND digest IS NULL", ends)
                connection.execute(_FORGIVE, ends)

        await self._database.write(transaction)

    async def gone(self, after_us: int, until_us: int) -> Sequence[tuple[Repository, Repository]]:
        """Return sources of which tags were seen to be gone in this time, each with the target."""
        rows = await self._database.read(
            "SELECT DISTINCT source_registry, source_name, target_registry, target_name"
            " FROM mirror_edges WHERE gone_us > ? AND gone_us <= ?",
            (after_us, until_us),
        )
        return [
            (
                Repository(row["source_registry"], row["source_name"]),
                Repository(row["target_registry"], row["target_name"]),
            )
            for row in rows
        ]

    async def counts(self) -> Mapping[str, RuleCounts]:
        """Return how the edges of each mirror of the configuration stand."""
        rows = await self._database.read(
            "SELECT rule, count(nullif(source_tag, '')) AS edges, count(error_code) AS failed,"
            " count(conflict) AS conflicts, count(gone_us) AS gone,"
            " nullif(max(equal_us), 0) AS equal_us"
            " FROM mirror_edges WHERE rule IS NOT NULL GROUP BY rule"
        )
        return {
            row["rule"]: RuleCounts(
                row["edges"], row["failed"], row["conflicts"], row["gone"], row["equal_us"]
            )
            for row in rows
        }

    async def rows(self, rule: str, limit: int) -> Sequence[EdgeRow]:
        """Return edges of a mirror, those in trouble first."""
        rows = await self._database.read(
            "SELECT * FROM mirror_edges WHERE rule = ?"
            " ORDER BY error_code IS NULL, conflict IS NULL, gone_us IS NULL,"
            " source_registry, source_name, source_tag, target_registry, target_name LIMIT ?",
            (rule, limit),
        )
        return list(map(_edge_row, rows))

    async def are_agreed(self, edge: Edge, digest: Digest) -> bool:
        """Whether both ends of an edge had this very manifest when they were last seen."""
        rows = await self._database.read(_BOTH_WAYS, (*_here(edge), *_there(edge)))
        if not rows or rows[0]["digest"] != digest:
            return False
        return all(row["error_code"] is None and row["gone_us"] is None for row in rows)


def _here(edge: Edge) -> tuple[str, str, str]:
    return edge.source.registry, edge.source.name, edge.tag


def _there(edge: Edge) -> tuple[str, str, str]:
    return edge.target.registry, edge.target.name, edge.target_tag


def _edge_row(row: sqlite3.Row) -> EdgeRow:
    return EdgeRow(
        Edge(
            Repository(row["source_registry"], row["source_name"]),
            row["source_tag"],
            Repository(row["target_registry"], row["target_name"]),
            row["target_tag"],
        ),
        row["rule"],
        row["digest"],
        row["equal_us"] or None,
        row["gone_us"],
        row["conflict"],
        row["error_code"],
        row["error_message"],
    )


def _memory(row: sqlite3.Row) -> Memory:
    return Memory(
        row["digest"],
        row["equal_us"],
        row["referrers_us"],
        row["gone_us"],
        row["rule"],
        has_failed=row["error_code"] is not None,
    )


def _conflict(
    named: Mapping[str, str | None], source: Digest, target: Digest, *, overwritten: bool
) -> dict[str, object]:
    return {
        **named,
        "source_digest": source,
        "target_digest": target,
        "overwritten": overwritten,
    }


def _outcome(note: Note) -> str | None:
    """Return what a note counts as; conflicts count where they are told, which is once."""
    match note:
        case Agreed(copied=True):
            return "copied"
        case Failed():
            return "failed"
        case Removed():
            return "removed"
        case _:
            return None


def _write(connection: sqlite3.Connection, rule: str | None, note: Note, now_us: int) -> None:
    edge = note.edge
    values = (*_here(edge), *_there(edge), rule, isinstance(note, Agreed))
    row = connection.execute(_TAKE_UP, values).fetchone()
    source, target = edge.ends
    named = {"source": source, "target": target, "mirror": rule}
    match note:
        case Agreed():
            _agree(connection, row["id"], note, named, now_us)
        case Referred():
            connection.execute(
                "UPDATE mirror_edges SET referrers_us = ? WHERE id = ?", (now_us, row["id"])
            )
            if note.sent_bytes:
                data = {**named, "bytes": note.sent_bytes}
                emit(connection, now_us, "kit.mirrored", f"kit:{note.digest}", data)
        case Back():
            connection.execute(
                "UPDATE mirror_edges SET gone_us = NULL, error_code = NULL, error_message = NULL,"
                " failed_us = NULL WHERE id = ?",
                (row["id"],),
            )
        case Conflict():
            conflict = f"{note.source} {note.target}"
            # Told once, however often it is met.
            if row["conflict"] != conflict:
                connection.execute(
                    "UPDATE mirror_edges SET conflict = ? WHERE id = ?", (conflict, row["id"])
                )
                told = _conflict(named, note.source, note.target, overwritten=False)
                emit(connection, now_us, "mirror.conflict", f"tag:{target}", told)
                tally(connection, Tallied.MIRROR_EDGE, rule or "", "conflict")
        case Eased():
            connection.execute(
                "UPDATE mirror_edges"
                " SET error_code = NULL, error_message = NULL, failed_us = NULL WHERE id = ?",
                (row["id"],),
            )
        case Failed():
            connection.execute(
                "UPDATE mirror_edges SET error_code = ?, error_message = ?, failed_us = ?"
                " WHERE id = ?",
                (note.code, note.message, now_us, row["id"]),
            )
        case Forgotten():
            connection.execute(_FORGET, (*_here(edge), *_there(edge)))
        case Gone():
            connection.execute(
                "UPDATE mirror_edges SET gone_us = coalesce(gone_us, ?), error_code = NULL,"
                " error_message = NULL, failed_us = NULL WHERE id = ?",
                (now_us, row["id"]),
            )
        case Removed():
            _remove(connection, note, now_us)
            if edge.tag:
                emit(connection, now_us, "mirror.removed", f"tag:{target}", named)
        case _:
            assert_never(note)


def _agree(
    connection: sqlite3.Connection,
    row: int,
    note: Agreed,
    named: Mapping[str, str | None],
    now_us: int,
) -> None:
    connection.execute(
        "UPDATE mirror_edges SET digest = ?1, equal_us = ?2, gone_us = NULL,"
        " referrers_us = CASE WHEN ?3 THEN ?2 ELSE referrers_us END, conflict = NULL,"
        " error_code = NULL, error_message = NULL, failed_us = NULL WHERE id = ?4",
        (note.digest, now_us, note.with_referrers, row),
    )
    connection.executemany(
        "INSERT INTO index_manifests (root, manifest) VALUES (?, ?) ON CONFLICT DO NOTHING",
        [(note.digest, digest) for digest in note.below],
    )
    if note.overwrote is not None:
        conflict = _conflict(named, note.digest, note.overwrote, overwritten=True)
        emit(connection, now_us, "mirror.conflict", f"tag:{named['target']}", conflict)
        tally(connection, Tallied.MIRROR_EDGE, named["mirror"] or "", "conflict")
    if note.copied:
        copied = {**named, "bytes": note.sent_bytes}
        emit(connection, now_us, "kit.mirrored", f"kit:{note.digest}", copied)


def _remove(connection: sqlite3.Connection, note: Removed, now_us: int) -> None:
    here, there = _here(note.edge), _there(note.edge)
    connection.execute(_FORGET, (*here, *there))
    if not note.edge.tag:
        return
    # Who puts the tag back means it: nothing says any more that it was settled.
    connection.execute(_FORGET, (*there, *here))
    if not note.by_person:
        connection.execute(_COUNT_REMOVED, (*here[:2], *there[:2], now_us))
