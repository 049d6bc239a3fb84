"""What /readyz says, and when."""

import asyncio
from collections import Counter

import pytest

from kitd.errors import KitdError
from kitd.metrics import health
from kitd.metrics.health import Readiness, State


class Daemon:
    """A ledger that can be told to fail or to hang, and the rest of what is judged."""

    def __init__(self):
        self.failure = None
        self.is_stopping = False
        self.codes = []
        self.writes = 0
        self.may_write = asyncio.Event()
        self.may_write.set()

    async def write(self):
        self.writes += 1
        await self.may_write.wait()
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def daemon():
    return Daemon()


@pytest.fixture
def readiness(daemon):
    readiness = Readiness(daemon.write, lambda: daemon.is_stopping, lambda: daemon.codes)
    readiness.started = True
    return readiness


async def test_the_states(daemon, readiness):
    assert (await readiness.judge()).state is State.READY
    daemon.codes = ["disk_nearly_full", "transfer_failing", "transfer_failing"]
    verdict = await readiness.judge()
    assert (verdict.state, verdict.is_ready) == (State.DEGRADED, True)
    assert verdict.reasons == Counter(transfer_failing=2, disk_nearly_full=1)
    daemon.is_stopping = True
    verdict = await readiness.judge()
    assert (verdict.state, verdict.is_ready) == (State.STOPPING, False)


async def test_it_is_not_ready_before_it_has_started(readiness):
    readiness.started = False
    verdict = await readiness.judge()
    assert (verdict.state, verdict.is_ready) == (State.STARTING, False)


@pytest.mark.parametrize("failure", [KitdError("read-only"), RuntimeError("a defect")])
async def test_a_ledger_that_cannot_be_written(daemon, readiness, failure):
    daemon.failure = failure
    verdict = await readiness.judge()
    assert (verdict.state, verdict.is_ready) == (State.LEDGER, False)
    daemon.failure = None
    assert (await readiness.judge()).is_ready


async def test_a_ledger_that_hangs_is_asked_once(daemon, readiness, monkeypatch):
    monkeypatch.setattr(health, "LEDGER_S", 0.01)
    daemon.may_write.clear()
    verdicts = await asyncio.gather(*(readiness.judge() for _ in range(20)))
    assert {verdict.state for verdict in verdicts} == {State.LEDGER}
    assert (await readiness.judge()).state is State.LEDGER
    assert daemon.writes == 1
    monkeypatch.undo()
    daemon.may_write.set()
    assert (await readiness.judge()).is_ready
