"""An executor over a real ledger, and kinds of jobs that do as they are told."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field

import msgspec
import pytest

from kitd.clock import SystemClock
from kitd.ledger.database import Database
from kitd.ledger.event_ledger import EventLedger
from kitd.ledger.job_ledger import JobLedger
from kitd.queue.executor import Executor, JobStore
from kitd.queue.job import Job, JobState, Lane
from kitd.queue.kind import Done, JobContext, JobKind
from kitd.queue.retry import RetryPolicy


class Args(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    lock: str | None = None


class Result(msgspec.Struct, frozen=True):
    name: str


@dataclass
class Stage:
    """What the jobs of a test are given: who came, who may go, and what to do before."""

    entered: list[str] = field(default_factory=list)
    inside: set[str] = field(default_factory=set)
    most_inside: int = 0
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    script: dict[str, list[BaseException | Done]] = field(default_factory=dict)
    contexts: dict[str, JobContext] = field(default_factory=dict)
    works: dict[str, Callable[[], Awaitable[object]]] = field(default_factory=dict)

    def gate(self, name: str) -> asyncio.Event:
        """Let a job wait inside until the returned event is set."""
        return self.gates.setdefault(name, asyncio.Event())


async def run(args: Args, context: JobContext, stage: Stage) -> Done:
    """Enter, wait at the gate if there is one, and do what the script says next."""
    stage.entered.append(args.name)
    stage.inside.add(args.name)
    stage.most_inside = max(stage.most_inside, len(stage.inside))
    stage.contexts[args.name] = context
    try:
        if args.name in stage.gates:
            await stage.gates[args.name].wait()
        if args.name in stage.works:
            await stage.works[args.name]()
    finally:
        stage.inside.discard(args.name)
    script = stage.script.get(args.name)
    outcome = script.pop(0) if script else Done(Result(args.name))
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def kind(lane: Lane) -> JobKind[Args, Stage]:
    return JobKind(
        name=f"act-{lane}",
        lane=lane,
        args=Args,
        retry=RetryPolicy(max_attempts=3, base_s=0.001, cap_s=0.002),
        key=lambda args: args.name,
        lock=lambda args: args.lock or args.name,
        run=run,
    )


ACTS = {lane: kind(lane) for lane in Lane}


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def request_of():
    """Make a wish for a job of the stage."""

    def request_of(name: str, *, lane: Lane = Lane.PACK, lock: str | None = None, **fields):
        return ACTS[lane].request(Args(name=name, lock=lock), **fields)

    return request_of


@pytest.fixture
async def database(tmp_path):
    async with Database(tmp_path / "ledger.sqlite3") as database:
        yield database


@pytest.fixture
def jobs(database) -> JobLedger:
    return JobLedger(database, SystemClock(), epoch=1)


@pytest.fixture
def events(database) -> EventLedger:
    return EventLedger(database)


@pytest.fixture
def sql(database) -> Callable[..., list[tuple]]:
    """Look at the file the way a person with `sqlite3` does."""

    def sql(statement: str, *parameters: object) -> list[tuple]:
        with closing(sqlite3.connect(database.path)) as connection:
            return connection.execute(statement, parameters).fetchall()

    return sql


@pytest.fixture
def until(jobs, events):
    """Wait, with a deadline, until jobs are in a state; return them."""

    async def until(state: JobState, *waited: Job) -> list[Job]:
        async with asyncio.timeout(15):
            while True:
                seq = await events.head_seq()
                found = [await jobs.job(job.id) for job in waited]
                if all(job.state is state for job in found):
                    return found
                await events.wait(seq)

    return until


@pytest.fixture
def poll():
    """Poll for a condition in memory, with a deadline."""

    async def poll(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(15):
            while not condition():
                await asyncio.sleep(0.002)

    return poll


@dataclass
class Room:
    """Disks that have room when the test says so."""

    back: asyncio.Event = field(default_factory=asyncio.Event)
    ways_made: int = 0
    looks: int = 0

    async def make_way(self) -> None:
        self.ways_made += 1

    async def is_back(self) -> bool:
        self.looks += 1
        await self.back.wait()
        return True


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture
def executor_over(jobs, stage, room):
    """Make an executor of the stage's kinds; what is not named is plain."""

    def executor_over(
        store: JobStore = jobs, *, slots: Mapping[Lane, int] | None = None, **hooks
    ) -> Executor[Stage]:
        return Executor(
            store,
            {act.name: act for act in ACTS.values()},
            stage,
            slots or dict.fromkeys(Lane, 4),
            room,
            **{"follow": lambda _fact: (), **hooks},
        )

    return executor_over


@pytest.fixture
def executing(database, executor_over):
    """Run an executor while the context is open; stopping it must be quick."""

    @asynccontextmanager
    async def executing(*arguments, **named) -> AsyncIterator[Executor[Stage]]:
        executor = executor_over(*arguments, **named)
        database.on_commit(executor.wake)
        task = asyncio.create_task(executor.run())
        try:
            yield executor
        finally:
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=12)
            assert done, "the executor does not stop"
            assert task.cancelled(), task.exception()

    return executing
