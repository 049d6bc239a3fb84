"""Layers from a pipe into Debian's registry: published when the worker vouches, and not before."""

import asyncio
import hashlib
import os
from contextlib import asynccontextmanager, suppress

import pytest

from kitd.daemon.layer_relay import CHUNK_BYTES, LayerLostError, LayerRelays
from kitd.errors import UnavailableError
from kitd.oci.descriptor import describe
from kitd.oci.media_type import OCTET_STREAM
from kitd.oci.reference import Repository
from kitd.packing.order import PackedLayer, Streaming
from kitd.packing.outlet import PipeClosedError, new_pipe, piped
from kitd.packing.scan import InputChangedError
from kitd.registry.client import RegistryClient
from kitd.registry.errors import RegistryDeniedError
from kitd.registry.settings import RegistrySettings
from kitd.registry.transfer_memory import VolatileMemory
from kitd.registry.transport import Surroundings
from kitd.store.blob_store import BlobStore

CONTENT = os.urandom(2 * CHUNK_BYTES + 5)
TARGET = describe(OCTET_STREAM, CONTENT)


class Bench:
    """Relays to one repository, with the memory of uploads in it."""

    def __init__(self, client, remote, memory):
        self.relays = LayerRelays(client.repository, over_bytes=lambda: None)
        self.remote = remote
        self.memory = memory

    async def attempt(self, work):
        """Do something with a relay, as a pack does."""
        async with self.relays.relaying(self.remote) as relay:
            await work(relay)

    async def has(self, count):
        """Wait until the registry has acknowledged so many bytes."""
        async with asyncio.timeout(20):
            while True:
                session = await self.memory.recall(self.remote.repository, "layer:key")
                if session is not None and session.received == count:
                    return
                await asyncio.sleep(0.01)


@asynccontextmanager
async def bench_at(host):
    memory = VolatileMemory()
    surroundings = Surroundings(environment={})
    async with RegistryClient(lambda _: RegistrySettings(), surroundings, memory) as client:
        remote = await client.repository(Repository(host, "team/model"))
        yield Bench(client, remote, memory)


@pytest.fixture
async def bench(docker_registry):
    async with bench_at(docker_registry.host) as bench:
        yield bench


@pytest.fixture
def store(tmp_path):
    store = BlobStore(tmp_path / "cache")
    store.create()
    return store


def layer_of(content=CONTENT):
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return PackedLayer(
        media_type=OCTET_STREAM,
        digest=digest,
        size=len(content),
        diff_id=digest,
        annotations={},
        reused=False,
        repository="anywhere",
    )


async def write(store, relay, content=CONTENT, *, digest=None, key="key"):
    """Write into a pipe what a worker would, and return its path."""
    with new_pipe(store) as path:
        said = Streaming(key=key, pipe=str(path), digest=digest, size=digest and len(content))
        relay.begin(said)
        await asyncio.to_thread(fill, path, content)
    return str(path)


def fill(path, content):
    with piped(path) as outlet:
        outlet.ring.write(content)
        outlet.commit()


def uploads_left(registry):
    return list(registry.root.glob("docker/registry/v2/repositories/**/_uploads/*/data"))


async def test_a_layer_is_published_after_the_answer_and_not_before(bench, store):
    async def work(relay):
        relay.finish(await write(store, relay), layer_of())
        assert not await bench.remote.exists(TARGET)
        await relay.publish()

    await bench.attempt(work)
    assert await bench.remote.exists(TARGET)
    assert list(store.ingest_dir.iterdir()) == []


async def test_files_that_changed_leave_nothing_behind(bench, store, docker_registry):
    async def work(relay):
        relay.finish(await write(store, relay), layer_of())
        raise InputChangedError("another file changed")

    with pytest.raises(InputChangedError):
        await bench.attempt(work)
    assert not await bench.remote.exists(TARGET)
    assert uploads_left(docker_registry) == []


async def test_what_a_failure_of_the_moment_leaves_is_gone_on_with(bench, store):
    """The next attempt drops what the registry has; the digest proves that it was the same."""

    async def be_killed(relay):
        await write(store, relay, CONTENT[:CHUNK_BYTES])
        await bench.has(CHUNK_BYTES)
        raise UnavailableError("the worker was killed")

    async def go_on(relay):
        relay.finish(await write(store, relay), layer_of())
        await relay.publish()

    with pytest.raises(UnavailableError):
        await bench.attempt(be_killed)
    upload = await bench.remote.begin_stream("layer:key", chunk_bytes=CHUNK_BYTES)
    assert upload.received == CHUNK_BYTES
    await bench.attempt(go_on)
    assert await bench.remote.exists(TARGET)


async def test_bytes_that_got_lost_are_not_published(bench, store):
    async def work(relay):
        relay.finish(await write(store, relay, CONTENT[:-1]), layer_of())
        await relay.publish()

    with pytest.raises(LayerLostError):
        await bench.attempt(work)
    assert not await bench.remote.exists(TARGET)


async def test_a_digest_that_is_known_first_makes_it_one_request(bench, store):
    """Whose end waits for the worker's word."""

    async def work(relay):
        path = await write(store, relay, digest=TARGET.digest)
        assert not await bench.remote.exists(TARGET)
        relay.finish(path, layer_of())
        await relay.publish()

    await bench.attempt(work)
    assert await bench.remote.exists(TARGET)


async def test_a_word_that_does_not_come_lets_nothing_be_published(bench, store):
    async def work(relay):
        await write(store, relay, digest=TARGET.digest)
        raise InputChangedError("the file changed")

    with pytest.raises(InputChangedError):
        await bench.attempt(work)
    assert not await bench.remote.exists(TARGET)


async def test_a_registry_that_takes_nothing_ends_the_pack(store, docker_registry_with_login):
    """With its own error, and not with what the worker says of its pipe."""

    async def work(relay):
        with suppress(PipeClosedError):
            await write(store, relay)
        await asyncio.Event().wait()

    async with bench_at(docker_registry_with_login.host) as bench:
        with pytest.raises(RegistryDeniedError):
            await bench.attempt(work)
