"""Signatures travel with their kit: pulled into the catalogue, pushed before the kit has a name."""

import hashlib
import json
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from kitd.clock import SystemClock
from kitd.content.store import ContentNotFoundError
from kitd.gateway.naming import name_of
from kitd.gateway.server import Gateway
from kitd.jobs.pull import PULL, PullArgs
from kitd.jobs.push import PUSH, PushArgs
from kitd.ledger.catalog import Catalog
from kitd.ledger.database import Database
from kitd.oci.descriptor import describe
from kitd.oci.media_type import OCI_EMPTY, OCI_MANIFEST, OCTET_STREAM
from kitd.oci.reference import Repository
from kitd.registry.client import RegistryClient
from kitd.registry.errors import RegistryServerError
from kitd.registry.settings import RegistrySettings
from kitd.registry.transport import Surroundings
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent

SIGNATURE = "application/vnd.example.signature"


class Bench:
    """One kitd: its cache, its catalogue, and jobs that end as the executor ends them."""

    def __init__(self, make_ports, attempt, store, catalog, registries):
        self.make_ports = make_ports
        self.attempt = attempt
        self.store = store
        self.catalog = catalog
        self.registries = registries

    async def run(self, kind, args):
        cache = CacheContent(self.store)
        given = {"catalog": self.catalog, "remote": self.registries.repository}
        ports = self.make_ports(cache, keeps=lambda _size: True, **given)
        with self.attempt() as context:
            done = await kind.run(args, context, ports)
            await self.catalog.apply(done.effects)
        return done.result

    async def pull(self, repository, tag="latest"):
        return await self.run(PULL, PullArgs(reference=f"{repository}:{tag}"))

    async def push(self, source, target, digest, *tags):
        args = PushArgs(source=str(source), digest=digest, target=str(target), tags=tags)
        return await self.run(PUSH, args)


async def no_kit(_manifest):
    """Summarise manifests as those of anything but kits."""


@pytest.fixture
async def bench(tmp_path, make_ports, attempt):
    store = BlobStore(tmp_path / "cache")
    store.create()

    async def sleep(delay_s):
        """Wait for nothing between attempts."""

    surroundings = Surroundings(environment={}, sleep=sleep)
    async with (
        Database(tmp_path / "ledger.db") as database,
        RegistryClient(lambda _: RegistrySettings(), surroundings) as registries,
    ):
        catalog = Catalog(database, SystemClock(), no_kit)
        yield Bench(make_ports, attempt, store, catalog, registries)


class Shelf:
    """A registry in memory that keeps no lists of referrers and tells what it took, in order."""

    def __init__(self):
        self.contents = {}
        self.types = {}
        self.taken = []
        self.failing = set()
        self.refusing = set()
        self.lends = {}
        """What is in other repositories, by its digest."""

    async def handle(self, request):
        *_, kind, name = request.path.split("/")
        if request.method == "POST" and (lent := self.lends.get(request.query.get("mount"))):
            digest = request.query["mount"]
            self.contents[digest], self.types[digest] = lent, OCTET_STREAM
            return web.Response(status=201)
        if request.method == "POST":
            return web.Response(status=202, headers={"Location": f"{request.path}session"})
        if request.method == "PUT":
            return self.take(request, await request.read(), request.query.get("digest", name))
        content = None if kind == "referrers" else self.contents.get(name)
        if content is None:
            return web.Response(status=404)
        headers = {"Docker-Content-Digest": f"sha256:{hashlib.sha256(content).hexdigest()}"}
        return web.Response(body=content, content_type=self.types[name], headers=headers)

    def take(self, request, content, name):
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if digest in self.failing:
            return web.Response(status=503)
        if digest in self.refusing:
            return web.Response(status=400)
        for key in {name, digest}:
            self.contents[key] = content
            self.types[key] = request.content_type
        self.taken.append(name)
        return web.Response(status=201)


@asynccontextmanager
async def served(handler):
    """Serve a handler of all requests; gives `host:port`."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield "{}:{}".format(*runner.addresses[0])
    await runner.cleanup()


@pytest.fixture
async def shelf():
    shelf = Shelf()
    async with served(shelf.handle) as host:
        shelf.repository = Repository(host, "team/model")
        yield shelf


def manifest(mark, layer, subject=None):
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": SIGNATURE,
        "config": {"mediaType": OCI_EMPTY, "digest": describe(OCI_EMPTY, b"{}").digest, "size": 2},
        "layers": [
            {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size},
        ],
        "annotations": {"mark": mark},
    }
    if subject is not None:
        document["subject"] = {
            "mediaType": OCI_MANIFEST,
            "digest": subject.digest,
            "size": subject.size,
        }
    return json.dumps(document).encode()


@pytest.fixture
async def signed(docker_registry, tmp_path, bench):
    """A repository with a kit under `latest`, its signature, and that one's timestamp."""
    repository = Repository(docker_registry.host, "team/model")
    remote = await bench.registries.repository(repository)
    store = BlobStore(tmp_path / "elsewhere")
    store.create()
    cache = CacheContent(store)

    async def publish(mark, subject=None):
        layer = describe("application/vnd.example.layer", mark.encode())
        content = manifest(mark, layer, subject)
        target = describe(OCI_MANIFEST, content)
        for blob in (b"{}", mark.encode(), content):
            store.put(blob)
        for node in (describe(OCI_EMPTY, b"{}"), layer, target):
            await remote.push(node, cache)
        return target

    kit = await publish("kit")
    signature = await publish("signature", kit)
    timestamp = await publish("timestamp", signature)
    await remote.tag(kit, "latest")
    return repository, kit, signature, timestamp


async def test_a_pulled_kit_comes_with_its_signatures_and_the_own_registry_lists_them(
    bench, signed
):
    repository, kit, signature, timestamp = signed
    result = await bench.pull(repository)
    assert (result.digest, result.referrers, result.notes) == (kit.digest, 2, ())
    for node in (kit, signature, timestamp):
        assert bench.store.has(node)
        assert await bench.catalog.resolve(repository, node.digest) == node
    # What stands in for a list there is no content of the kit.
    assert await bench.catalog.tags(repository, after=None, limit=9) == ["latest"]

    async with (
        Gateway(bench.store, bench.catalog).listen("127.0.0.1", 0) as (host, port),
        aiohttp.ClientSession(f"http://{host}:{port}") as client,
    ):
        for subject, referrer in ((kit, signature), (signature, timestamp)):
            async with client.get(f"/v2/{name_of(repository)}/referrers/{subject.digest}") as got:
                (listed,) = (await got.json(content_type=None))["manifests"]
            assert listed["digest"] == referrer.digest
            assert listed["artifactType"] == SIGNATURE

    again = await bench.pull(repository)
    assert (again.referrers, again.bytes.received) == (2, 0)


async def test_a_pushed_kit_is_signed_once_it_has_a_name(bench, signed, shelf):
    repository, kit, signature, timestamp = signed
    await bench.pull(repository)
    result = await bench.push(repository, shelf.repository, kit.digest, "latest", "v1")
    assert result.referrers == 2
    assert result.bytes.sent == sum(file.size for file in bench.store.blobs())
    places = [shelf.taken.index(node.digest) for node in (kit, signature, timestamp)]
    assert places == sorted(places)
    assert shelf.taken[-2:] == ["latest", "v1"]
    remote = await bench.registries.repository(shelf.repository)
    assert [each.digest for each in await remote.referrers(kit.digest)] == [signature.digest]
    assert [each.digest for each in await remote.referrers(signature.digest)] == [timestamp.digest]


async def test_what_was_mounted_for_a_refused_signature_is_not_taken_from_what_was_there(
    bench, signed, shelf
):
    repository, kit, signature, _ = signed
    await bench.pull(repository)
    layer = describe("application/vnd.example.layer", b"signature")
    shelf.lends[layer.digest] = b"signature"
    shelf.refusing.add(signature.digest)
    first = await bench.push(repository, shelf.repository, kit.digest)
    assert first.referrers == 0
    assert (first.bytes.mounted, first.bytes.skipped) == (layer.size, 0)
    del shelf.contents[layer.digest]
    again = await bench.push(repository, shelf.repository, kit.digest)
    assert (again.bytes.mounted, again.bytes.sent) == (layer.size, 0)
    assert again.bytes.skipped == first.bytes.sent


async def test_a_kit_gets_no_name_as_long_as_its_signature_does_not_arrive(bench, signed, shelf):
    repository, kit, signature, _ = signed
    await bench.pull(repository)
    shelf.failing.add(signature.digest)
    with pytest.raises(RegistryServerError):
        await bench.push(repository, shelf.repository, kit.digest, "latest")
    assert kit.digest in shelf.taken
    assert "latest" not in shelf.taken
    shelf.failing.clear()
    await bench.push(repository, shelf.repository, kit.digest, "latest")
    assert shelf.taken[-1] == "latest"


async def test_a_signature_that_is_gone_is_noted_and_the_kit_pulled(bench, signed, docker_registry):
    repository, kit, signature, _ = signed
    url = f"http://{docker_registry.host}/v2/{repository.name}/manifests/{signature.digest}"
    async with aiohttp.ClientSession() as client, client.delete(url) as deleted:
        assert deleted.status == 202
    result = await bench.pull(repository)
    assert result.referrers == 0
    assert "not every referrer was copied" in result.notes[0]
    assert await bench.catalog.resolve(repository, "latest") == kit
    with pytest.raises(ContentNotFoundError):
        await bench.catalog.resolve(repository, signature.digest)
