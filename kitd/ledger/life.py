"""The daemon's lives: each start is an epoch, each ledger an instance."""

import secrets
import sqlite3
from dataclasses import dataclass

from kitd.clock import Clock
from kitd.ledger.database import Database
from kitd.ledger.event_ledger import emit


@dataclass(frozen=True, slots=True)
class Life:
    """Which ledger this is and which start of the daemon."""

    instance: str
    epoch: int


async def begin(database: Database, clock: Clock, *, pid: int, version: str) -> Life:
    """Start an epoch; the caller holds the lock on the state directory."""

    def transaction(connection: sqlite3.Connection) -> Life:
        connection.execute(
            "INSERT INTO meta (key, value) VALUES ('instance', ?) ON CONFLICT DO NOTHING",
            (secrets.token_hex(16),),
        )
        row = connection.execute("SELECT value FROM meta WHERE key = 'instance'").fetchone()
        now_us = clock.now_us()
        cursor = connection.execute(
            "INSERT INTO epochs (pid, version, started_us) VALUES (?, ?, ?)", (pid, version, now_us)
        )
        assert cursor.lastrowid is not None
        data = {"version": version, "epoch": cursor.lastrowid}
        emit(connection, now_us, "daemon.started", "daemon", data)
        return Life(row["value"], cursor.lastrowid)

    return await database.write(transaction)


async def end(database: Database, clock: Clock, life: Life) -> None:
    """Note that this life ended in good order."""

    def transaction(connection: sqlite3.Connection) -> None:
        now_us = clock.now_us()
        connection.execute("UPDATE epochs SET stopped_us = ? WHERE epoch = ?", (now_us, life.epoch))
        emit(connection, now_us, "daemon.stopped", "daemon", {"epoch": life.epoch})

    await database.write(transaction)
