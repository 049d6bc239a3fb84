"""What exists: manifests that are complete, the repositories that know them, their tags.

Complete means that the cache holds every blob below it, or that a place is recorded where it is.
`apply` is where a finished job's effects become rows. A tag names a manifest of its own repository
and a manifest in a repository is complete: foreign keys hold both.
"""

import json
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from kitd.clock import Clock
from kitd.content.store import CollectedError, ContentNotFoundError
from kitd.ledger.database import Database
from kitd.ledger.event_ledger import emit
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.manifest import Manifest, describe_referrer
from kitd.oci.media_type import is_manifest
from kitd.oci.reference import Reference, Repository
from kitd.queue.effect import (
    Effect,
    Emit,
    FollowTags,
    KitSummary,
    MoveTags,
    NoteParent,
    RecordElsewhere,
    RecordLocation,
    RecordManifest,
    RecordPack,
)
from kitd.queue.job import Job

MAX_LIST = 1000
MAX_PLACES = 50
"""Repositories that are asked for one blob."""

Also = Callable[[sqlite3.Connection], None]
"""What is written in the same transaction: `JobLedger.admission`."""
Summarize = Callable[[Manifest], Awaitable[KitSummary | None]]
"""Reads what `list` shows about a kit; the ledger itself does not know what a kit is."""


@dataclass(frozen=True, slots=True)
class CataloguedKit:
    """One manifest of one repository, as `list` shows it."""

    repository: Repository
    digest: Digest
    tags: tuple[str, ...]
    model_name: str
    author: str
    layer_bytes: int


@dataclass(frozen=True, slots=True)
class ReferencedBytes:
    """What the catalogue says about the cache's blobs."""

    logical_bytes: int
    """If every manifest had its blobs for itself."""
    distinct_bytes: int
    """Each blob once."""


def _nothing(_connection: sqlite3.Connection) -> None:
    """Write nothing else."""


def apply(connection: sqlite3.Connection, effect: Effect, now_us: int, job: Job | None) -> None:
    """Write one effect into the transaction of `connection`."""
    match effect:
        case RecordManifest():
            _record_manifest(connection, effect, now_us)
        case NoteParent():
            _note_parent(connection, effect)
        case RecordLocation(digest, repository):
            connection.execute(
                # What was removed while it travelled needs no location.
                "INSERT INTO locations (digest, registry, name, confirmed_us)"
                " SELECT digest, ?2, ?3, ?4 FROM manifests WHERE digest = ?1"
                " ON CONFLICT DO UPDATE SET confirmed_us = excluded.confirmed_us",
                (digest, repository.registry, repository.name, now_us),
            )
        case RecordElsewhere(manifest, blobs, repository):
            connection.executemany(
                "INSERT INTO elsewhere (manifest, digest, registry, name)"
                " SELECT digest, ?2, ?3, ?4 FROM manifests WHERE digest = ?1"
                " ON CONFLICT DO NOTHING",
                [(manifest, blob, repository.registry, repository.name) for blob in blobs],
            )
        case MoveTags():
            move_tags(connection, effect, now_us, job)
        case FollowTags(repository, tags, digest, former):
            current = {tag: _named_by(connection, repository, tag) for tag in tags}
            still = tuple(tag for tag in tags if current[tag] == former)
            move_tags(connection, MoveTags(repository, still, digest), now_us, job)
        case RecordPack():
            connection.execute(
                # The time and the job are those of the kit, not of a look that found it unchanged.
                "UPDATE projects SET fingerprint = ?1, digest = ?2, content_key = ?3,"
                " packed_us = CASE digest WHEN ?2 THEN packed_us ELSE ?4 END,"
                " packed_by = CASE digest WHEN ?2 THEN packed_by ELSE ?5 END"
                # A job that was asked for before says nothing of what the project is now.
                " WHERE name = ?6 AND defined_us <= ?7",
                (
                    effect.fingerprint,
                    effect.digest,
                    effect.version,
                    now_us,
                    None if job is None else job.id,
                    effect.project,
                    now_us if job is None else job.created_us,
                ),
            )
        case Emit():
            job_id, project = (None, None) if job is None else (job.id, job.project)
            emit(
                connection,
                now_us,
                effect.type,
                effect.subject,
                effect.data,
                job=job_id,
                project=project,
            )
        case _:
            assert_never(effect)


def _record_manifest(connection: sqlite3.Connection, effect: RecordManifest, now_us: int) -> None:
    target, manifest, kit = effect.target, effect.manifest, effect.kit
    described = describe_referrer(target, manifest)
    connection.execute(
        "INSERT INTO manifests (digest, media_type, size, artifact_type, annotations, subject,"
        " layer_bytes, recorded_us, used_us) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)"
        " ON CONFLICT (digest) DO UPDATE SET used_us = excluded.used_us",
        (
            target.digest,
            target.media_type,
            target.size,
            described.artifact_type,
            json.dumps(dict(described.annotations), ensure_ascii=False),
            manifest.subject and manifest.subject.digest,
            sum(layer.size for layer in manifest.layers),
            now_us,
        ),
    )
    if kit is not None:
        connection.execute(
            # Only a pack knows the content key: a pull of the same kit does not unlearn it.
            "UPDATE manifests SET model_name = ?, author = ?,"
            " content_key = coalesce(?, content_key) WHERE digest = ?",
            (kit.model_name, kit.author, kit.content_key, target.digest),
        )
    _note_parent(connection, NoteParent(target.digest, None if kit is None else kit.parent))
    connection.executemany(
        "INSERT INTO manifest_children (manifest, position, digest, size, media_type)"
        " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [
            (target.digest, position, child.digest, child.size, child.media_type)
            for position, child in enumerate(manifest.children)
        ],
    )
    # What the cache was still not given its recorder says next.
    connection.execute("DELETE FROM elsewhere WHERE manifest = ?", (target.digest,))
    connection.execute(
        "INSERT INTO repository_manifests (registry, name, digest) VALUES (?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        (effect.repository.registry, effect.repository.name, target.digest),
    )


def _note_parent(connection: sqlite3.Connection, effect: NoteParent) -> None:
    digest, parent = effect.manifest, effect.parent
    connection.execute(
        "UPDATE manifests SET parent_noted = 1 WHERE digest = ? AND parent_noted = 0", (digest,)
    )
    if parent is not None:
        place = parent.repository
        connection.execute(
            # One that was removed meanwhile builds on nothing.
            "INSERT INTO kit_parents (manifest, registry, name, identifier)"
            " SELECT digest, ?2, ?3, ?4 FROM manifests WHERE digest = ?1 ON CONFLICT DO NOTHING",
            (digest, place.registry, place.name, parent.identifier),
        )


def _require_catalogued(connection: sqlite3.Connection, children: Sequence[Descriptor]) -> None:
    """Without their rows nothing would keep what is below the children of an index."""
    digests = [child.digest for child in children if is_manifest(child.media_type)]
    row = connection.execute(
        "SELECT value FROM json_each(?) AS child WHERE NOT EXISTS"
        " (SELECT 1 FROM manifests WHERE digest = child.value) LIMIT 1",
        (json.dumps(digests),),
    ).fetchone()
    if row is not None:
        raise CollectedError(f"{row['value']} was removed before the index that lists it came")


def move_tags(
    connection: sqlite3.Connection, effect: MoveTags, now_us: int, job: Job | None
) -> None:
    """Let tags name a manifest that their repository holds. Raises `CollectedError`."""
    registry, name = effect.repository.registry, effect.repository.name
    known = connection.execute(
        "SELECT 1 FROM repository_manifests WHERE registry = ? AND name = ? AND digest = ?",
        (registry, name, effect.digest),
    ).fetchone()
    if known is None:
        raise CollectedError(f"{effect.repository} does not hold {effect.digest} any more")
    for tag in effect.tags:
        former = _named_by(connection, effect.repository, tag)
        if former == effect.digest:
            continue
        connection.execute(
            "INSERT INTO tags (registry, name, tag, digest, moved_us) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (registry, name, tag)"
            " DO UPDATE SET digest = excluded.digest, moved_us = excluded.moved_us",
            (registry, name, tag, effect.digest, now_us),
        )
        emit(
            connection,
            now_us,
            "tag.moved",
            f"tag:{Reference(effect.repository, tag=tag)}",
            {"from": former, "to": effect.digest},
            job=None if job is None else job.id,
            project=None if job is None else job.project,
        )


def _named_by(connection: sqlite3.Connection, repository: Repository, tag: str) -> Digest | None:
    row = connection.execute(
        "SELECT digest FROM tags WHERE registry = ? AND name = ? AND tag = ?",
        (repository.registry, repository.name, tag),
    ).fetchone()
    return None if row is None else Digest(row["digest"])


def remove_tag(
    connection: sqlite3.Connection, repository: Repository, tag: str, now_us: int
) -> Digest:
    """Remove a tag and return what it named. Raises `ContentNotFoundError`."""
    row = connection.execute(
        "DELETE FROM tags WHERE registry = ? AND name = ? AND tag = ? RETURNING digest",
        (repository.registry, repository.name, tag),
    ).fetchone()
    if row is None:
        raise ContentNotFoundError(
            f"there is no tag {Reference(repository, tag=tag)} in the cache", hint="kitctl list"
        )
    subject = f"tag:{Reference(repository, tag=tag)}"
    emit(connection, now_us, "tag.removed", subject, {"from": row["digest"]})
    return Digest(row["digest"])


def remove_manifest(
    connection: sqlite3.Connection, repository: Repository, digest: Digest, now_us: int
) -> None:
    """Remove a manifest and its tags from a repository. Raises `ContentNotFoundError`."""
    row = connection.execute(
        "DELETE FROM repository_manifests WHERE registry = ? AND name = ? AND digest = ?"
        " RETURNING digest",
        (repository.registry, repository.name, digest),
    ).fetchone()
    if row is None:
        raise ContentNotFoundError(
            f"there is no {Reference(repository, digest=digest)} in the cache", hint="kitctl list"
        )
    connection.execute(
        # An index of another repository may list it, and is complete only with it.
        "DELETE FROM manifests WHERE digest = ? AND NOT EXISTS"
        " (SELECT 1 FROM repository_manifests WHERE digest = manifests.digest)"
        " AND NOT EXISTS"
        " (SELECT 1 FROM manifest_children WHERE digest = manifests.digest)",
        (digest,),
    )
    named = {"repository": str(repository)}
    emit(connection, now_us, "kit.removed", f"kit:{digest}", named)


def _descriptor(row: sqlite3.Row) -> Descriptor:
    return Descriptor(row["media_type"], row["digest"], row["size"])


PARENTS_UNKNOWN = "EXISTS (SELECT 1 FROM manifests WHERE parent_noted = 0)"
"""Whether some kit here may build on any other: named as in `manifests_parent_unknown`."""
AWAITED = "state IN ('scheduled', 'ready', 'running')"
"""Whether a row of `jobs` has yet to do its work: named as in the index `jobs_needs`."""
_MANIFEST = "m.media_type, m.digest, m.size"
NAMED = """r.registry = ?1 AND r.name = ?2 AND r.digest = coalesce(
  (SELECT digest FROM tags WHERE registry = ?1 AND name = ?2 AND tag = ?3), ?3)"""
"""Whether a row of `repository_manifests r` is what registry, name, and tag or digest name."""


class Catalog:
    """Reads what exists, and writes what arrives from outside of a job: kitd's own registry."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        summarize: Summarize,
        *,
        used: Callable[[Digest], None] = lambda _digest: None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._summarize = summarize
        self._used = used

    async def resolve(self, repository: Repository, identifier: str) -> Descriptor:
        """Return the manifest that a tag or a digest names in a repository.

        Raises `ContentNotFoundError`.
        """
        rows = await self._database.read(
            f"SELECT {_MANIFEST} FROM repository_manifests r JOIN manifests m USING (digest)"  # noqa: S608 - constant columns
            f" WHERE {NAMED}",
            (repository.registry, repository.name, identifier),
        )
        if not rows:
            named = f"{Reference(repository)}{'@' if ':' in identifier else ':'}{identifier}"
            raise ContentNotFoundError(
                f"{named} is not in the cache",
                hint="kitctl list shows what is, kitctl pull fetches",
            )
        return self._in_use(rows[0])

    def _in_use(self, row: sqlite3.Row) -> Descriptor:
        """Return a manifest that somebody asked for by name: whatever for, it is used."""
        target = _descriptor(row)
        self._used(target.digest)
        return target

    async def unpushed(self, repository: Repository, tag: str) -> Descriptor | None:
        """Return what a tag names, if its repository is not known to have that.

        Or if a job waits that needs it: then it may be on its way there.
        """
        rows = await self._database.read(
            f"SELECT {_MANIFEST} FROM tags t JOIN manifests m USING (digest)"  # noqa: S608 - constant columns
            " WHERE t.registry = ?1 AND t.name = ?2 AND t.tag = ?3 AND (NOT EXISTS"
            "  (SELECT 1 FROM locations WHERE digest = t.digest AND registry = ?1 AND name = ?2)"
            f" OR EXISTS (SELECT 1 FROM jobs WHERE needs = t.digest AND {AWAITED}))",
            (repository.registry, repository.name, tag),
        )
        return _descriptor(rows[0]) if rows else None

    async def commit(
        self,
        repository: Repository,
        target: Descriptor,
        tags: Sequence[str],
        manifest: Manifest,
        *,
        also: Also = _nothing,
    ) -> None:
        """Record a complete manifest in a repository and move tags to it, in one transaction.

        Raises `CollectedError` where a manifest that it lists was removed meanwhile.
        """
        kit = await self._summarize(manifest)

        def transaction(connection: sqlite3.Connection) -> None:
            _require_catalogued(connection, manifest.manifests)
            now_us = self._clock.now_us()
            _record_manifest(connection, RecordManifest(repository, target, manifest, kit), now_us)
            moved = MoveTags(repository, tuple(tags), target.digest)
            move_tags(connection, moved, now_us, None)
            also(connection)

        await self._database.write(transaction)

    async def apply(self, effects: Sequence[Effect]) -> None:
        """Write effects that belong to no job, in one transaction."""

        def transaction(connection: sqlite3.Connection) -> None:
            now_us = self._clock.now_us()
            for effect in effects:
                apply(connection, effect, now_us, None)

        await self._database.write(transaction)

    async def tags(self, repository: Repository, *, after: str | None, limit: int) -> Sequence[str]:
        """Return tags in byte order. Raises `ContentNotFoundError` for an unknown repository."""
        rows = await self._database.read(
            "SELECT tag FROM tags WHERE registry = ? AND name = ? AND tag > ? ORDER BY tag LIMIT ?",
            (repository.registry, repository.name, after or "", limit),
        )
        if not rows:
            known = await self._database.read(
                "SELECT 1 FROM repository_manifests WHERE registry = ? AND name = ? LIMIT 1",
                (repository.registry, repository.name),
            )
            if not known:
                raise ContentNotFoundError(f"there is no repository {repository} in the cache")
        return [row["tag"] for row in rows]

    async def referrers(self, repository: Repository, subject: Digest) -> Sequence[Descriptor]:
        """Return the manifests of a repository whose subject is the given one."""
        rows = await self._database.read(
            "SELECT m.media_type, m.digest, m.size, m.annotations, m.artifact_type"
            " FROM repository_manifests r JOIN manifests m USING (digest)"
            " WHERE r.registry = ? AND r.name = ? AND m.subject = ? ORDER BY m.digest",
            (repository.registry, repository.name, subject),
        )
        return [
            replace(
                _descriptor(row),
                annotations=json.loads(row["annotations"]),
                artifact_type=row["artifact_type"],
            )
            for row in rows
        ]

    async def untag(self, repository: Repository, tag: str, *, also: Also = _nothing) -> None:
        """Remove a tag. Raises `ContentNotFoundError`."""

        def transaction(connection: sqlite3.Connection) -> None:
            remove_tag(connection, repository, tag, self._clock.now_us())
            also(connection)

        await self._database.write(transaction)

    async def remove(
        self, repository: Repository, digest: Digest, *, also: Also = _nothing
    ) -> None:
        """Remove a manifest and its tags from a repository. Raises `ContentNotFoundError`."""

        def transaction(connection: sqlite3.Connection) -> None:
            remove_manifest(connection, repository, digest, self._clock.now_us())
            also(connection)

        await self._database.write(transaction)

    async def with_content(self, repository: Repository, content_key: str) -> Descriptor | None:
        """Return the newest kit of a repository with this content, if there is one."""
        rows = await self._database.read(
            f"SELECT {_MANIFEST} FROM repository_manifests r JOIN manifests m USING (digest)"  # noqa: S608 - constant columns
            " WHERE r.registry = ? AND r.name = ? AND m.content_key = ?"
            " ORDER BY m.recorded_us DESC LIMIT 1",
            (repository.registry, repository.name, content_key),
        )
        return self._in_use(rows[0]) if rows else None

    async def packed_version(self, project: str) -> str | None:
        """Return what names a project's last version, or None if it has none."""
        rows = await self._database.read(
            "SELECT content_key FROM projects WHERE name = ?", (project,)
        )
        return rows[0]["content_key"] if rows else None

    async def tagged(self) -> Sequence[tuple[Reference, Descriptor]]:
        """Return every tag of every repository: what the image layout's index names."""
        rows = await self._database.read(
            f"SELECT t.registry, t.name, t.tag, {_MANIFEST} FROM tags t"  # noqa: S608 - constant columns
            " JOIN manifests m USING (digest) ORDER BY t.registry, t.name, t.tag"
        )
        return [
            (
                Reference(Repository(row["registry"], row["name"]), tag=row["tag"]),
                _descriptor(row),
            )
            for row in rows
        ]

    async def kits(self, repository: Repository | None = None) -> Sequence[CataloguedKit]:
        """Return manifests with their tags, by repository, the newest of each first."""
        registry, name = (repository.registry, repository.name) if repository else (None, None)
        rows = await self._database.read(
            "SELECT r.registry, r.name, m.digest, m.model_name, m.author, m.layer_bytes,"
            " (SELECT json_group_array(tag) FROM (SELECT tag FROM tags t WHERE"
            "  t.registry = r.registry AND t.name = r.name AND t.digest = r.digest ORDER BY tag))"
            "  AS tags"
            " FROM repository_manifests r JOIN manifests m USING (digest)"
            " WHERE (?1 IS NULL OR (r.registry = ?1 AND r.name = ?2))"
            " ORDER BY r.registry, r.name, m.recorded_us DESC LIMIT ?3",
            (registry, name, MAX_LIST),
        )
        return [
            CataloguedKit(
                Repository(row["registry"], row["name"]),
                row["digest"],
                tuple(json.loads(row["tags"])),
                row["model_name"],
                row["author"],
                row["layer_bytes"],
            )
            for row in rows
        ]

    async def manifest(self, digest: Digest) -> Descriptor:
        """Return a manifest, whatever repository knows it. Raises `ContentNotFoundError`."""
        rows = await self._database.read(
            "SELECT media_type, digest, size FROM manifests WHERE digest = ?", (digest,)
        )
        if not rows:
            raise ContentNotFoundError(f"{digest} is not a kit of the cache", hint="kitctl list")
        return self._in_use(rows[0])

    async def places(self, blob: Digest) -> Sequence[Repository]:
        """Return the repositories that are known to have had a blob."""
        rows = await self._database.read(
            "SELECT registry, name FROM elsewhere WHERE digest = ?1"
            " UNION SELECT l.registry, l.name FROM manifest_children c"
            "  JOIN locations l ON l.digest = c.manifest WHERE c.digest = ?1"
            " ORDER BY registry, name LIMIT ?2",
            (blob, MAX_PLACES),
        )
        return [Repository(row["registry"], row["name"]) for row in rows]

    async def parent_unknown(self, *, after: str, limit: int) -> Sequence[Descriptor]:
        """Return manifests, by digest, that were never looked at for what they build on."""
        rows = await self._database.read(
            f"SELECT {_MANIFEST} FROM manifests m"  # noqa: S608 - constant columns
            " WHERE m.parent_noted = 0 AND m.digest > ? ORDER BY m.digest LIMIT ?",
            (after, limit),
        )
        return [_descriptor(row) for row in rows]

    async def partial(self) -> Sequence[tuple[Digest, Digest]]:
        """Return the manifests that were recorded without a blob somewhere below, each with it."""
        rows = await self._database.read(
            "WITH RECURSIVE lacking (manifest, blob) AS (SELECT manifest, digest FROM elsewhere"
            " UNION SELECT c.manifest, l.blob FROM manifest_children c"
            "  JOIN lacking l ON c.digest = l.manifest)"
            " SELECT manifest, blob FROM lacking"
        )
        return [(row["manifest"], row["blob"]) for row in rows]

    async def names_of(self, digest: Digest) -> Sequence[Reference]:
        """Return what names a manifest, or the manifests that a blob is part of."""
        rows = await self._database.read(
            "SELECT r.registry, r.name, r.digest, t.tag FROM repository_manifests r"
            " LEFT JOIN tags t USING (registry, name, digest)"
            " WHERE r.digest = ?1 OR r.digest IN"
            "  (SELECT manifest FROM manifest_children WHERE digest = ?1)"
            " ORDER BY r.registry, r.name, t.tag LIMIT 50",
            (digest,),
        )
        return [
            Reference(
                Repository(row["registry"], row["name"]),
                tag=row["tag"],
                digest=None if row["tag"] else row["digest"],
            )
            for row in rows
        ]

    async def digests_from(self, beginning: str, *, limit: int) -> Sequence[Digest]:
        """Return digests of manifests and of their blobs that begin so; the end is hexadecimal."""
        rows = await self._database.read(
            "SELECT digest FROM manifests WHERE digest BETWEEN ?1 AND ?1 || 'g'"
            " UNION SELECT digest FROM manifest_children WHERE digest BETWEEN ?1 AND ?1 || 'g'"
            " ORDER BY digest LIMIT ?2",
            (beginning, limit),
        )
        return [row["digest"] for row in rows]

    async def referenced_bytes(self) -> ReferencedBytes:
        """Return how many bytes the catalogued manifests and their blobs have, twice counted."""
        rows = await self._database.read(
            "WITH blobs (digest, size) AS (SELECT digest, size FROM manifests"
            "  UNION ALL SELECT digest, size FROM manifest_children)"
            " SELECT coalesce(sum(size), 0) AS logical,"
            " (SELECT coalesce(sum(size), 0) FROM (SELECT DISTINCT digest, size FROM blobs))"
            "  AS distinct_"
            " FROM blobs"
        )
        return ReferencedBytes(rows[0]["logical"], rows[0]["distinct_"])
