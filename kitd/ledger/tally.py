"""Counts that outlive what they count, kept in the transaction of what they tell of."""

import sqlite3
from enum import StrEnum


class Tallied(StrEnum):
    """What is counted; the name of each count says whose it is."""

    JOB = "job"
    """By kind: what became of jobs."""
    MIRROR_EDGE = "mirror_edge"
    """By mirror, empty where a person named both ends: what became of tags."""
    NOTIFICATION = "notification"
    """By endpoint."""


def tally(
    connection: sqlite3.Connection, subject: Tallied, name: str, outcome: str, count: int = 1
) -> None:
    """Add to a count in the transaction of `connection`."""
    connection.execute(
        "INSERT INTO tallies (subject, name, outcome, count) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET count = count + excluded.count",
        (subject, name, outcome, count),
    )
