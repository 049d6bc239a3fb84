"""A repository of a registry as a content store; skopeo agrees with what is there."""

import json
import os
from pathlib import Path

import pytest
from aiohttp import web

from kitd.content.copy import copy_graph
from kitd.content.store import ContentNotFoundError, MismatchError
from kitd.content.verify import read, verified
from kitd.oci.descriptor import Descriptor, describe
from kitd.oci.digest import digest_of
from kitd.oci.media_type import OCI_MANIFEST
from kitd.oci.tag_list import MAX_NAMES_A_PAGE
from kitd.registry.errors import (
    RegistryMismatchError,
    RegistryProtocolError,
    RegistryStateError,
)
from kitd.registry.settings import RegistrySettings, UploadMode
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent

MODES = [
    RegistrySettings(upload_mode=UploadMode.MONOLITHIC),
    RegistrySettings(upload_mode=UploadMode.CHUNKED, chunk_bytes=300_000),
    RegistrySettings(upload_mode=UploadMode.CHUNKED, chunk_bytes=1 << 20),
    RegistrySettings(upload_mode=UploadMode.STREAM),
]
MODE_NAMES = ["monolithic", "uneven chunks", "even chunks", "stream"]


def kit(cache, *layers: bytes) -> Descriptor:
    """Put a kit with these layers into the cache and return its manifest."""
    config = cache.put(b"{}", "application/vnd.kitops.modelkit.config.v1+json")
    media_type = "application/vnd.kitops.modelkit.model.v1.tar"
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": plain(config),
        "layers": [plain(cache.put(layer, media_type)) for layer in layers],
    }
    return cache.put(json.dumps(manifest).encode(), OCI_MANIFEST)


def plain(target: Descriptor) -> dict:
    return {"mediaType": target.media_type, "digest": target.digest, "size": target.size}


def ignore(_done: int, _total: int) -> None:
    """Nobody watches the progress."""


@pytest.mark.parametrize("settings", MODES, ids=MODE_NAMES)
@pytest.mark.parametrize("size", [0, 1, 4096, 3 * 1024 * 1024 + 17])
async def test_a_blob_comes_back_as_it_was_pushed(registry, connect, cache, settings, size):
    content = os.urandom(size)
    target = cache.put(content)
    remote = await connect(registry.host, settings=settings)

    assert not await remote.exists(target)
    assert await remote.push(target, cache) == size
    assert await remote.exists(target)
    assert await read(remote, target, max_bytes=size) == content


async def test_a_blob_that_is_there_is_not_sent_again(registry, connect, cache):
    target = cache.put(b"weights")
    remote = await connect(registry.host)
    await remote.push(target, cache)
    assert await remote.push(target, cache) == 0


@pytest.mark.parametrize("offset", [1, 1000, (1 << 20) + 1, (2 << 20) - 1])
async def test_a_fetch_begins_at_any_offset(registry, connect, cache, offset):
    content = os.urandom(2 << 20)
    target = cache.put(content)
    remote = await connect(registry.host)
    await remote.push(target, cache)

    async with remote.fetch(target, offset=offset) as stream:
        chunks = [bytes(chunk) async for chunk in stream]

    assert b"".join(chunks) == content[offset:]
    assert max(map(len, chunks)) <= 1 << 20


async def test_a_fetch_can_be_left_in_the_middle(registry, connect, cache):
    target = cache.put(os.urandom(8 << 20))
    remote = await connect(registry.host)
    await remote.push(target, cache)

    async with remote.fetch(target) as stream:
        assert await anext(stream)

    assert len(await read(remote, target, max_bytes=8 << 20)) == 8 << 20


async def test_a_graph_travels_to_the_registry_and_back(registry, connect, cache, skopeo, tmp_path):
    layers = [os.urandom(size) for size in (10, 100_000, 2_000_000)]
    root = kit(cache, *layers)
    remote = await connect(registry.host)

    report = await copy_graph(cache, remote, root, concurrency=4, progress=ignore)
    await remote.tag(root, "latest")
    await remote.tag(root, "v1")

    assert report.skipped_bytes == 0
    assert {tag.name async for tag in remote.tags()} == {"latest", "v1"}
    assert await remote.resolve("v1") == root
    assert await remote.resolve(root.digest) == root
    reference = f"docker://{registry.host}/team/model:latest"
    raw = skopeo("inspect", "--raw", "--tls-verify=false", reference)
    assert digest_of(raw) == root.digest
    skopeo("copy", "--src-tls-verify=false", reference, f"dir:{tmp_path / 'copied'}")
    for layer in layers:
        name = digest_of(layer).removeprefix("sha256:")
        assert (tmp_path / "copied" / name).read_bytes() == layer

    again = BlobStore(tmp_path / "second")
    again.create()
    report = await copy_graph(
        remote, CacheContent(again).hold(), root, concurrency=4, progress=ignore
    )
    assert report.skipped_bytes == 0
    assert again.has(root)
    assert all(again.has(describe("", layer)) for layer in layers)


async def test_a_tag_moves_to_a_manifest_that_was_pushed_by_somebody_else(registry, connect, cache):
    first, second = kit(cache, b"one"), kit(cache, b"two")
    remote = await connect(registry.host)
    for root in (first, second):
        await copy_graph(cache, remote, root, concurrency=2, progress=ignore)
    stranger = await connect(registry.host)

    await stranger.tag(first, "latest")
    assert await remote.resolve("latest") == first
    await stranger.tag(second, "latest")
    assert await remote.resolve("latest") == second


async def test_a_copy_goes_straight_between_two_repositories(registry, connect, cache):
    root = kit(cache, os.urandom(1_500_000))
    one = await connect(registry.host, "team/one")
    two = await connect(registry.host, "team/two")
    await copy_graph(cache, one, root, concurrency=2, progress=ignore)

    report = await copy_graph(one, two, root, concurrency=2, progress=ignore)

    # Where the registry itself knows who has a blob, it lends it.
    assert report.skipped_bytes == two.mounted_bytes
    assert await two.exists(root)


async def test_a_blob_of_a_sibling_is_mounted_and_not_sent(registry, connect, cache):
    target = cache.put(os.urandom(1000))
    sibling = await connect(registry.host, "team/base")
    await sibling.push(target, cache)
    remote = await connect(registry.host, mount_from=("team/other", "team/base"))

    assert await remote.push(target, cache) == 0
    assert await remote.exists(target)


async def test_a_manifest_without_its_blobs_is_refused_for_now(registry, connect, cache):
    root = kit(cache, b"never pushed")
    remote = await connect(registry.host)
    with pytest.raises(RegistryStateError, match="MANIFEST_BLOB_UNKNOWN"):
        await remote.push(root, cache)


@pytest.mark.parametrize("settings", MODES, ids=MODE_NAMES)
async def test_content_with_another_digest_is_refused(
    registry, connect, tmp_path: Path, cache, settings
):
    target = cache.put(b"what was promised")
    path = cache.store.path_of(target.digest)
    path.chmod(0o600)
    path.write_bytes(b"what is delivered")
    remote = await connect(registry.host, settings=settings)

    with pytest.raises(RegistryMismatchError, match="DIGEST_INVALID"):
        await remote.push(target, cache)

    assert not await remote.exists(target)


async def test_a_source_that_fails_ends_the_push_with_its_own_error(registry, connect, cache):
    target = describe("application/octet-stream", b"not in the cache")
    remote = await connect(registry.host)
    with pytest.raises(ContentNotFoundError, match="not in the cache"):
        await remote.push(target, cache)


async def test_what_is_not_there_is_not_found(registry, connect):
    missing = describe("application/octet-stream", b"missing")
    remote = await connect(registry.host)

    assert not await remote.exists(missing)
    with pytest.raises(ContentNotFoundError, match=registry.host):
        await remote.resolve("latest")
    with pytest.raises(ContentNotFoundError, match="BLOB_UNKNOWN"):
        async with remote.fetch(missing):
            pass
    with pytest.raises(ContentNotFoundError, match="NAME_UNKNOWN"):
        _ = [tag.name async for tag in remote.tags()]


async def test_a_descriptor_with_the_wrong_size_is_noticed(registry, connect, cache):
    target = cache.put(b"ten bytes.")
    remote = await connect(registry.host)
    await remote.push(target, cache)
    lie = Descriptor(target.media_type, target.digest, 11)

    assert not await remote.exists(lie)
    with pytest.raises(MismatchError):
        async with remote.fetch(lie) as stream:
            _ = [chunk async for chunk in verified(stream, lie)]


async def test_a_registry_that_is_there_answers_a_ping(registry, connect):
    client = await connect.client(RegistrySettings())
    await client.ping(registry.host)


async def test_a_page_of_more_tags_than_a_page_has_is_refused(serve, connect):
    names = ",".join(['"a"'] * (MAX_NAMES_A_PAGE + 1))

    async def handler(_request):
        return web.Response(text=f'{{"tags":[{names}]}}', content_type="application/json")

    remote = await connect(await serve(handler))
    with pytest.raises(RegistryProtocolError, match="more than"):
        assert await anext(remote.tags())
