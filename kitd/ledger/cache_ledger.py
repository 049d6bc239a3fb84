"""What a collection of the cache goes by: use, pins, locations, needs; and the rows that it takes.

Rows go before files. A kit is taken from the catalogue in the transaction that finds it as the plan
saw it; only what no manifest needs after that is removed from the disk. A crash in between leaves
blobs that nobody needs, which the next collection finds.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence

from kitd.blocking import run_blocking
from kitd.clock import Clock
from kitd.content.store import ContentNotFoundError
from kitd.ledger.catalog import NAMED, PARENTS_UNKNOWN
from kitd.ledger.database import Database
from kitd.ledger.event_ledger import emit
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.reference import Reference, Repository
from kitd.store.collection import CachedKit

PAGE = 500
"""Kits that one read returns at most."""

# The states are named as in the index `jobs_needs`.
_KITS = f"""
SELECT m.digest, m.media_type, m.size, m.subject, m.used_us,
  (SELECT json_group_array(json_array(digest, size, media_type)) FROM manifest_children
    WHERE manifest = m.digest) AS children,
  (SELECT json_group_array(json_array(registry, name)) FROM repository_manifests
    WHERE digest = m.digest) AS repositories,
  (SELECT json_group_array(json_array(t.registry, t.name, t.tag)) FROM repository_manifests r
    JOIN tags t USING (registry, name, digest) WHERE r.digest = m.digest) AS tags,
  (SELECT json_group_array(json_array(registry, name)) FROM locations
    WHERE digest = m.digest) AS locations,
  (SELECT reference FROM pins WHERE digest = m.digest) AS pinned_as,
  (SELECT min(id) FROM jobs WHERE needs = m.digest
    AND state IN ('scheduled', 'ready', 'running')) AS needed_by,
  (SELECT min(b.manifest) FROM repository_manifests r JOIN kit_parents b
    ON b.registry = r.registry AND b.name = r.name AND b.identifier = r.digest
    WHERE r.digest = m.digest AND NOT EXISTS (SELECT 1 FROM locations l
      WHERE l.digest = r.digest AND l.registry = r.registry AND l.name = r.name)) AS built_on_by,
  ({PARENTS_UNKNOWN} AND EXISTS (SELECT 1 FROM repository_manifests r
    WHERE r.digest = m.digest AND NOT EXISTS (SELECT 1 FROM locations l
      WHERE l.digest = r.digest AND l.registry = r.registry AND l.name = r.name)))
    AS may_be_built_on,
  p.name AS project
FROM manifests m
LEFT JOIN (SELECT digest, min(name) AS name FROM projects GROUP BY digest) p USING (digest)
"""  # noqa: S608 - constants


def _kit(row: sqlite3.Row) -> CachedKit:
    return CachedKit(
        target=Descriptor(row["media_type"], row["digest"], row["size"]),
        children=tuple(
            Descriptor(media_type, digest, size)
            for digest, size, media_type in json.loads(row["children"])
        ),
        subject=row["subject"],
        used_us=row["used_us"],
        tags=tuple(
            sorted(
                (
                    Reference(Repository(registry, name), tag=tag)
                    for registry, name, tag in json.loads(row["tags"])
                ),
                key=str,
            )
        ),
        repositories=_repositories(row["repositories"]),
        locations=_repositories(row["locations"]),
        pinned_as=row["pinned_as"],
        needed_by=row["needed_by"],
        project=row["project"],
        built_on_by=row["built_on_by"],
        may_be_built_on=bool(row["may_be_built_on"]),
    )


def _kits(rows: Iterable[sqlite3.Row]) -> list[CachedKit]:
    return [_kit(row) for row in rows]


def _repositories(text: str) -> tuple[Repository, ...]:
    return tuple(sorted(Repository(registry, name) for registry, name in json.loads(text)))


def _named(connection: sqlite3.Connection, reference: Reference) -> Digest | None:
    repository = reference.repository
    row = connection.execute(
        f"SELECT digest FROM repository_manifests r WHERE {NAMED}",  # noqa: S608 - a constant
        (repository.registry, repository.name, reference.identifier),
    ).fetchone()
    return None if row is None else Digest(row["digest"])


class CacheLedger:
    """Reads what speaks for and against each kit, and takes kits from the catalogue."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._uses: dict[Digest, int] = {}

    def note_use(self, digest: Digest) -> None:
        """Remember that a kit is used now, until `write_uses`: reading must not wait for a disk."""
        self._uses[digest] = self._clock.now_us()

    def is_used_since(self, digests: Iterable[Digest]) -> bool:
        """Whether any of the kits was used and it is not in the ledger yet."""
        return not self._uses.keys().isdisjoint(digests)

    async def write_uses(self) -> None:
        """Write what was remembered. Raises `LedgerError`."""
        if not self._uses:
            return
        uses = dict(self._uses)

        def transaction(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "UPDATE manifests SET used_us = ? WHERE digest = ?",
                [(at_us, digest) for digest, at_us in uses.items()],
            )

        await self._database.write(transaction)
        # Not before: what the disk did not take is a use that only this process knows of.
        for digest, at_us in uses.items():
            if self._uses.get(digest) == at_us:
                del self._uses[digest]

    async def kits(self) -> Sequence[CachedKit]:
        """Return every manifest of the catalogue, by digest."""
        found: list[CachedKit] = []
        after = ""
        while True:
            rows = await self._database.read(
                f"{_KITS} WHERE m.digest > ? ORDER BY m.digest LIMIT ?", (after, PAGE)
            )
            # Hundreds of documents: they are not the loop's to read.
            found += await run_blocking(_kits, rows)
            if len(rows) < PAGE:
                return found
            after = rows[-1]["digest"]

    async def evict(
        self, kits: Sequence[CachedKit], blobs: Collection[Digest], why: str
    ) -> frozenset[Digest] | None:
        """Take kits from the catalogue; return which of the blobs no manifest needs then.

        None, and nothing is changed, unless all of them are as they were and nothing else has come
        to need them.
        """

        def transaction(connection: sqlite3.Connection) -> frozenset[Digest] | None:
            digests = json.dumps([kit.digest for kit in kits])
            rows = connection.execute(
                f"{_KITS} WHERE m.digest IN (SELECT value FROM json_each(?))",  # noqa: S608 - constant
                (digests,),
            )
            now = {kit.digest: kit for kit in map(_kit, rows)}
            if now != {kit.digest: kit for kit in kits} or _is_named(connection, digests):
                return None
            for kit in kits:
                self._tell_evicted(connection, kit, why)
            # Names, tags, children and locations go with the row.
            connection.execute(
                "DELETE FROM manifests WHERE digest IN (SELECT value FROM json_each(?))", (digests,)
            )
            return _unreferenced(connection, blobs)

        return await self._database.write(transaction)

    def _tell_evicted(self, connection: sqlite3.Connection, kit: CachedKit, why: str) -> None:
        data = {
            "repositories": list(map(str, kit.repositories)),
            "tags": list(map(str, kit.tags)),
            "locations": list(map(str, kit.locations)),
            "why": why,
        }
        emit(connection, self._clock.now_us(), "kit.evicted", f"kit:{kit.digest}", data)

    async def unreferenced(self, blobs: Collection[Digest]) -> frozenset[Digest]:
        """Return which of the blobs no manifest needs, after all that was asked to be written."""
        # On the writer, behind every transaction that might record a manifest.
        return await self._database.write(lambda connection: _unreferenced(connection, blobs))

    async def elsewhere(self, blobs: Collection[Digest]) -> frozenset[Digest]:
        """Return which of the blobs the cache was not given, because a repository has them.

        Not those that it was given for one manifest, and for another not.
        """
        rows = await self._database.read(
            "SELECT value FROM json_each(?) AS blob"
            " WHERE EXISTS (SELECT 1 FROM elsewhere WHERE digest = blob.value)"
            " AND NOT EXISTS (SELECT 1 FROM manifest_children c WHERE c.digest = blob.value"
            "  AND NOT EXISTS (SELECT 1 FROM elsewhere e"
            "   WHERE e.manifest = c.manifest AND e.digest = c.digest))",
            (json.dumps(list(blobs)),),
        )
        return frozenset(Digest(row["value"]) for row in rows)

    async def pin(self, reference: Reference) -> Digest:
        """Keep the kit that a reference names until it is unpinned; return its digest.

        Raises `ContentNotFoundError`.
        """

        def transaction(connection: sqlite3.Connection) -> Digest:
            digest, now_us = _named(connection, reference), self._clock.now_us()
            if digest is None:
                raise ContentNotFoundError(f"{reference} is not in the cache", hint="kitctl list")
            connection.execute(
                "INSERT INTO pins (digest, reference, pinned_us) VALUES (?, ?, ?)"
                " ON CONFLICT (digest) DO UPDATE SET reference = excluded.reference",
                (digest, str(reference), now_us),
            )
            emit(connection, now_us, "kit.pinned", f"kit:{digest}", {"reference": str(reference)})
            return digest

        return await self._database.write(transaction)

    async def unpin(self, reference: Reference) -> Digest:
        """End a pin and return the kit's digest.

        It is that of the kit that the reference names now, or else the newest of those that were
        made with the reference when it named another kit. Raises `ContentNotFoundError` where
        nothing is pinned.
        """

        def transaction(connection: sqlite3.Connection) -> Digest:
            row = connection.execute(
                "DELETE FROM pins WHERE digest = (SELECT digest FROM pins"
                " WHERE digest = ?1 OR reference = ?2"
                " ORDER BY digest IS ?1 DESC, pinned_us DESC LIMIT 1) RETURNING digest",
                (_named(connection, reference), str(reference)),
            ).fetchone()
            if row is None:
                raise ContentNotFoundError(f"{reference} is not pinned")
            digest = Digest(row["digest"])
            at_us = self._clock.now_us()
            emit(connection, at_us, "kit.unpinned", f"kit:{digest}", {"reference": str(reference)})
            return digest

        return await self._database.write(transaction)

    async def forget_location(self, digest: Digest, repository: Repository) -> None:
        """Note that a repository says that it does not hold a kit."""

        def transaction(connection: sqlite3.Connection) -> None:
            connection.execute(
                "DELETE FROM locations WHERE digest = ? AND registry = ? AND name = ?",
                (digest, repository.registry, repository.name),
            )

        await self._database.write(transaction)

    async def tell_damaged(
        self, digest: Digest, kits: Sequence[str], why: str, *, moved: bool
    ) -> None:
        """Tell that a blob was found damaged and `moved` to quarantine, or found missing."""
        kind = "blob.quarantined" if moved else "blob.missing"
        data = {"kits": list(kits), "why": why}

        def transaction(connection: sqlite3.Connection) -> None:
            emit(connection, self._clock.now_us(), kind, f"blob:{digest}", data)

        await self._database.write(transaction)


def _is_named(connection: sqlite3.Connection, digests: str) -> bool:
    """Whether an index or a referrer that is not among these kits names one of them."""
    row = connection.execute(
        "WITH going (digest) AS (SELECT value FROM json_each(?))"
        " SELECT EXISTS (SELECT 1 FROM manifest_children c JOIN going USING (digest)"
        "   WHERE c.manifest NOT IN (SELECT digest FROM going))"
        " OR EXISTS (SELECT 1 FROM manifests m JOIN going ON m.subject = going.digest"
        "   WHERE m.digest NOT IN (SELECT digest FROM going))",
        (digests,),
    ).fetchone()
    return bool(row[0])


def _unreferenced(connection: sqlite3.Connection, blobs: Collection[Digest]) -> frozenset[Digest]:
    rows = connection.execute(
        "SELECT value FROM json_each(?) AS blob"
        " WHERE NOT EXISTS (SELECT 1 FROM manifests WHERE digest = blob.value)"
        " AND NOT EXISTS (SELECT 1 FROM manifest_children WHERE digest = blob.value)",
        (json.dumps(list(blobs)),),
    )
    return frozenset(Digest(row["value"]) for row in rows)
