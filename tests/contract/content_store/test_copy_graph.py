"""Copying a graph into every content store."""

import asyncio
import json
import time
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kitd.content.copy import (
    MAX_DEPTH,
    MAX_NODES,
    SMALL_BYTES,
    SMALL_FOR_LARGE,
    copy_graph,
    walk,
)
from kitd.content.store import ContentError, ContentNotFoundError
from kitd.content.verify import read
from kitd.errors import KitdError
from kitd.oci.manifest import parse_manifest
from kitd.oci.media_type import OCI_EMPTY, OCI_INDEX, OCI_MANIFEST
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent

LAYER = "application/vnd.example.layer"
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"


def plain(target):
    return {"mediaType": target.media_type, "digest": target.digest, "size": target.size}


def add_manifest(source, layers):
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": plain(source.add(b"{}", OCI_EMPTY)),
        "layers": [plain(layer) for layer in layers],
    }
    return source.add(json.dumps(document).encode(), OCI_MANIFEST)


def add_index(source, manifests):
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [plain(manifest) for manifest in manifests],
    }
    return source.add(json.dumps(document).encode(), OCI_INDEX)


def ignore(_done, _total):
    """Nobody watches the progress."""


async def copy(source, target, root, *, concurrency=4, progress=ignore):
    return await copy_graph(source, target, root, concurrency=concurrency, progress=progress)


async def test_an_index_of_indexes_arrives_with_everything_below_it(store, source):
    shared, own = source.add(bytes(100_000), LAYER), source.add(b"own", LAYER)
    one, two = add_manifest(source, [shared]), add_manifest(source, [shared, own, own])
    inner = add_index(source, [one, two])
    root = add_index(source, [inner, one])
    progress = []

    report = await copy(source, store, root, progress=lambda *step: progress.append(step))

    nodes = await walk(source, root)
    total = sum(node.size for node in nodes)
    assert report.sent_bytes == total
    assert report.skipped_bytes == 0
    assert all([await store.exists(node) for node in nodes])
    assert await read(store, root, max_bytes=1 << 20) == source.contents[root.digest]
    assert progress[-1] == (total, total)
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)

    again = await copy(source, store, root)
    assert (again.sent_bytes, again.skipped_bytes) == (0, total)


async def test_what_a_second_kit_shares_is_not_sent_again(store, source):
    dataset = source.add(bytes(50_000), LAYER)
    first = add_manifest(source, [dataset, source.add(b"v1", LAYER)])
    second = add_manifest(source, [dataset, source.add(b"v2", LAYER)])
    await copy(source, store, first)
    report = await copy(source, store, second)
    assert report.sent_bytes == second.size + 2
    assert source.fetched.count(dataset.digest) == 1


async def test_a_copy_that_fails_leaves_no_manifest_without_its_children(store, source):
    good = add_manifest(source, [source.add(b"good", LAYER)])
    missing = source.add(b"missing", LAYER)
    bad = add_manifest(source, [missing])
    root = add_index(source, [good, bad])
    del source.contents[missing.digest]
    with pytest.raises(ContentNotFoundError):
        await copy(source, store, root)
    assert not await store.exists(bad)
    assert not await store.exists(root)


@st.composite
def graphs(draw):
    """Return a recipe: layers, manifests as lists of layers, and levels of indexes over them."""
    layers = draw(st.lists(st.binary(max_size=40), max_size=6))
    numbers = st.lists(st.integers(0, 5), max_size=5)
    manifests = draw(st.lists(numbers, min_size=1, max_size=4))
    levels = draw(st.lists(st.lists(numbers, min_size=1, max_size=3), max_size=4))
    return layers, manifests, levels


def build(source, recipe):
    layers, manifests, levels = recipe
    blobs = [source.add(content, LAYER) for content in layers]

    def pick(pool, numbers):
        return [pool[number % len(pool)] for number in numbers] if pool else []

    pool = [add_manifest(source, pick(blobs, numbers)) for numbers in manifests]
    for level in levels:
        pool = pool + [add_index(source, pick(pool, numbers)) for numbers in level]
    return add_index(source, pool)


@given(recipe=graphs(), concurrency=st.integers(1, 5), kept=st.integers(0, 20))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_any_graph_arrives_whole_children_first(
    tmp_path_factory, source, recipe, concurrency, kept
):
    root = build(source, recipe)
    nodes = await walk(source, root)
    assert nodes[-1] == root
    assert len({node.digest for node in nodes}) == len(nodes)
    places = {node.digest: place for place, node in enumerate(nodes)}
    for node in nodes:
        document = json.loads(source.contents[node.digest]) if "json" in node.media_type else {}
        for child in document.get("layers", []) + document.get("manifests", []):
            assert places[child["digest"]] < places[node.digest]

    store = BlobStore(tmp_path_factory.mktemp("cache"))
    store.create()
    present = nodes[:kept]
    for node in present:
        store.put(source.contents[node.digest])
    report = await copy(source, CacheContent(store).hold(), root, concurrency=concurrency)
    assert all(store.has(node) for node in nodes)
    assert report.skipped_bytes == sum(node.size for node in present)
    assert report.sent_bytes == sum(node.size for node in nodes[kept:])


def nest(source, depth):
    root = add_manifest(source, [])
    for _ in range(depth):
        root = add_index(source, [root])
    return root


async def test_a_graph_has_a_bounded_depth(source):
    # The manifest's config is one level more.
    assert len(await walk(source, nest(source, MAX_DEPTH - 1))) == MAX_DEPTH + 1
    with pytest.raises(ContentError, match="too deep or too large"):
        await walk(source, nest(source, MAX_DEPTH))


async def test_a_graph_has_a_bounded_number_of_nodes(source):
    """Manifests of tiny layers that nobody has: only manifests are read."""
    layers = 19_999
    manifests = []
    for number in range(MAX_NODES // layers + 1):
        described = ",".join(
            f'{{"mediaType":"x","digest":"sha256:{number:032}{layer:032}","size":0}}'
            for layer in range(layers)
        )
        content = f'{{"schemaVersion":2,"config":{json.dumps(plain(source.add(b"{}", OCI_EMPTY)))},'
        content += f'"layers":[{described}]}}'
        manifests.append(source.add(content.encode(), OCI_MANIFEST))
    root = add_index(source, manifests)
    with pytest.raises(ContentError, match="too deep or too large"):
        await walk(source, root)


async def longest_pause_s(task):
    """Return for how long the loop did not come round while a task ran."""
    loop = asyncio.get_running_loop()
    longest_s, last_s = 0.0, loop.time()
    while not task.done():
        await asyncio.sleep(0)
        longest_s, last_s = max(longest_s, loop.time() - last_s), loop.time()
    return longest_s


async def test_the_loop_goes_on_while_a_large_manifest_is_parsed(source):
    root = add_manifest(source, [source.add(bytes([number]), LAYER) for number in range(256)] * 60)
    began_s = time.perf_counter()
    parse_manifest(source.contents[root.digest])
    parsing_s = time.perf_counter() - began_s
    # The machine may keep the loop waiting now and then; parsing on the loop always would.
    pauses_s = []
    for _ in range(8):
        walking = asyncio.create_task(walk(source, root))
        pauses_s.append(await longest_pause_s(walking))
        assert len(walking.result()) == 256 + 2
        if pauses_s[-1] < parsing_s / 2:
            break
    assert min(pauses_s) < parsing_s / 2


async def test_a_manifest_that_is_not_one_is_refused(source, tmp_path):
    broken = source.add(b"<html>", OCI_MANIFEST)
    with pytest.raises(KitdError) as caught:
        await walk(source, add_index(source, [broken]))
    assert caught.value.code == "invalid_manifest"


async def test_a_manifest_that_is_named_as_a_layer_first_is_still_followed(source):
    """Otherwise a copy would publish it without its children."""
    inner_layer = source.add(b"inner", LAYER)
    inner = add_manifest(source, [inner_layer])
    disguised = add_manifest(source, [source.add(source.contents[inner.digest], LAYER)])
    assert inner_layer in await walk(source, add_index(source, [disguised, inner]))


async def test_layers_that_may_not_be_distributed_are_left_where_they_are(store, source):
    foreign = source.add(b"licensed", FOREIGN)
    root = add_manifest(source, [foreign, source.add(b"free", LAYER)])
    assert foreign not in await walk(source, root)


class Gate:
    """A target that holds every blob back until `open`, and notes how many wait."""

    def __init__(self, full=3):
        self.open = asyncio.Event()
        self.fills_at = full
        self.inside = 0
        self.most = 0
        self.full = asyncio.Event()
        self.cancelled = 0
        self.pushed = []

    async def exists(self, target):
        return target.digest in self.pushed

    @asynccontextmanager
    async def fetch(self, target, *, offset=0):
        raise ContentNotFoundError(target.digest)
        yield

    async def push(self, target, source):
        self.inside += 1
        self.most = max(self.most, self.inside)
        if self.inside == self.fills_at:
            self.full.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.inside -= 1
        self.pushed.append(target.digest)
        return target.size


@pytest.mark.parametrize(("least_bytes", "limit"), [(SMALL_BYTES + 1, 3), (1, 3 * SMALL_FOR_LARGE)])
async def test_blobs_travel_side_by_side_up_to_the_limit(source, least_bytes, limit):
    layers = [source.add(bytes([n]) * (n + least_bytes), LAYER) for n in range(20)]
    root = add_manifest(source, layers)
    gate = Gate(full=limit)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        copied = group.create_task(copy(source, gate, root, concurrency=3))
        await gate.full.wait()
        gate.open.set()
    assert gate.most == limit + (least_bytes > 1)  # The config is small.
    assert gate.pushed[-1] == root.digest
    assert copied.result().sent_bytes == sum(node.size for node in await walk(source, root))


class RefusingGate(Gate):
    """Refuses one blob once two others are on their way."""

    def __init__(self, refused):
        super().__init__()
        self.refused = refused

    async def push(self, target, source):
        if target.digest != self.refused.digest:
            return await super().push(target, source)
        while self.inside < 2:
            await asyncio.sleep(0)
        raise ContentError("refused")


async def test_the_first_error_stops_the_others_and_is_raised_by_itself(source):
    refused, *others = [source.add(bytes([n]), LAYER) for n in range(3)]
    root = add_manifest(source, [*others, refused])
    gate = RefusingGate(refused)
    async with asyncio.timeout(20):
        with pytest.raises(ContentError, match=r"^refused$"):
            await copy(source, gate, root, concurrency=10)
    assert gate.inside == 0
    assert gate.cancelled >= 2
    assert gate.pushed == []


async def test_a_cancelled_copy_leaves_no_push_behind(source):
    root = add_manifest(source, [source.add(bytes([n]), LAYER) for n in range(5)])
    gate = Gate()
    async with asyncio.timeout(20):
        copying = asyncio.create_task(copy(source, gate, root, concurrency=3))
        await gate.full.wait()
        copying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await copying
    assert gate.inside == 0
