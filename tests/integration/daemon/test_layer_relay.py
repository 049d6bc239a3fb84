"""Layers from a pipe into Debian's registry: published when the worker vouches, and not before."""

import asyncio
import hashlib
import os
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from kitd.daemon.layer_relay import CHUNK_BYTES, STREAMS, LayerLostError, LayerRelays
from kitd.errors import UnavailableError
from kitd.oci.descriptor import describe
from kitd.oci.media_type import OCTET_STREAM
from kitd.oci.reference import Repository
from kitd.packing.order import Built, PackedLayer, Streaming
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
        self.client = client
        self.relays = LayerRelays(client.repository, over_bytes=lambda: None)
        self.remote = remote
        self.memory = memory
        self.arrived = []

    async def attempt(self, work):
        """Do something with a relay, as a pack does."""
        async with self.relays.relaying(self.remote, self._arrive) as relay:
            await work(relay)

    async def _arrive(self, notice):
        self.arrived.append(notice)

    async def has(self, count):
        """Wait until the registry has acknowledged so many bytes."""
        async with asyncio.timeout(20):
            while True:
                session = await self.memory.recall(self.remote.repository, "layer:key")
                if session is not None and session.received == count:
                    return
                await asyncio.sleep(0.01)


@asynccontextmanager
async def bench_at(host, name="team/model"):
    memory = VolatileMemory()
    surroundings = Surroundings(environment={})
    async with RegistryClient(lambda _: RegistrySettings(), surroundings, memory) as client:
        remote = await client.repository(Repository(host, name))
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


def built(pipe, content=CONTENT):
    """Return what a worker says once it has sent a layer and the files are as they were."""
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    layer = PackedLayer(
        media_type=OCTET_STREAM,
        digest=digest,
        size=len(content),
        diff_id=digest,
        annotations={},
        reused=False,
        repository="anywhere",
    )
    return pipe, Built("key", layer, pipe)


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


async def test_a_layer_is_published_when_it_is_vouched_for_and_not_before(bench, store):
    async def work(relay):
        path = await write(store, relay)
        await bench.has(len(CONTENT))
        assert not await bench.remote.exists(TARGET)
        assert bench.arrived == []
        relay.finish(*built(path))

    await bench.attempt(work)
    assert await bench.remote.exists(TARGET)
    assert [notice.layer.digest for notice in bench.arrived] == [TARGET.digest]
    assert list(store.ingest_dir.iterdir()) == []


async def test_files_that_changed_leave_nothing_behind(bench, store, docker_registry):
    async def work(relay):
        await write(store, relay)
        raise InputChangedError("the file changed")

    with pytest.raises(InputChangedError):
        await bench.attempt(work)
    assert not await bench.remote.exists(TARGET)
    assert uploads_left(docker_registry) == []


async def test_a_layer_that_was_vouched_for_arrives_though_another_file_changed(
    bench, store, docker_registry
):
    """The next attempt finds it there, and need not read it."""

    async def work(relay):
        relay.finish(*built(await write(store, relay)))
        raise InputChangedError("another file changed")

    with pytest.raises(InputChangedError):
        await bench.attempt(work)
    assert await bench.remote.exists(TARGET)
    assert [notice.key for notice in bench.arrived] == ["key"]
    assert uploads_left(docker_registry) == []


async def test_what_a_failure_of_the_moment_leaves_is_gone_on_with(bench, store):
    """The next attempt drops what the registry has; the digest proves that it was the same."""

    async def be_killed(relay):
        await write(store, relay, CONTENT[:CHUNK_BYTES])
        await bench.has(CHUNK_BYTES)
        raise UnavailableError("the worker was killed")

    async def go_on(relay):
        relay.finish(*built(await write(store, relay)))

    with pytest.raises(UnavailableError):
        await bench.attempt(be_killed)
    upload = await bench.remote.begin_stream("layer:key", chunk_bytes=CHUNK_BYTES)
    assert upload.received == CHUNK_BYTES
    await bench.attempt(go_on)
    assert await bench.remote.exists(TARGET)


async def test_bytes_that_got_lost_are_not_published(bench, store):
    async def work(relay):
        relay.finish(*built(await write(store, relay, CONTENT[:-1])))

    with pytest.raises(LayerLostError):
        await bench.attempt(work)
    assert not await bench.remote.exists(TARGET)


async def test_a_digest_that_is_known_first_makes_it_one_request(bench, store):
    """Whose end waits for the worker's word."""

    async def work(relay):
        path = await write(store, relay, digest=TARGET.digest)
        assert not await bench.remote.exists(TARGET)
        relay.finish(*built(path))

    await bench.attempt(work)
    assert await bench.remote.exists(TARGET)


async def test_a_word_that_does_not_come_lets_nothing_be_published(bench, store):
    async def work(relay):
        await write(store, relay, digest=TARGET.digest)
        raise InputChangedError("the file changed")

    with pytest.raises(InputChangedError):
        await bench.attempt(work)
    assert not await bench.remote.exists(TARGET)


@pytest.mark.parametrize("lender", ["team/model", "team/other"])
async def test_what_the_registry_has_is_not_sent_again(store, fault_registry, lender):
    """In the same repository or in another one; the worker is heard to its end all the same."""

    async def work(relay):
        relay.finish(*built(await write(store, relay, digest=TARGET.digest)))

    async with bench_at(fault_registry.host, lender) as bench:
        await bench.attempt(work)
        model = Repository(fault_registry.host, "team/model")
        bench.remote = await bench.client.repository(model)
        await bench.attempt(work)
        assert await bench.remote.exists(TARGET)
    received = [blob["received_bytes"] for blob in fault_registry.tally()["blobs"]]
    assert sum(received) == len(CONTENT)


async def test_nobody_waits_for_a_registry_that_does_not_hear_of_an_upload_given_up(store):
    async def handle(request):
        if request.method == "DELETE":
            await asyncio.Event().wait()
        await request.read()
        opened = {"Location": "/v2/team/model/blobs/uploads/1"}
        return web.Response(status=202 if request.method == "POST" else 404, headers=opened)

    async def work(relay):
        await write(store, relay, digest=TARGET.digest)
        raise InputChangedError("the file changed")

    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{path:.*}", handle)
    async with (
        asyncio.timeout(10),
        TestServer(application, host="127.0.0.1") as server,
        bench_at(f"127.0.0.1:{server.port}") as bench,
    ):
        with pytest.raises(InputChangedError):
            await bench.attempt(work)


async def test_a_worker_waits_for_a_relay_that_has_no_turn_and_not_the_other_way_round(
    bench, store
):
    """While it is not read from, its silence says nothing about it."""

    async def be_patient(wanted, relay):
        async with asyncio.timeout(10):
            while relay.keeps_waiting() is not wanted:
                await asyncio.sleep(0.01)

    async def work(relay):
        with new_pipe(store) as path:
            relay.begin(Streaming(key="key", pipe=str(path), digest=None, size=None))
            await be_patient(wanted=True, relay=relay)
            bench.relays.turns.release()
            await be_patient(wanted=False, relay=relay)
            await asyncio.to_thread(fill, path, CONTENT)
        await bench.has(len(CONTENT))
        await be_patient(wanted=False, relay=relay)
        relay.finish(*built(str(path)))

    for _ in range(STREAMS):
        await bench.relays.turns.acquire()
    await bench.attempt(work)


async def test_a_registry_that_takes_nothing_ends_the_pack(store, docker_registry_with_login):
    """With its own error, and not with what the worker says of its pipe."""

    async def work(relay):
        with suppress(PipeClosedError):
            await write(store, relay)
        await asyncio.Event().wait()

    async with bench_at(docker_registry_with_login.host) as bench:
        with pytest.raises(RegistryDeniedError):
            await bench.attempt(work)
