"""Connections that break again and again: a cut costs little, and what arrives is whole."""

import os
from contextlib import asynccontextmanager

import pytest

from fault_registry.cutting_proxy import CuttingProxy
from fault_registry.server import FaultRegistry
from kitd.content.verify import read
from kitd.errors import Disposition, KitdError
from kitd.oci.descriptor import describe
from kitd.oci.reference import Repository
from kitd.registry.client import RegistryClient
from kitd.registry.settings import RegistrySettings, UploadMode
from kitd.registry.transport import Surroundings
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent

MIB = 1 << 20
CHUNK_BYTES = 8 * MIB
REQUEST_BYTES = 4096
"""What a request or an answer may have besides its body."""
ANSWERS_BYTES = 500
"""A little more than an answer has."""
SETTINGS = RegistrySettings(upload_mode=UploadMode.CHUNKED, chunk_bytes=CHUNK_BYTES)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def cache(tmp_path, soak):
    """A cache with one blob, which is `cache.target`."""
    store = BlobStore(tmp_path / "cache")
    store.create()
    content = os.urandom(soak.blob_mib * MIB)
    store.put(content)
    cache = CacheContent(store)
    cache.target = describe("application/octet-stream", content)
    return cache


@asynccontextmanager
async def remote_at(host):
    async with RegistryClient(lambda _: SETTINGS, Surroundings()) as client:
        yield await client.repository(Repository(host, "team/model"))


async def until_done(attempt, most):
    """Try again as the queue does, and return how often it was tried."""
    for number in range(1, most + 1):
        try:
            await attempt()
        except KitdError as error:
            if error.disposition is not Disposition.RETRY or number == most:
                raise
        else:
            return number
    raise AssertionError("the last attempt returns or raises")


@pytest.mark.parametrize("down", [False, True], ids=["requests cut", "answers cut"])
async def test_a_cut_upload_sends_no_chunk_twice(soak, tmp_path, cache, down):
    """Requests are cut every few MiB; answers, which are small, every few of them."""
    size = cache.target.size
    async with FaultRegistry(tmp_path / "registry") as registry:
        for number, every_mib in enumerate(soak.cut_mib):
            registry.empty()
            every = ANSWERS_BYTES * (number + 2) if down else every_mib * MIB
            cut = {"down_every" if down else "up_every": every}
            async with CuttingProxy(registry.host, **cut) as proxy, remote_at(proxy.host) as remote:
                cuts = size // (every_mib * MIB) + 2
                await until_done(lambda: remote.push(cache.target, cache), cuts * 3)
                assert cache.target.digest in registry.storage.repository("team/model").blobs
                way = proxy.down if down else proxy.up
                assert way.cuts > 0, "nothing was cut"
                again = proxy.up.passed_bytes - size
                requests = len(registry.tally.requests) + way.cuts
                assert again <= way.cuts * CHUNK_BYTES + requests * REQUEST_BYTES, every_mib
                (blob,) = (b for b in registry.tally.blobs.values() if b.uploads)
                assert blob.received_bytes - size <= way.cuts * CHUNK_BYTES
                assert len(registry.storage.uploads) == 0, "an upload was left behind"


async def test_debians_registry_gets_the_blob_whatever_is_cut(soak, docker_registry, cache):
    """It gives an upload up that was cut within a request, so a cut may cost all of that."""
    size = cache.target.size
    for number, every_mib in enumerate(soak.cut_mib):
        cuts = 1 + number % 3
        async with (
            CuttingProxy(docker_registry.host, up_every=every_mib * MIB, most_cuts=cuts) as proxy,
            RegistryClient(lambda _: SETTINGS, Surroundings()) as client,
        ):
            remote = await client.repository(Repository(proxy.host, f"team/model-{every_mib}"))
            await until_done(lambda: remote.push(cache.target, cache), 3 * cuts)  # noqa: B023
            again = proxy.up.passed_bytes - size
            chunks = size // CHUNK_BYTES + 10
            assert again <= (cuts * every_mib) * MIB + (cuts + 1) * chunks * REQUEST_BYTES
            assert await read(remote, cache.target, max_bytes=size)


@pytest.mark.parametrize("kind", ["fault registry", "docker-registry"])
async def test_a_cut_download_goes_on_from_where_it_was(soak, request, tmp_path, cache, kind):
    """What a cut loses is what was on its way."""
    size = cache.target.size
    async with FaultRegistry(tmp_path / "registry") as registry:
        host = registry.host
        if kind == "docker-registry":
            host = request.getfixturevalue("docker_registry").host
        async with remote_at(host) as remote:
            await remote.push(cache.target, cache)
        for every_mib in soak.cut_mib:
            store = BlobStore(tmp_path / f"back-{every_mib}")
            store.create()
            async with (
                CuttingProxy(host, down_every=every_mib * MIB) as proxy,
                remote_at(proxy.host) as remote,
            ):
                with CacheContent(store).hold() as back:
                    most = size // (every_mib * MIB) + 4
                    await until_done(lambda: back.push(cache.target, remote), most)
                    assert store.has(cache.target)
                assert proxy.down.cuts > 0, "nothing was cut"
                again = proxy.down.passed_bytes - size
                assert again <= proxy.down.cuts * CHUNK_BYTES, every_mib
