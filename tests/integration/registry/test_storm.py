"""A registry that asks for silence: nobody says anything before it is over."""

import asyncio
import os

import pytest

from fault_registry.quirks import Quirks
from fault_registry.server import FaultRegistry
from kitd.errors import Disposition, KitdError
from kitd.oci.reference import Repository
from kitd.registry.client import RegistryClient
from kitd.registry.settings import RegistrySettings
from kitd.registry.transport import Surroundings

JOBS = 3
BLOBS = 2
DEADLINE_S = 55.0

pytestmark = pytest.mark.slow


@pytest.fixture
async def client():
    """A client whose waits take the time they take: it is the registry's clock that counts."""
    async with RegistryClient(lambda _: RegistrySettings(), Surroundings()) as client:
        yield client


async def push(remote, target, cache):
    """Push again and again, as the queue does, but with less patience than that has."""
    while True:
        try:
            await remote.push(target, cache)
        except KitdError as error:
            if error.disposition is not Disposition.RETRY:
                raise
            await asyncio.sleep(0.05)
        else:
            return


@pytest.mark.parametrize("retry_after", ["seconds", "date"])
async def test_no_request_falls_into_a_window_of_silence(client, cache, tmp_path, retry_after):
    """Three of ten answers are 429; several jobs share one client, as in a daemon."""
    quirks = Quirks(busy_share=0.3, busy_s=1.0, retry_after=retry_after, delay_s=0.002)
    targets = [cache.put(os.urandom(1000 + number)) for number in range(JOBS * BLOBS)]

    async def job(number, registry):
        remote = await client.repository(Repository(registry.host, f"team/job-{number}"))
        for target in targets[number::JOBS]:
            await push(remote, target, cache)

    async with FaultRegistry(tmp_path / "registry", quirks) as registry:
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
            for number in range(JOBS):
                group.create_task(job(number, registry))
        assert registry.tally.busy > 0, "there was no storm"
        assert registry.tally.forbidden() == []
        for number in range(JOBS):
            held = registry.storage.repository(f"team/job-{number}").blobs
            assert held == {target.digest for target in targets[number::JOBS]}


@pytest.mark.parametrize("retry_after", ["none", "nonsense"])
async def test_a_429_that_does_not_say_for_how_long_is_survived(
    client, cache, tmp_path, retry_after
):
    quirks = Quirks(busy_share=0.2, retry_after=retry_after)
    targets = [cache.put(os.urandom(1000 + number)) for number in range(4)]
    async with FaultRegistry(tmp_path / "registry", quirks) as registry:
        remote = await client.repository(Repository(registry.host, "team/model"))
        async with asyncio.timeout(DEADLINE_S):
            for target in targets:
                await push(remote, target, cache)
        assert registry.tally.busy > 0, "there was no storm"
        assert registry.storage.repository("team/model").blobs == {t.digest for t in targets}
