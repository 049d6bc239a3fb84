"""Whose turn it is: start-time fair queueing, with turns that are counted in jobs.

A job's turn is one after its owner's last, but not before the one that its lane has come to. So
owners that always have work are served in rotation however many jobs each has, and one that comes
anew waits for at most one job of each other. Each priority of a lane counts for itself.
"""

import sqlite3


def take_turn(connection: sqlite3.Connection, lane: str, priority: int, owner: str) -> int:
    """Return the turn of an owner's next job, and remember that it is given."""
    row = connection.execute(
        "INSERT INTO turns (lane, priority, owner, turn) VALUES (?1, ?2, ?3,"
        "  coalesce((SELECT turn FROM lanes WHERE lane = ?1 AND priority = ?2), 0))"
        " ON CONFLICT (lane, priority, owner) DO UPDATE SET turn = max(turn + 1, excluded.turn)"
        " RETURNING turn",
        (lane, priority, owner),
    ).fetchone()
    turn: int = row[0]
    return turn


def reach_turn(connection: sqlite3.Connection, lane: str, priority: int, turn: int) -> None:
    """Note that a job of this turn was claimed."""
    connection.execute(
        "INSERT INTO lanes (lane, priority, turn) VALUES (?, ?, ?)"
        " ON CONFLICT (lane, priority) DO UPDATE SET turn = max(turn, excluded.turn)",
        (lane, priority, turn),
    )


def forget_idle_owners(connection: sqlite3.Connection, lane: str) -> None:
    """Forget the owners who would be served next all the same: their turns are past."""
    connection.execute(
        "DELETE FROM turns WHERE lane = ?1 AND turn <"
        " (SELECT turn FROM lanes WHERE lane = ?1 AND priority = turns.priority)",
        (lane,),
    )
