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
"""Kits have few layers; what is beyond this was not recalled for the longest time."""
TRIM_EVERY = 1_000
"""So many more may be remembered in between."""
STALE_US = 24 * 3600 * 1_000_000
"""What is recalled is noted anew, but not more often than this: a recall should write nothing."""


class PackMemory:
    """Remembers and recalls."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._remembered = 0

    async def recall(self, keys: Collection[str]) -> Mapping[str, bytes]:
        """Return what is remembered by these keys."""
        rows = await self._database.read(
            "SELECT key, value, noted_us FROM packed WHERE key IN (SELECT value FROM json_each(?))",
            (json.dumps(list(keys)),),
        )
        stale_us = self._clock.now_us() - STALE_US
        if stale := [row["key"] for row in rows if row["noted_us"] < stale_us]:
            await self._note(stale)
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
        self._remembered += 1
        if self._remembered % TRIM_EVERY == 0:
            await self.trim()

    async def _note(self, keys: Collection[str]) -> None:
        def transaction(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE packed SET noted_us = ? WHERE key IN (SELECT value FROM json_each(?))",
                (self._clock.now_us(), json.dumps(list(keys))),
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
