"""A ledger in a real file, and a clock that stands still until it is told to move."""

import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest

from kitd.ledger.database import Database
from kitd.ledger.event_ledger import EventLedger
from kitd.ledger.job_ledger import JobLedger
from kitd.queue.job import JobRequest, Lane


class ManualClock:
    """A clock with hands."""

    def __init__(self) -> None:
        self.at_us = 1_700_000_000_000_000

    def now_us(self) -> int:
        return self.at_us

    def monotonic_s(self) -> float:
        return self.at_us / 1_000_000

    def advance(self, delay_s: float) -> None:
        self.at_us += int(delay_s * 1_000_000)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def database(tmp_path):
    async with Database(tmp_path / "ledger.sqlite3") as database:
        yield database


@pytest.fixture
def jobs(database, clock) -> JobLedger:
    return JobLedger(database, clock, epoch=1)


@pytest.fixture
def next_life(database, clock) -> JobLedger:
    """The queue as the daemon's next start sees it."""
    return JobLedger(database, clock, epoch=2)


@pytest.fixture
def events(database) -> EventLedger:
    return EventLedger(database)


@pytest.fixture
def sql(database) -> Callable[..., list[tuple]]:
    """Look at the file the way a person with `sqlite3` does, or write into it like one."""

    def sql(statement: str, *parameters: object) -> list[tuple]:
        with closing(sqlite3.connect(database.path)) as connection, connection:
            connection.execute("PRAGMA foreign_keys = ON")
            return connection.execute(statement, parameters).fetchall()

    return sql


@pytest.fixture
def wish() -> Callable[..., JobRequest]:
    """Make a wish; what is not named is plain, and the lock is the key's."""

    def wish(key: str = "a", **fields) -> JobRequest:
        plain = {
            "kind": "pack",
            "lane": Lane.PACK,
            "key": key,
            "lock": key,
            "args": b"{}",
            "max_attempts": 3,
        }
        return JobRequest(**{**plain, **fields})

    return wish
