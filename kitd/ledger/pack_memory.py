"""What was packed before, so that nothing is read twice.

A key is all that a thing was made from, in one word; the value is the packer's own text. Forgetting
any of it costs time and nothing else.
"""

import json
import sqlite3
from collections.abc import Collection, Mapping

from kitd.clock import Clock
from kitd.ledger.database import Database

MAX_ENTRIES = 100_000
"""Kits have few layers; what is beyond this was not packed for the longest time."""


class PackMemory:
    """Remembers and recalls."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def recall(self, keys: Collection[str]) -> Mapping[str, bytes]:
        """Return what is remembered by these keys."""
        rows = await self._database.read(
            "SELECT key, value FROM packed WHERE key IN (SELECT value FROM json_each(?))",
            (json.dumps(list(keys)),),
        )
        return {row["key"]: row["value"] for row in rows}

    async def remember(self, key: str, value: bytes) -> None:
        """Remember something by its key, durably once this returns."""

        def transaction(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO packed (key, value, noted_us) VALUES (?1, ?2, ?3)"
                " ON CONFLICT (key) DO UPDATE SET value = ?2, noted_us = ?3",
                (key, value, self._clock.now_us()),
            )

        await self._database.write(transaction)

    async def trim(self, max_entries: int = MAX_ENTRIES) -> None:
        """Forget the oldest of what is too much."""

        def transaction(connection: sqlite3.Connection) -> None:
            connection.execute(
                "DELETE FROM packed WHERE key IN"
                " (SELECT key FROM packed ORDER BY noted_us DESC LIMIT -1 OFFSET ?)",
                (max_entries,),
            )

        await self._database.write(transaction)
