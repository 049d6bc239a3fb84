"""What people do to the names in the cache: give a kit another one, and take names and kits away.

Nothing is removed from the disk here: a collection does that, of what no kit needs any more
(`kitd.ledger.cache_ledger`). What is given up is told in bytes, so that somebody can ask for one.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from kitd.clock import Clock
from kitd.content.store import ContentNotFoundError
from kitd.errors import KitdError
from kitd.ledger.catalog import NAMED, PARENTS_UNKNOWN, Also, move_tags, remove_manifest, remove_tag
from kitd.ledger.database import Database
from kitd.oci.digest import Digest
from kitd.oci.reference import Reference, Repository, parse_reference
from kitd.queue.effect import MoveTags

_Position = tuple[str, str, str]
"""Registry, name and digest of a manifest in a repository."""
BATCH_KITS = 500
"""Kits that one transaction removes at most: others wait behind it."""
MAX_TOLD = 1000
"""Kits that are named in what became of a removal; the others are counted."""


class KitNeededError(KitdError):
    """A kit that somebody speaks for is not removed without force."""

    code = "conflict"


@dataclass(frozen=True, slots=True)
class Gone:
    """A name that is not there any more, and the kit that it named."""

    reference: Reference
    digest: Digest


@dataclass(frozen=True, slots=True)
class Kept:
    """A kit that was to go and stays."""

    reference: Reference
    why: str


@dataclass(frozen=True, slots=True)
class Removal:
    """What became of a removal; `omitted` counts kits that are not named."""

    untagged: tuple[Gone, ...] = ()
    """Tags that went from kits that have others."""
    removed: tuple[Gone, ...] = ()
    """Kits that went from their repository, with all their tags."""
    kept: tuple[Kept, ...] = ()
    omitted: int = 0
    collectable_bytes: int = 0
    """Of blobs of the cache that no kit needs any more."""

    def and_then(self, other: "Removal") -> "Removal":
        """Return what both came to."""
        removed = self.removed + other.removed
        kept = self.kept + other.kept
        more = max(0, len(removed) - MAX_TOLD) + max(0, len(kept) - MAX_TOLD)
        return Removal(
            self.untagged + other.untagged,
            removed[:MAX_TOLD],
            kept[:MAX_TOLD],
            self.omitted + other.omitted + more,
            self.collectable_bytes + other.collectable_bytes,
        )


@dataclass(frozen=True, slots=True)
class Alteration:
    """A tag of a repository names something else or, if `is_gone`, nothing any more.

    Without a tag some kit went with its tags.
    """

    repository: Repository
    tag: str | None
    is_gone: bool


Follow = Callable[[Sequence[Alteration]], Awaitable[Also]]
"""Returns what is written in the transaction that alters names."""


_ALONG = """
WITH RECURSIVE along (digest) AS (
  SELECT ?1
  UNION SELECT c.digest FROM along a JOIN manifest_children c ON c.manifest = a.digest
    JOIN repository_manifests r ON r.digest = c.digest AND r.registry = ?2 AND r.name = ?3
  UNION SELECT m.digest FROM along a JOIN manifests m ON m.subject = a.digest
    JOIN repository_manifests r ON r.digest = m.digest AND r.registry = ?2 AND r.name = ?3
)
INSERT INTO repository_manifests (registry, name, digest)
SELECT ?4, ?5, digest FROM along WHERE true ON CONFLICT DO NOTHING
"""
"""What an index lists comes along, and what refers to a kit: its signatures."""

# A manifest without a tag may be part of an index, refer to a kit, or be what a kit builds on: then
# it has a purpose.
_CANDIDATES = """
SELECT r.registry, r.name, r.digest,
  (SELECT min(name) FROM projects WHERE digest = r.digest) AS project
FROM repository_manifests r JOIN manifests m USING (digest)
WHERE (r.registry, r.name, r.digest) > (?1, ?2, ?3) AND (?4 OR (
  NOT EXISTS (SELECT 1 FROM tags t
    WHERE t.registry = r.registry AND t.name = r.name AND t.digest = r.digest)
  AND NOT EXISTS (SELECT 1 FROM manifest_children WHERE digest = r.digest)
  AND NOT EXISTS (SELECT 1 FROM kit_parents b
    WHERE b.registry = r.registry AND b.name = r.name AND b.identifier = r.digest)
  AND NOT EXISTS (SELECT 1 FROM repository_manifests s
    WHERE s.registry = r.registry AND s.name = r.name AND s.digest = m.subject)))
ORDER BY r.registry, r.name, r.digest LIMIT ?5
"""

# The states are named as in the index `jobs_needs`.
_SPOKEN_FOR = """
SELECT (SELECT reference FROM pins WHERE digest = ?1) AS pinned_as,
  (SELECT min(id) FROM jobs WHERE needs = ?1
    AND state IN ('scheduled', 'ready', 'running')) AS needed_by
"""


_BUILT_ON_BY = """
SELECT r.registry, r.name, r.digest, t.tag FROM kit_parents b
JOIN repository_manifests r ON r.digest = b.manifest
LEFT JOIN tags t ON t.registry = r.registry AND t.name = r.name AND t.digest = r.digest
WHERE b.registry = ?1 AND b.name = ?2 AND (b.identifier = ?3 OR b.identifier IN
  (SELECT tag FROM tags WHERE registry = ?1 AND name = ?2 AND digest = ?3))
ORDER BY t.tag IS NULL, r.registry, r.name, t.tag LIMIT 1
"""
_UNKNOWN = "kits from before an upgrade are still looked at for what they build on"


class Shelf:
    """Writes names into the catalogue, and takes them out; `follow` says what comes of it."""

    def __init__(self, database: Database, clock: Clock, follow: Follow) -> None:
        self._database = database
        self._clock = clock
        self._follow = follow

    async def tag(self, source: Reference, target: Repository, tags: Sequence[str]) -> Digest:
        """Let tags of a repository name the kit that `source` names; return its digest.

        In another repository of the cache the kit is then, too, with all that belongs to it.
        Raises `ContentNotFoundError`.
        """
        also = await self._follow([Alteration(target, tag, is_gone=False) for tag in tags])

        def transaction(connection: sqlite3.Connection) -> Digest:
            digest = _resolve(connection, source)
            here = source.repository
            if target != here:
                connection.execute(
                    _ALONG, (digest, here.registry, here.name, target.registry, target.name)
                )
            moved = MoveTags(target, tuple(tags), digest)
            move_tags(connection, moved, self._clock.now_us(), None)
            also(connection)
            return digest

        return await self._database.write(transaction)

    async def remove(self, references: Sequence[Reference], *, force: bool) -> Removal:
        """Remove names of one repository: tags, or kits with all their tags.

        A tag that is the only one of its kit takes the kit with it; with `force` every tag does,
        and nobody is asked whether he needs it. All of it or nothing: raises
        `ContentNotFoundError`, `KitNeededError`.
        """
        # With force a tag takes others along, which only a look at all finds.
        altered = {
            Alteration(each.repository, None if force else each.tag, is_gone=True): None
            for each in references
        }
        also = await self._follow(tuple(altered))
        return await self._database.write(
            partial(
                _remove, references=references, force=force, now_us=self._clock.now_us(), also=also
            )
        )

    async def remove_all(self, *, force: bool) -> Removal:
        """Remove every kit that has no tag and no purpose, with `force` those that have, too.

        What is pinned or needed by a job stays in any case, and without `force` the last kit of a
        project, from which its next one is made.
        """
        total = Removal()
        is_last = False
        while not is_last:
            # What refers to a kit that went has no purpose any more.
            is_last = True
            after: _Position | None = ("", "", "")
            while after is not None:
                rows = await self._database.read(_CANDIDATES, (*after, force, BATCH_KITS))
                repositories = dict.fromkeys(
                    Repository(row["registry"], row["name"]) for row in rows
                )
                also = await self._follow(
                    [Alteration(each, None, is_gone=True) for each in repositories]
                )
                batch, after = await self._database.write(
                    partial(
                        _remove_batch,
                        after=after,
                        repositories=repositories.keys(),
                        force=force,
                        now_us=self._clock.now_us(),
                        also=also,
                    )
                )
                known = {kept.reference for kept in total.kept}
                fresh = tuple(kept for kept in batch.kept if kept.reference not in known)
                total = total.and_then(
                    Removal(
                        removed=batch.removed,
                        kept=fresh,
                        collectable_bytes=batch.collectable_bytes,
                    )
                )
                is_last = is_last and not batch.removed
        return total


def _resolve(connection: sqlite3.Connection, reference: Reference) -> Digest:
    repository = reference.repository
    row = connection.execute(
        f"SELECT digest FROM repository_manifests r WHERE {NAMED}",  # noqa: S608 - a constant
        (repository.registry, repository.name, reference.identifier),
    ).fetchone()
    if row is None:
        raise ContentNotFoundError(
            f"{reference} is not in the cache",
            hint="kitctl list shows what is, kitctl pull fetches",
        )
    return Digest(row["digest"])


def _remove(
    connection: sqlite3.Connection,
    *,
    references: Sequence[Reference],
    force: bool,
    now_us: int,
    also: Also,
) -> Removal:
    total, taken = Removal(), set[Digest]()
    for reference, digest in [(each, _resolve(connection, each)) for each in references]:
        repository, tag = reference.repository, reference.tag
        gone = (Gone(reference, digest),)
        if digest in taken:
            # Another of its tags took it along.
            continue
        if tag and not force and _has_other_tags(connection, repository, digest, tag):
            if _pinned_by(connection, reference, digest):
                raise _needed(reference, f"pinned as {reference}")
            remove_tag(connection, repository, tag, now_us)
            total = total.and_then(Removal(untagged=gone))
            continue
        if not force and (why := _spoken_for(connection, repository, digest)):
            raise _needed(reference, why)
        if not force and (child := _built_on_by(connection, repository, digest)):
            raise KitNeededError(
                f"{reference} is what {child} builds on", hint="remove that first, or use --force"
            )
        if not force and _are_parents_unknown(connection):
            raise KitNeededError(
                f"{reference} may be what another kit builds on: {_UNKNOWN}",
                hint="try again in a minute, or use --force",
            )
        taken.add(digest)
        freed_bytes = _take(connection, repository, digest, now_us)
        total = total.and_then(Removal(removed=gone, collectable_bytes=freed_bytes))
    also(connection)
    return total


def _needed(reference: Reference, why: str) -> KitNeededError:
    return KitNeededError(
        f"{reference} is {why}",
        # By any of its names: the one that it was pinned by may be gone.
        hint=f"kitctl cache unpin {reference}, or let the job end, or use --force",
    )


def _remove_batch(
    connection: sqlite3.Connection,
    *,
    after: _Position,
    repositories: Collection[Repository],
    force: bool,
    now_us: int,
    also: Also,
) -> tuple[Removal, _Position | None]:
    """Remove candidates that come after a position; return where the next begin, None for none.

    They are looked for in the transaction that takes them: a kit may get a tag at any moment. Those
    of other repositories than `also` knows of have come just now, and stay.
    """
    removed, kept, freed_bytes = [], [], 0
    rows = connection.execute(_CANDIDATES, (*after, force, BATCH_KITS)).fetchall()
    is_unknown = _are_parents_unknown(connection)
    for row in rows:
        repository, digest = Repository(row["registry"], row["name"]), Digest(row["digest"])
        if repository not in repositories:
            continue
        reference = Reference(repository, digest=digest)
        why = _spoken_for(connection, repository, digest)
        if why is None and not force and row["project"] is not None:
            why = f"the last kit of project {row['project']}"
        if why is None and not force and is_unknown:
            why = _UNKNOWN
        if why is not None:
            kept.append(Kept(reference, why))
            continue
        freed_bytes += _take(connection, repository, digest, now_us)
        removed.append(Gone(reference, digest))
    if removed:
        also(connection)
    batch = Removal(removed=tuple(removed), kept=tuple(kept), collectable_bytes=freed_bytes)
    if len(rows) < BATCH_KITS:
        return batch, None
    last = rows[-1]
    return batch, (last["registry"], last["name"], last["digest"])


def _has_other_tags(
    connection: sqlite3.Connection, repository: Repository, digest: Digest, tag: str
) -> bool:
    row = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM tags"
        " WHERE registry = ? AND name = ? AND digest = ? AND tag <> ?)",
        (repository.registry, repository.name, digest, tag),
    ).fetchone()
    return bool(row[0])


def _spoken_for(
    connection: sqlite3.Connection, repository: Repository, digest: Digest
) -> str | None:
    """Return why a kit must not leave a repository; None where another keeps it in the cache.

    A name that it is pinned by goes with its repository, whoever else has it.
    """
    row = connection.execute(_SPOKEN_FOR, (digest,)).fetchone()
    pinned_as = None if row["pinned_as"] is None else parse_reference(row["pinned_as"])
    if pinned_as is not None and _names(connection, pinned_as, repository, digest):
        return f"pinned as {pinned_as}"
    elsewhere = connection.execute(
        "SELECT 1 FROM repository_manifests WHERE digest = ? AND (registry, name) <> (?, ?)",
        (digest, repository.registry, repository.name),
    ).fetchone()
    if elsewhere is not None:
        return None
    if pinned_as is not None:
        return f"pinned, though not called {pinned_as} any more"
    if row["needed_by"] is not None:
        return f"needed by job {row['needed_by']}"
    return None


def _names(
    connection: sqlite3.Connection, reference: Reference, repository: Repository, digest: Digest
) -> bool:
    """Whether a reference is a name that a kit has in a repository."""
    if reference.repository != repository:
        return False
    try:
        return _resolve(connection, reference) == digest
    except ContentNotFoundError:
        return False


def _pinned_by(connection: sqlite3.Connection, name: Reference, digest: Digest) -> bool:
    """Whether a kit is pinned by this very name."""
    row = connection.execute("SELECT reference FROM pins WHERE digest = ?", (digest,)).fetchone()
    return row is not None and parse_reference(row["reference"]).with_default_tag() == name


def _built_on_by(
    connection: sqlite3.Connection, repository: Repository, digest: Digest
) -> Reference | None:
    """Return a kit that builds on one of this repository, by whatever name or digest it has."""
    place = (repository.registry, repository.name, digest)
    row = connection.execute(_BUILT_ON_BY, place).fetchone()
    if row is None:
        return None
    child = Repository(row["registry"], row["name"])
    return Reference(child, tag=row["tag"], digest=None if row["tag"] else row["digest"])


def _are_parents_unknown(connection: sqlite3.Connection) -> bool:
    """Whether any kit may be one that another builds on, which nobody looked at yet."""
    return bool(connection.execute(f"SELECT {PARENTS_UNKNOWN}").fetchone()[0])


def _take(
    connection: sqlite3.Connection, repository: Repository, digest: Digest, now_us: int
) -> int:
    """Remove a kit from a repository; return the bytes of its blobs that nothing needs then."""
    blobs = connection.execute(
        "SELECT digest, size FROM manifests WHERE digest = ?1 UNION"
        " SELECT c.digest, c.size FROM manifest_children c WHERE c.manifest = ?1 AND NOT EXISTS"
        "  (SELECT 1 FROM elsewhere e WHERE e.manifest = ?1 AND e.digest = c.digest)",
        (digest,),
    ).fetchall()
    remove_manifest(connection, repository, digest, now_us)
    needed = (
        "SELECT EXISTS (SELECT 1 FROM manifests WHERE digest = ?1)"
        " OR EXISTS (SELECT 1 FROM manifest_children WHERE digest = ?1)"
    )
    return sum(
        blob["size"]
        for blob in blobs
        if not connection.execute(needed, (blob["digest"],)).fetchone()[0]
    )
