"""Replays a ledger: `kitd.queue.audit` over every job of a file, a page at a time.

Works on the ledger of a running daemon too. Each page is a snapshot of its own, so that a job is
seen together with its events and no snapshot is held for long. Blocks.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import groupby, islice
from pathlib import Path

from kitd.ledger.failure import LedgerError, ledger_errors
from kitd.queue.audit import Finding, Found, Told, audit_followers, audit_job
from kitd.queue.job import JobState

PAGE_JOBS = 500
MAX_FINDINGS = 100


def audit_ledger(path: Path) -> Sequence[Finding]:
    """Return what is wrong with the history in a ledger, at most `MAX_FINDINGS`.

    Raises `LedgerError` where it cannot be read, `LedgerDamagedError`.
    """
    if not path.exists():
        raise LedgerError(f"there is no ledger {path}")
    with (
        ledger_errors(path),
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection,
    ):
        connection.isolation_level = None
        connection.row_factory = sqlite3.Row
        return list(islice(_findings(connection), MAX_FINDINGS))


def _findings(connection: sqlite3.Connection) -> Iterator[Finding]:
    yield from _gaps(connection)
    job = 0
    while (first := _next_job(connection, job)) is not None:
        job = first + PAGE_JOBS - 1
        # Kept together: between two pages the daemon goes on.
        connection.execute("BEGIN")
        yield from list(_page(connection, first, job))
        connection.execute("COMMIT")


def _gaps(connection: sqlite3.Connection) -> Iterator[Finding]:
    """Yield where events are missing: they go from the oldest on, and numbers are not left out."""
    found = connection.execute(
        "SELECT seq, (SELECT min(seq) FROM events AS later WHERE later.seq > events.seq)"
        " AS following FROM events WHERE following > seq + 1 LIMIT ?",
        (MAX_FINDINGS,),
    )
    for row in found.fetchall():
        yield Finding(None, f"the events between {row['seq']} and {row['following']} are missing")


def _next_job(connection: sqlite3.Connection, after: int) -> int | None:
    """Return the lowest number of a job that has a row or events."""
    row = connection.execute(
        "SELECT min(job) FROM (SELECT min(id) AS job FROM jobs WHERE id > ?1"
        " UNION ALL SELECT min(job) FROM events WHERE job > ?1)",
        (after,),
    ).fetchone()
    job: int | None = row[0]
    return job


def _page(connection: sqlite3.Connection, first: int, last: int) -> Iterator[Finding]:
    complete = connection.execute("SELECT min(seq) FROM events").fetchone()[0] == 1
    newest = connection.execute(
        "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'jobs'"
    ).fetchone()[0]
    rows = {
        row["id"]: Found(
            JobState(row["state"]), row["claim"], tuple(json.loads(row["followed_by"]))
        )
        for row in connection.execute(
            "SELECT id, state, claim, followed_by FROM jobs WHERE id BETWEEN ? AND ?", (first, last)
        )
    }
    told = connection.execute(
        "SELECT job, seq, type FROM events WHERE job BETWEEN ? AND ? ORDER BY job, seq",
        (first, last),
    )
    silent = dict(rows)
    for job, events in groupby(told, key=lambda row: int(row["job"])):
        silent.pop(job, None)
        replayed = (Told(event["seq"], event["type"]) for event in events)
        yield from audit_job(job, replayed, rows.get(job), complete=complete)
    for job, row in silent.items():
        yield from audit_job(job, (), row, complete=complete)
    for job, row in rows.items():
        yield from audit_followers(job, row, newest=newest)
