"""Layers that travel ahead of their push: a real registry, behind a proxy that sees and holds."""

import asyncio
import json
import os
from dataclasses import dataclass, field

import pytest
from aiohttp import ClientSession, web
from yarl import URL

from kitd.jobs.ahead import uploads_ahead
from kitd.jobs.push import PUSH, PushArgs
from kitd.jobs.transfer import Bytes
from kitd.oci.descriptor import describe
from kitd.oci.media_type import OCI_MANIFEST
from kitd.oci.reference import Repository
from kitd.registry.client import RegistryClient
from kitd.registry.errors import RegistryDeniedError, RegistryUnreachableError
from kitd.registry.settings import RegistrySettings
from kitd.registry.transport import Surroundings
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent

LAYER = "application/vnd.kitops.modelkit.model.v1.tar"
CONFIG = "application/vnd.kitops.modelkit.config.v1+json"
DEADLINE_S = 15


class PackFailedError(Exception):
    """Ends a head start as a pack does that fails."""


async def failing_pack(ahead, repository, layers, *, after, error=PackFailedError):
    """Begin layers and raise once a condition holds."""
    with ahead.head_start(repository) as begin:
        for layer in layers:
            begin(layer)
        await until(after)
        raise error


async def until(condition):
    """Poll for a condition in memory, with a deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.002)


@dataclass
class Proxy:
    """Passes requests on to a registry; holds or refuses the blobs that a test names."""

    upstream: str
    session: ClientSession
    host: str = ""
    held: dict[str, asyncio.Event] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    """Digests that were looked for."""
    arrived: list[str] = field(default_factory=list)
    """Digests whose upload began."""
    stored: list[str] = field(default_factory=list)
    """Digests that the registry took."""
    mounted: list[str] = field(default_factory=list)
    """Digests that the registry took from another repository."""
    broken: list[str] = field(default_factory=list)
    """Digests whose sender went away before the answer."""

    def hold(self, *blobs):
        """Keep uploads of these from going on until the returned event is set."""
        gate = asyncio.Event()
        self.held.update((blob.digest, gate) for blob in blobs)
        return gate

    async def handle(self, request):
        digest = request.query.get("digest", request.path.rpartition("/")[2])
        if digest in self.refused:
            return web.Response(status=403)
        if request.method == "HEAD":
            self.asked.append(digest)
        upload = request.method == "PUT" and "/blobs/" in request.path
        if upload:
            self.arrived.append(digest)
        try:
            # Taken first: a server that does not read does not see that the sender is gone.
            body = await request.read()
            if upload and digest in self.held:
                await self.held[digest].wait()
            return await self.forward(request, body, digest if upload else None)
        except asyncio.CancelledError:
            self.broken.append(digest)
            raise

    async def forward(self, request, body, uploaded):
        url = URL(f"http://{self.upstream}{request.raw_path}", encoded=True)
        # With the same Host header, so that the registry refers to the proxy.
        sent = self.session.request(
            request.method, url, headers=request.headers, data=body, allow_redirects=False
        )
        async with sent as answer:
            response = web.Response(
                status=answer.status, headers=answer.headers, body=await answer.read()
            )
        if uploaded and answer.status == 201:
            self.stored.append(uploaded)
        if "from" in request.query and answer.status == 201:
            self.mounted.append(request.query["mount"])
        return response


@pytest.fixture
async def proxy(docker_registry):
    async with ClientSession(auto_decompress=False) as session:
        proxy = Proxy(docker_registry.host, session)
        application = web.Application(client_max_size=1 << 20)
        application.router.add_route("*", "/{path:.*}", proxy.handle)
        # A sender that goes away ends its request here, too.
        runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        proxy.host = f"{host}:{port}"
        yield proxy
        await runner.cleanup()


@dataclass
class Bench:
    """A cache with one kit, uploads ahead of its push, and the push."""

    make_ports: object
    attempt: object
    store: BlobStore
    cache: CacheContent
    registries: RegistryClient
    root: object = None

    def blob(self, size=100_000, media_type=LAYER):
        content = os.urandom(size)
        self.store.put(content)
        return describe(media_type, content)

    def kit(self, *layers):
        """Make the kit that is pushed; return its config."""
        config = self.blob(20, CONFIG)
        described = [
            {"mediaType": each.media_type, "digest": each.digest, "size": each.size}
            for each in (config, *layers)
        ]
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described[0]}
        content = json.dumps({**document, "layers": described[1:]}).encode()
        self.store.put(content)
        self.root = describe(OCI_MANIFEST, content)
        return config

    async def resolve(self, repository, identifier):
        """Stand in for the catalog: the one kit has every name."""
        return self.root

    async def manifest(self, digest):
        """Stand in for the catalog."""
        return self.root

    async def referrers(self, repository, subject):
        """Nothing refers to the kit."""
        return ()

    def ahead(self, **options):
        return uploads_ahead(self.cache, self.registries.repository, **options)

    async def push(self, ahead, repository):
        """Push the kit and return the result."""
        ports = self.make_ports(
            self.cache, catalog=self, remote=ahead.repository, head_start=ahead.head_start
        )
        args = PushArgs(
            source=str(repository),
            digest=self.root.digest,
            target=str(repository),
            tags=("latest",),
        )
        with self.attempt() as context:
            return (await PUSH.run(args, context, ports)).result


@pytest.fixture
async def bench(tmp_path, make_ports, attempt):
    store = BlobStore(tmp_path / "cache")
    store.create()

    async def sleep(delay_s):
        """Wait for nothing between attempts."""

    surroundings = Surroundings(environment={}, sleep=sleep)
    async with RegistryClient(lambda _: RegistrySettings(), surroundings) as registries:
        yield Bench(make_ports, attempt, store, CacheContent(store), registries)


@pytest.fixture
def repository(proxy):
    return Repository(proxy.host, "team/model")


async def test_layers_arrive_while_the_pack_still_runs_and_the_push_counts_them(
    bench, proxy, repository
):
    layers = [bench.blob(), bench.blob()]
    async with bench.ahead() as ahead:
        with ahead.head_start(repository) as begin:
            for layer in layers:
                begin(layer)
            await until(lambda: len(proxy.stored) == 2)
            config = bench.kit(*layers)
        result = await bench.push(ahead, repository)
    assert sorted(proxy.arrived) == sorted(blob.digest for blob in (*layers, config))
    assert result.bytes.sent == sum(b.size for b in (*layers, config, bench.root))
    assert result.bytes.skipped == 0


async def test_what_a_sibling_lends_is_counted_apart_ahead_or_not(bench, proxy, repository):
    layers = [bench.blob(), bench.blob()]
    config = bench.kit(*layers)
    sibling = Repository(repository.registry, "team/sibling")
    async with bench.ahead() as ahead:
        first = await bench.push(ahead, repository)
        with ahead.head_start(sibling) as begin:
            begin(layers[0])
            await until(lambda: layers[0].digest in proxy.mounted)
        second = await bench.push(ahead, sibling)
        again = await bench.push(ahead, sibling)
    blobs = sum(blob.size for blob in (*layers, config))
    assert first.bytes == Bytes(sent=blobs + bench.root.size)
    assert second.bytes == Bytes(sent=bench.root.size, mounted=blobs)
    assert again.bytes == Bytes(skipped=blobs + bench.root.size)


async def test_what_was_sent_ahead_counts_for_one_push_only(bench, proxy, repository):
    layer = bench.blob()
    bench.kit(layer)
    async with bench.ahead() as ahead:
        with ahead.head_start(repository) as begin:
            begin(layer)
            await until(lambda: proxy.stored)
        await bench.push(ahead, repository)
        again = await bench.push(ahead, repository)
    assert again.bytes.sent == 0


async def test_a_push_joins_an_upload_under_way_and_sends_nothing_twice(bench, proxy, repository):
    layer = bench.blob()
    config = bench.kit(layer)
    gate = proxy.hold(layer)
    async with bench.ahead() as ahead, asyncio.TaskGroup() as group:
        with ahead.head_start(repository) as begin:
            begin(layer)
            await until(lambda: proxy.arrived)
        push = group.create_task(bench.push(ahead, repository))
        # The blobs of a kit set out together: where the config is, the layer has been come for.
        await until(lambda: config.digest in proxy.stored)
        assert not push.done()
        gate.set()
        result = await push
    assert proxy.arrived.count(layer.digest) == 1
    assert result.bytes.sent == layer.size + config.size + bench.root.size


async def test_a_push_sends_itself_what_waits_for_its_turn(bench, proxy, repository):
    large, small = bench.blob(), bench.blob()
    proxy.hold(large)
    async with bench.ahead(transfers=1) as ahead:
        with ahead.head_start(repository) as begin:
            begin(large)
            begin(small)
            await until(lambda: proxy.arrived)
        bench.kit(small)
        await bench.push(ahead, repository)
    assert proxy.arrived.count(small.digest) == 1
    assert proxy.stored.count(large.digest) == 0


async def test_what_the_registry_lost_since_is_sent_again(bench, proxy, repository):
    layer = bench.blob()
    bench.kit(layer)
    async with bench.ahead() as ahead:
        with ahead.head_start(repository) as begin:
            begin(layer)
            await until(lambda: proxy.stored)
        blob = f"http://{proxy.upstream}/v2/{repository.name}/blobs/{layer.digest}"
        async with proxy.session.delete(blob) as response:
            assert response.status == 202
        result = await bench.push(ahead, repository)
    assert proxy.stored.count(layer.digest) == 2
    assert result.bytes.skipped == 0


async def test_a_registry_that_is_down_is_the_push_s_to_report(bench, free_address):
    repository = Repository(free_address, "team/model")
    layer = bench.blob()
    bench.kit(layer)
    async with bench.ahead() as ahead:
        with ahead.head_start(repository) as begin:
            begin(layer)
        with pytest.raises(RegistryUnreachableError):
            await bench.push(ahead, repository)


async def test_after_a_first_failure_a_pack_begins_no_more(bench, proxy, repository):
    refused, waiting, later = bench.blob(), bench.blob(), bench.blob()
    proxy.refused.add(refused.digest)
    bench.kit(refused, waiting, later)
    async with bench.ahead(transfers=1) as ahead:
        with ahead.head_start(repository) as begin:
            begin(refused)
            begin(waiting)
            with pytest.raises(RegistryDeniedError):
                await (await ahead.repository(repository)).push(refused, bench.cache)
            begin(later)
        with ahead.head_start(repository) as begin:
            fresh = bench.blob()
            begin(fresh)
            await until(lambda: fresh.digest in proxy.stored)
    assert {waiting.digest, later.digest}.isdisjoint(proxy.asked)


@pytest.mark.parametrize("error", [PackFailedError, asyncio.CancelledError])
async def test_a_pack_that_ends_badly_takes_its_uploads_with_it(bench, proxy, repository, error):
    under_way, waiting = bench.blob(), bench.blob()
    config = bench.kit(under_way, waiting)
    gate = proxy.hold(under_way)
    async with bench.ahead(transfers=1) as ahead:
        layers = [under_way, waiting]
        with pytest.raises(error):
            await failing_pack(ahead, repository, layers, after=lambda: proxy.arrived, error=error)
        await until(lambda: under_way.digest in proxy.broken)
        assert proxy.asked == [under_way.digest]
        gate.set()
        result = await bench.push(ahead, repository)
    assert result.bytes.sent == sum(b.size for b in (under_way, waiting, config, bench.root))


@pytest.mark.parametrize("first", ["the one that fails", "the other"])
async def test_two_packs_share_an_upload_and_either_keeps_it_going(bench, proxy, repository, first):
    layer = bench.blob()
    gate = proxy.hold(layer)
    async with bench.ahead() as ahead:
        with ahead.head_start(repository) as begin:

            def both_began():
                begin(layer)
                return proxy.arrived

            if first == "the other":
                begin(layer)
            with pytest.raises(PackFailedError):
                await failing_pack(ahead, repository, [layer], after=both_began)
            gate.set()
            await until(lambda: proxy.stored)
    assert (proxy.arrived, proxy.broken) == ([layer.digest], [])


async def test_a_cancelled_push_ends_the_upload_that_only_it_waits_for(bench, proxy, repository):
    layer = bench.blob()
    config = bench.kit(layer)
    proxy.hold(layer)
    async with bench.ahead() as ahead:
        with ahead.head_start(repository) as begin:
            begin(layer)
            await until(lambda: proxy.arrived)
        push = asyncio.create_task(bench.push(ahead, repository))
        await until(lambda: config.digest in proxy.stored)
        push.cancel()
        await asyncio.wait([push])
        await until(lambda: layer.digest in proxy.broken)
    assert push.cancelled()


async def test_a_cancelled_push_leaves_the_upload_to_the_pack_that_runs(bench, proxy, repository):
    layer = bench.blob()
    config = bench.kit(layer)
    gate = proxy.hold(layer)
    async with bench.ahead() as ahead:
        with ahead.head_start(repository) as begin:
            begin(layer)
            await until(lambda: proxy.arrived)
            push = asyncio.create_task(bench.push(ahead, repository))
            await until(lambda: config.digest in proxy.stored)
            push.cancel()
            await asyncio.wait([push])
            gate.set()
            await until(lambda: layer.digest in proxy.stored)
    assert proxy.arrived.count(layer.digest) == 1


async def test_the_end_of_kitd_ends_what_is_under_way_and_what_waits(bench, proxy, repository):
    under_way, waiting = bench.blob(), bench.blob()
    proxy.hold(under_way)
    async with asyncio.timeout(DEADLINE_S):
        async with bench.ahead(transfers=1) as ahead:
            with ahead.head_start(repository) as begin:
                begin(under_way)
                begin(waiting)
                await until(lambda: proxy.arrived)
    await until(lambda: under_way.digest in proxy.broken)
    assert proxy.asked == [under_way.digest]
