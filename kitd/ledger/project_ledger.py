"""Projects: what is watched, and what was last packed of it."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kitd.clock import Clock
from kitd.errors import KitdError, NotFoundError
from kitd.ledger.database import Database
from kitd.ledger.event_ledger import emit
from kitd.oci.digest import Digest

_ALL = "SELECT * FROM projects ORDER BY name"


class ProjectConflictError(KitdError):
    """The project's name is taken, or the configuration file owns it."""

    code = "conflict"


@dataclass(frozen=True, slots=True)
class ProjectRecord:
    """A row: `definition` is JSON for the daemon, `source` is `config` or `added`."""

    name: str
    source: str
    definition: str
    defined_us: int
    held: bool
    fingerprint: str | None
    version: str | None
    digest: Digest | None
    packed_us: int | None
    packed_by: int | None


def _record(row: sqlite3.Row) -> ProjectRecord:
    return ProjectRecord(
        name=row["name"],
        source=row["source"],
        definition=row["definition"],
        defined_us=row["defined_us"],
        held=bool(row["held"]),
        fingerprint=row["fingerprint"],
        version=row["content_key"],
        digest=row["digest"],
        packed_us=row["packed_us"],
        packed_by=row["packed_by"],
    )


def unknown_project(name: str) -> NotFoundError:
    """Return the error for a project that is not watched."""
    return NotFoundError(f"there is no project {name}", hint="kitctl projects list")


class ProjectLedger:
    """Reads and writes the rows of projects."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def configured(self, definitions: Mapping[str, str]) -> Sequence[ProjectRecord]:
        """Make the rows of source `config` exactly these; what was packed of each stays known.

        Returns all projects by name, those that were added included. A project whose definition
        changed is packed and named again, be its content the same: its fingerprint and content key
        are forgotten.
        """

        def transaction(connection: sqlite3.Connection) -> Sequence[ProjectRecord]:
            rows = connection.execute("SELECT name FROM projects WHERE source = 'config'")
            for row in rows.fetchall():
                if row["name"] not in definitions:
                    connection.execute("DELETE FROM projects WHERE name = ?", (row["name"],))
            for name, definition in definitions.items():
                _upsert(connection, name, "config", definition, self._clock.now_us())
            return [_record(row) for row in connection.execute(_ALL)]

        return await self._database.write(transaction)

    async def add(self, name: str, definition: str) -> None:
        """Add a project at run time, or change one. Raises `ProjectConflictError`."""

        def transaction(connection: sqlite3.Connection) -> None:
            row = connection.execute(
                "SELECT source FROM projects WHERE name = ?", (name,)
            ).fetchone()
            if row is not None and row["source"] == "config":
                raise ProjectConflictError(
                    f"the project {name} is in the configuration file", hint="change it there"
                )
            at_us = self._clock.now_us()
            _upsert(connection, name, "added", definition, at_us)
            emit(connection, at_us, "project.added", f"project:{name}", {}, project=name)

        await self._database.write(transaction)

    async def remove(self, name: str) -> None:
        """Forget a project that was added. Raises `NotFoundError`, `ProjectConflictError`."""

        def transaction(connection: sqlite3.Connection) -> None:
            row = connection.execute(
                "SELECT source FROM projects WHERE name = ?", (name,)
            ).fetchone()
            if row is None:
                raise unknown_project(name)
            if row["source"] == "config":
                raise ProjectConflictError(
                    f"the project {name} is in the configuration file",
                    hint="remove it there and run kitctl reload",
                )
            connection.execute("DELETE FROM projects WHERE name = ?", (name,))
            at_us = self._clock.now_us()
            emit(connection, at_us, "project.removed", f"project:{name}", {}, project=name)

        await self._database.write(transaction)

    async def hold(self, name: str, *, held: bool) -> None:
        """Hold or release a project. Raises `NotFoundError`."""

        def transaction(connection: sqlite3.Connection) -> None:
            cursor = connection.execute(
                "UPDATE projects SET held = ? WHERE name = ?", (int(held), name)
            )
            if cursor.rowcount != 1:
                raise unknown_project(name)
            kind = "project.held" if held else "project.released"
            emit(connection, self._clock.now_us(), kind, f"project:{name}", {}, project=name)

        await self._database.write(transaction)

    async def all(self) -> Sequence[ProjectRecord]:
        """Return every project by name."""
        return [_record(row) for row in await self._database.read(_ALL)]

    async def project(self, name: str) -> ProjectRecord:
        """Return a project. Raises `NotFoundError`."""
        rows = await self._database.read("SELECT * FROM projects WHERE name = ?", (name,))
        if not rows:
            raise unknown_project(name)
        return _record(rows[0])


def _upsert(
    connection: sqlite3.Connection, name: str, source: str, definition: str, now_us: int
) -> None:
    connection.execute(
        "INSERT INTO projects (name, source, definition, defined_us) VALUES (?1, ?2, ?3, ?4)"
        " ON CONFLICT (name) DO UPDATE SET source = ?2, definition = ?3,"
        " defined_us = CASE definition WHEN ?3 THEN defined_us ELSE ?4 END,"
        " fingerprint = CASE definition WHEN ?3 THEN fingerprint END,"
        " content_key = CASE definition WHEN ?3 THEN content_key END",
        (name, source, definition, now_us),
    )
