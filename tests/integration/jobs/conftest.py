"""What a job works with, of which each test has its own part."""

from contextlib import AsyncExitStack, contextmanager
from types import SimpleNamespace

import pytest

from kitd.clock import SystemClock
from kitd.jobs.port import PackSettings, Ports
from kitd.ledger.database import Database
from kitd.modelkit.dialect import Dialect
from kitd.queue.kind import HUMAN
from kitd.registry.client import RegistryClient
from kitd.registry.settings import RegistrySettings
from kitd.registry.transport import Surroundings
from tests.integration.jobs.world import World


class Context:
    """What an executor gives to an attempt that nobody watches."""

    def __init__(self):
        self.over = []
        self.job = SimpleNamespace(priority=HUMAN)

    def report(self, progress):
        """Nobody looks."""

    def when_over(self, release):
        self.over.append(release)


@pytest.fixture
def attempt():
    """Open the context of an attempt; what it holds is let go of when that is over."""

    @contextmanager
    def attempt():
        context = Context()
        try:
            yield context
        finally:
            for release in context.over:
                release()

    return attempt


@pytest.fixture
def make_ports():
    """Make ports over a cache that has all it knows of; what is not given must not be used."""

    def make(cache, **given):
        others = dict.fromkeys(
            (
                *("keeps", "catalog", "packer", "remote", "head_start", "collector"),
                *("verifier", "importer", "mirrors", "reads", "mirror_remote", "repositories"),
            )
        )
        settings = PackSettings(
            dialect=Dialect.CURRENT,
            cli_version="1.16.0",
            compression="none",
            layer_format="tar",
        )
        real = {"cache": cache, "reach": cache, "clock": SystemClock(), "settings": settings}
        return Ports(**{**others, **real, **given})

    return make


@pytest.fixture
async def world(tmp_path, make_ports, attempt):
    """Give a world of mirrors, in which clients wait for nothing."""

    async def sleep(delay_s):
        """Wait for nothing between attempts."""

    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database(tmp_path / "ledger.db"))
        client = RegistryClient(
            lambda _: RegistrySettings(), Surroundings(environment={}, sleep=sleep)
        )
        await stack.enter_async_context(client)
        yield World(stack, tmp_path, make_ports, attempt, database, client)
