"""What transfers leave behind: uploads under way, lessons about registries, who holds which blob.

Forgetting any of it costs bytes that are sent again and nothing else.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from kitd.clock import Clock
from kitd.ledger.database import Database
from kitd.oci.digest import Digest
from kitd.oci.reference import Repository

GIVEN_UP_US = 72 * 3600 * 1_000_000
"""How long after the last answer nobody goes on with an upload any more, not even a slow line."""
LESSON_US = 30 * 24 * 3600 * 1_000_000
"""How long a lesson holds: registries and the proxies before them change."""
MAX_UPLOADS = 10_000
MAX_LESSONS = 1_000
MAX_LENDERS = 8


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """An upload as it was after the last answer of its registry."""

    # It may hold signed state.
    location: str = field(repr=False)
    origin: str
    """Where the registry was when the upload was begun."""
    received: int
    least_chunk_bytes: int


@dataclass(frozen=True, slots=True)
class Lesson:
    """How a registry turned out to take uploads."""

    takes_chunks: bool
    chunk_bytes: int
    refused_bytes: int | None


class TransferLedger:
    """Remembers, recalls and trims."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def upload(self, repository: Repository, content: str) -> OpenUpload | None:
        """Return the upload of this content to a repository, unless it is to be given up."""
        rows = await self._database.read(
            "SELECT location, origin, received, least_chunk_bytes FROM uploads"
            " WHERE registry = ? AND name = ? AND content = ? AND touched_us > ?",
            (
                repository.registry,
                repository.name,
                content,
                self._clock.now_us() - GIVEN_UP_US,
            ),
        )
        return OpenUpload(*rows[0]) if rows else None

    async def record_upload(self, repository: Repository, content: str, upload: OpenUpload) -> None:
        """Record an upload after an answer, durably once this returns."""
        now_us = self._clock.now_us()

        def transaction(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO uploads (registry, name, content, location, origin, received,"
                " least_chunk_bytes, touched_us)"
                " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
                " ON CONFLICT DO UPDATE SET location = ?4, origin = ?5, received = ?6,"
                " least_chunk_bytes = ?7, touched_us = ?8",
                (
                    repository.registry,
                    repository.name,
                    content,
                    upload.location,
                    upload.origin,
                    upload.received,
                    upload.least_chunk_bytes,
                    now_us,
                ),
            )

        await self._database.write(transaction)

    async def forget_upload(
        self, repository: Repository, content: str, *, location: str | None = None
    ) -> None:
        """Forget an upload: it has ended, well or for good.

        With a location only if it is still there, and no other upload in its place.
        """

        def transaction(connection: sqlite3.Connection) -> None:
            connection.execute(
                "DELETE FROM uploads WHERE registry = ?1 AND name = ?2 AND content = ?3"
                " AND location = coalesce(?4, location)",
                (repository.registry, repository.name, content, location),
            )

        await self._database.write(transaction)

    async def stale_uploads(self, count: int) -> Sequence[tuple[Repository, str, OpenUpload]]:
        """Return at most `count` uploads that nobody goes on with, or that are too many."""
        rows = await self._database.read(
            "SELECT registry, name, content, location, origin, received, least_chunk_bytes"
            " FROM uploads WHERE touched_us <= max(?, coalesce("
            "  (SELECT touched_us FROM uploads ORDER BY touched_us DESC LIMIT 1 OFFSET ?), 0))"
            " ORDER BY touched_us LIMIT ?",
            (self._clock.now_us() - GIVEN_UP_US, MAX_UPLOADS, count),
        )
        return [
            (Repository(registry, name), content, OpenUpload(*upload))
            for registry, name, content, *upload in rows
        ]

    async def lesson(self, registry: str) -> Lesson | None:
        """Return what was learned of a registry, if that still holds."""
        rows = await self._database.read(
            "SELECT takes_chunks, chunk_bytes, refused_bytes FROM registry_lessons"
            " WHERE registry = ? AND learned_us > ?",
            (registry, self._clock.now_us() - LESSON_US),
        )
        if not rows:
            return None
        return Lesson(
            bool(rows[0]["takes_chunks"]), rows[0]["chunk_bytes"], rows[0]["refused_bytes"]
        )

    async def record_lesson(self, registry: str, lesson: Lesson) -> None:
        """Record a lesson in the place of the one before; those that hold no longer go."""
        now_us = self._clock.now_us()

        def transaction(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO registry_lessons (registry, takes_chunks, chunk_bytes, refused_bytes,"
                " learned_us) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE SET"
                " takes_chunks = ?2, chunk_bytes = ?3, refused_bytes = ?4, learned_us = ?5",
                (
                    registry,
                    lesson.takes_chunks,
                    lesson.chunk_bytes,
                    lesson.refused_bytes,
                    now_us,
                ),
            )
            connection.execute(
                "DELETE FROM registry_lessons WHERE learned_us <= ?1 OR registry IN"
                " (SELECT registry FROM registry_lessons ORDER BY learned_us DESC"
                "  LIMIT -1 OFFSET ?2)",
                (now_us - LESSON_US, MAX_LESSONS),
            )

        await self._database.write(transaction)

    async def holders(self, registry: str, digest: Digest) -> Sequence[str]:
        """Return repositories of a registry that got this blob, the latest first.

        It is what pushes and pulls have seen; what became of it since only the registry knows.
        """
        rows = await self._database.read(
            "SELECT name FROM ("
            " SELECT l.name, l.confirmed_us AS seen_us FROM manifest_children c"
            "  JOIN locations l ON l.digest = c.manifest WHERE c.digest = ?1 AND l.registry = ?2"
            " UNION ALL SELECT name, 0 FROM elsewhere WHERE digest = ?1 AND registry = ?2)"
            " GROUP BY name ORDER BY max(seen_us) DESC, name LIMIT ?3",
            (digest, registry, MAX_LENDERS),
        )
        return [row["name"] for row in rows]
