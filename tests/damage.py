"""Damage to a ledger, as a disk that forgets would do it."""

import sqlite3
from contextlib import closing
from pathlib import Path


def break_table(ledger: Path, name: str) -> None:
    """Overwrite the first page of a table of a ledger that nobody has open."""
    with closing(sqlite3.connect(ledger)) as connection:
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with ledger.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xaa" * size)
