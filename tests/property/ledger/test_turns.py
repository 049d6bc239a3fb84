"""Fairness: nobody who has work waits longer than a round, however much others have."""

import asyncio
from collections import Counter
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kitd.clock import SystemClock
from kitd.ledger.database import Database
from kitd.ledger.job_ledger import JobLedger
from kitd.queue.job import JobRequest, Lane

OWNERS = "abcde"


class Lane1:
    """One lane of a ledger in a file, and owners whose work never ends."""

    def __init__(self, ledger):
        self.ledger = ledger
        self.numbers = count()
        self.busy = set()

    async def ask(self, owner, times=1):
        for _ in range(times):
            key = str(next(self.numbers))
            await self.ledger.enqueue(
                JobRequest(
                    kind="pack",
                    lane=Lane.PACK,
                    key=key,
                    lock=key,
                    args=b"{}",
                    max_attempts=1,
                    project=owner,
                )
            )

    async def serve(self):
        """Claim one job and let its owner ask for another; return the owner."""
        (job,) = await self.ledger.claim({Lane.PACK: 1})
        await self.ledger.succeed(job, b"{}", (), ())
        if job.project in self.busy:
            await self.ask(job.project)
        return job.project


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run a scenario on a new ledger."""

    def run(scenario):
        async def on_a_ledger():
            path = tmp_path_factory.mktemp("turns") / "ledger.sqlite3"
            async with Database(path) as database:
                await scenario(Lane1(JobLedger(database, SystemClock(), epoch=1)))

        asyncio.run(on_a_ledger())

    return run


@settings(max_examples=20)
@given(
    backlog=st.dictionaries(st.sampled_from(OWNERS), st.integers(1, 12), min_size=2),
    rounds=st.integers(1, 40),
)
def test_who_always_has_work_is_served_as_often_as_any_other(run, backlog, rounds):
    async def scenario(lane):
        lane.busy = set(backlog)
        for owner, number in backlog.items():
            await lane.ask(owner, number)
        served = Counter(dict.fromkeys(backlog, 0))
        for _ in range(rounds):
            served[await lane.serve()] += 1
            assert max(served.values()) - min(served.values()) <= 1

    run(scenario)


@settings(max_examples=20)
@given(
    backlog=st.dictionaries(st.sampled_from(OWNERS), st.integers(1, 12), min_size=1),
    before=st.integers(0, 40),
    asked=st.integers(1, 8),
)
def test_a_newcomer_waits_for_at_most_one_job_of_each_other(run, backlog, before, asked):
    async def scenario(lane):
        lane.busy = set(backlog)
        for owner, number in backlog.items():
            await lane.ask(owner, number)
        for _ in range(before):
            await lane.serve()
        await lane.ask("new", asked)
        ahead = []
        while (owner := await lane.serve()) != "new":
            ahead.append(owner)
        assert len(ahead) == len(set(ahead))

    run(scenario)


@settings(max_examples=20)
@given(choices=st.lists(st.sampled_from(OWNERS), min_size=1, max_size=60))
def test_nothing_that_was_asked_for_is_left(run, choices):
    async def scenario(lane):
        for owner in choices:
            await lane.ask(owner)
        served = [await lane.serve() for _ in choices]
        assert Counter(served) == Counter(choices)
        assert list(await lane.ledger.claim({Lane.PACK: 1})) == []

    run(scenario)
