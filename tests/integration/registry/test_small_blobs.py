"""Small blobs: one request tells whether one is there and opens its upload, where that is sure."""

import asyncio
import json
import os
from collections import Counter
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from fault_registry.quirks import Quirks
from fault_registry.server import FaultRegistry
from kitd.content.copy import SMALL_BYTES
from kitd.oci.digest import digest_of
from kitd.oci.reference import Repository
from kitd.registry.governor import FIRST_LIMIT
from kitd.registry.presence import KNOWN_S
from kitd.registry.settings import RegistrySettings, UploadMode

SIZE = 8192


@pytest.fixture
async def start(tmp_path):
    """Start fault registries with quirks."""
    async with AsyncExitStack() as stack:

        async def begin(**quirks):
            registry = FaultRegistry(tmp_path / "peer", Quirks(**quirks))
            return await stack.enter_async_context(registry)

        yield begin


def blobs(cache, count, size=SIZE):
    return [cache.put(os.urandom(size)) for _ in range(count)]


async def push_all(remote, targets, cache):
    return [await remote.push(target, cache) for target in targets]


def asked(peer):
    """Return the requests since the last time, as `HEAD POST PUT`."""
    methods = " ".join(request.method for request in peer.tally.requests)
    peer.reset()
    return methods


async def test_two_requests_a_blob_once_it_is_known_that_this_works(start, connect, cache):
    peer = await start()
    remote = await connect(peer.host)
    first, second, third = blobs(cache, 3)
    await remote.push(first, cache)
    assert asked(peer) == "HEAD POST PUT"
    await remote.push(second, cache)
    assert asked(peer) == "POST POST PUT", "the blob before was mounted first, to see"
    await remote.push(third, cache)
    assert asked(peer) == "POST PUT"
    held = peer.storage.repository("team/model").blobs
    assert held == {first.digest, second.digest, third.digest}
    assert peer.storage.uploads == {}


async def test_debian_s_registry_gets_two_requests_a_blob(docker_registry, connect, cache):
    remote = await connect(docker_registry.host)
    targets = blobs(cache, 20)
    assert await push_all(remote, targets, cache) == [SIZE] * 20
    for target in targets:
        assert await remote.exists(target)

    def counted():
        lines = (docker_registry.root.parent / "log").read_text().splitlines()
        said = [json.loads(line) for line in lines]
        return Counter(
            line["http.request.method"]
            for line in said
            if line["msg"].startswith("response completed")
        )

    async with asyncio.timeout(10):
        # It answers first and logs then.
        while counted()["HEAD"] < 1 + len(targets):
            await asyncio.sleep(0.01)
    assert counted() == {"HEAD": 1 + len(targets), "POST": 1 + len(targets), "PUT": len(targets)}


@pytest.mark.parametrize("mount", ["never", "refused"])
async def test_nothing_is_sent_twice_where_mounts_tell_nothing(start, connect, cache, mount):
    peer = await start(mount=mount)
    targets = blobs(cache, 6)
    remote = await connect(peer.host)
    assert await push_all(remote, targets, cache) == [SIZE] * 6
    assert peer.storage.uploads == {}, "what was opened for a try was left open"
    assert peer.tally.kinds()["blob.head"] == 6
    again = await connect(peer.host)
    assert await push_all(again, targets, cache) == [0] * 6
    assert await push_all(remote, [*targets, *blobs(cache, 1)], cache) == [0] * 6 + [SIZE]
    assert peer.tally.received_bytes() == 7 * SIZE


async def test_a_registry_is_tried_once_by_all_who_push_to_it(start, connect, cache):
    peer = await start(mount="never")
    client = await connect.client(RegistrySettings())
    for name in ("team/one", "team/two"):
        remote = await client.repository(Repository(peer.host, name))
        await push_all(remote, blobs(cache, 3), cache)
    assert peer.tally.kinds()["upload.cancel"] == 1
    connect.late_s += KNOWN_S + 1
    peer.tell(Quirks())
    asked(peer)
    await push_all(remote, blobs(cache, 2), cache)
    assert asked(peer) == "POST POST PUT POST PUT", "what was learned holds for ever"


async def test_what_is_there_is_asked_for_with_head(start, connect, cache):
    """It is the cheaper request for it; and no upload is begun for nothing."""
    peer = await start()
    targets = blobs(cache, 5)
    await push_all(await connect(peer.host), targets, cache)
    remote = await connect(peer.host)
    asked(peer)
    assert await push_all(remote, targets, cache) == [0] * 5
    assert asked(peer) == "HEAD HEAD HEAD HEAD HEAD"
    new, newer = blobs(cache, 2)
    assert await push_all(remote, [new, newer, targets[0], targets[1]], cache) == [SIZE, SIZE, 0, 0]
    # One that is there among new ones is mounted; a mount is not believed, and then there is HEAD.
    assert asked(peer) == "HEAD POST PUT POST POST PUT POST HEAD HEAD"
    assert remote.mounted_bytes == 0


async def test_large_blobs_and_those_in_chunks_are_asked_for_with_head(start, connect, cache):
    peer = await start()
    remote = await connect(peer.host)
    await push_all(remote, blobs(cache, 2), cache)
    asked(peer)
    await push_all(remote, blobs(cache, 1, SMALL_BYTES + 1), cache)
    assert asked(peer) == "HEAD POST PUT"
    chunks = RegistrySettings(upload_mode=UploadMode.CHUNKED, chunk_bytes=SIZE)
    remote = await connect(peer.host, settings=chunks)
    await push_all(remote, blobs(cache, 2), cache)
    assert asked(peer) == "HEAD POST PATCH PUT HEAD POST PATCH PUT"


async def test_a_blob_that_somebody_has_is_mounted_from_there(start, connect, cache):
    peer = await start()
    client = await connect.client(RegistrySettings())
    base, tune = [
        await client.repository(Repository(peer.host, f"team/{name}")) for name in ("base", "tune")
    ]
    shared = blobs(cache, 3)
    await push_all(base, shared, cache)
    await push_all(tune, blobs(cache, 2), cache)
    assert await push_all(tune, shared, cache) == [0] * 3
    assert tune.mounted_bytes == 3 * SIZE
    assert peer.tally.received_bytes() == 5 * SIZE


async def test_many_that_push_the_same_at_once_send_it_once(start, connect, cache):
    peer = await start(delay_s=0.01)
    client = await connect.client(RegistrySettings())
    remotes = [await client.repository(Repository(peer.host, "team/model")) for _ in range(5)]
    for remote in remotes:
        await push_all(remote, blobs(cache, 2), cache)
    before = peer.tally.received_bytes()
    target = cache.put(os.urandom(SIZE))
    async with asyncio.TaskGroup() as group:
        moved = [group.create_task(remote.push(target, cache)) for remote in remotes]
    assert sum(push.result() for push in moved) == SIZE
    assert peer.tally.blob("team/model", target.digest).uploads == 1
    assert peer.tally.received_bytes() - before == SIZE
    assert peer.storage.uploads == {}


@pytest.mark.parametrize("answer", [201, 404, 405, 400, 403])
async def test_a_mount_is_not_what_decides_whether_a_blob_is_sent(serve, connect, cache, answer):
    """Some say that all is there, others that this is no way to ask, of what is not there."""
    held, mounts = {}, []

    async def handle(request):
        digest = request.path.rpartition("/")[2]
        match request.method:
            case "HEAD":
                return web.Response(status=200 if digest in held else 404)
            case "POST" if request.query.get("from"):
                mounts.append(request.query["mount"])
                known = request.query["mount"] in held
                return web.Response(status=201 if known else answer)
            case "POST":
                return web.Response(status=202, headers={"Location": "/upload"})
            case "PUT":
                content = await request.read()
                held[digest_of(content)] = len(content)
                return web.Response(status=201)
        raise AssertionError(f"nobody asks for {request.method} {request.path}")

    remote = await connect(await serve(handle))
    targets = blobs(cache, 5)
    assert await push_all(remote, targets, cache) == [SIZE] * 5
    assert held == {target.digest: SIZE for target in targets}
    # Whoever says no is not asked again.
    assert len(mounts) == (5 if answer == 201 else 2)


async def test_a_try_that_comes_to_nothing_harms_nobody(serve, connect, cache):
    """What cannot be cancelled is left behind once, and not once for each blob."""
    posts = []

    async def handle(request):
        match request.method:
            case "HEAD":
                return web.Response(status=404)
            case "POST":
                posts.append(request.query.get("from"))
                status = 500 if request.query.get("from") else 202
                return web.Response(status=status, headers={"Location": "/upload"})
            case "PUT":
                await request.read()
                return web.Response(status=201)
        return web.Response(status=405)

    remote = await connect(await serve(handle))
    assert await push_all(remote, blobs(cache, 4), cache) == [SIZE] * 4
    assert posts.count(None) == 4
    tries = [position for position, lender in enumerate(posts) if lender]
    assert tries == list(range(1, 1 + len(tries))), "it was tried again for a later blob"


async def test_who_reads_small_blobs_slowly_keeps_nobody_from_the_registry(start, connect, cache):
    """They are here before anybody reads them: no request is under way meanwhile."""
    peer = await start()
    remote = await connect(peer.host)
    targets = blobs(cache, FIRST_LIMIT + 1)
    await push_all(remote, targets, cache)
    async with asyncio.timeout(10), AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(remote.fetch(target)) for target in targets]
        for target, stream in zip(targets, streams, strict=True):
            assert digest_of(b"".join([chunk async for chunk in stream])) == target.digest


@pytest.mark.parametrize("cuts", [1, 2])
async def test_a_small_blob_that_is_cut_is_had_all_the_same(start, connect, cache, cuts):
    peer = await start()
    remote = await connect(peer.host)
    (target,) = blobs(cache, 1, SMALL_BYTES)
    await remote.push(target, cache)
    peer.tell(Quirks(cut_sent_bytes=SMALL_BYTES // 3, cuts=cuts))
    asked(peer)
    async with remote.fetch(target) as stream:
        assert digest_of(b"".join([chunk async for chunk in stream])) == target.digest
    assert asked(peer) == " ".join(["GET"] * (1 + cuts))
