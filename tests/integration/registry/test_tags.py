"""What mirrors do with tags and ask of registries: list, read, publish and remove."""

import pytest
from aiohttp import web

from kitd.content.copy import copy_graph
from kitd.content.store import Need
from kitd.content.verify import read
from kitd.mirror.removal import Fate, Outcome
from kitd.oci.digest import digest_of
from kitd.oci.media_type import OCI_EMPTY, OCI_MANIFEST
from kitd.oci.reference import InvalidReferenceError, Repository
from kitd.oci.tag_list import ListedTag
from kitd.registry.errors import (
    RegistryDeniedError,
    RegistryNotFoundError,
    RegistryProtocolError,
    RegistryUnsupportedError,
)
from kitd.registry.settings import RegistrySettings
from tests.integration.registry.manifests import put_manifest

REMOVED = Fate(Outcome.REMOVED)


async def tagged(remote, cache, mark, *tags):
    root = put_manifest(cache, mark)
    await copy_graph(cache, remote, root, concurrency=1, progress=lambda _done, _total: None)
    for tag in tags:
        await remote.tag(root, tag)
    return root


async def names(remote):
    return {tag.name async for tag in remote.tags()}


# Removing tags.


async def test_a_tag_is_removed_and_its_manifest_left_to_others(fault_registry, connect, cache):
    remote = await connect(fault_registry.host)
    root = await tagged(remote, cache, "a", "v1", "latest")
    fault_registry.reset()

    assert await remote.remove_tag("v1", root.digest) == REMOVED
    assert fault_registry.tally()["requests"] == {"manifest.head": 1, "manifest.delete": 1}
    assert await names(remote) == {"latest"}
    assert await remote.resolve("latest") == root
    assert await remote.remove_tag("v1", root.digest) == Fate(Outcome.ABSENT)
    assert await remote.remove_tag("latest", digest_of(b"another")) == Fate(Outcome.MOVED)
    assert await remote.resolve("latest") == root

    assert await remote.remove_tag("latest", root.digest) == REMOVED
    assert await names(remote) == set()
    assert await remote.exists(root)


async def test_where_no_tags_are_removed_that_is_said_and_nothing_goes(
    registry, connect, cache, request
):
    """distribution 2 removes no tags, and neither do others."""
    if "fault_registry" in request.node.name:
        registry.tell(removes_tags=False)
    remote = await connect(registry.host)
    root = await tagged(remote, cache, "a", "v1")

    assert await remote.remove_tag("v1", root.digest) == Fate(Outcome.UNSUPPORTED)
    assert await remote.resolve("v1") == root


async def test_what_is_not_allowed_is_not_tried_another_way(serve, connect, cache):
    asked = []
    named = {
        "Content-Type": OCI_MANIFEST,
        "Content-Length": "1",
        "Docker-Content-Digest": digest_of(b"x"),
    }

    async def handler(request):
        asked.append((request.method, request.path))
        if request.method == "HEAD":
            return web.Response(headers=named)
        body = {"errors": [{"code": "DENIED", "message": "no"}]}
        return web.json_response(body, status=403)

    remote = await connect(await serve(handler))
    with pytest.raises(RegistryDeniedError):
        await remote.remove_tag("v1", digest_of(b"x"))
    path = "/v2/team/model/manifests/v1"
    assert asked == [("HEAD", path), ("DELETE", path)]


@pytest.mark.parametrize("tag", ["", "../x", "a b", "x" * 129, digest_of(b"")])
async def test_what_is_no_tag_is_not_asked_for(fault_registry, connect, cache, tag):
    remote = await connect(fault_registry.host)
    root = put_manifest(cache, "a")
    fault_registry.reset()
    for attempt in (
        remote.remove_tag(tag, root.digest),
        remote.publish(root, cache, tag),
        remote.read_tag(tag),
    ):
        with pytest.raises(InvalidReferenceError):
            await attempt
    assert fault_registry.tally()["requests"] == {}


# Publishing and reading.


async def test_a_manifest_is_published_under_its_tag_by_one_request(fault_registry, connect, cache):
    remote = await connect(fault_registry.host)
    root = put_manifest(cache, "a")
    await remote.push(cache.put(b"{}", OCI_EMPTY), cache)
    fault_registry.reset()

    assert await remote.publish(root, cache, "v1") == root.size
    assert fault_registry.tally()["requests"] == {"manifest.put": 1}
    assert await remote.resolve("v1") == await remote.resolve(root.digest) == root


async def test_what_is_published_comes_back_with_its_content(registry, connect, cache):
    remote = await connect(registry.host)
    root = put_manifest(cache, "a")
    await remote.push(cache.put(b"{}", OCI_EMPTY), cache)
    await remote.publish(root, cache, "v1")
    content = await read(cache, root, max_bytes=root.size)
    assert await remote.read_tag("v1") == (root, content)
    with pytest.raises(RegistryNotFoundError, match="v2"):
        await remote.read_tag("v2")


@pytest.mark.parametrize("referrers", [True, False])
async def test_what_is_published_about_another_is_listed_with_it(
    fault_registry, connect, cache, referrers
):
    fault_registry.tell(referrers=referrers)
    remote = await connect(fault_registry.host)
    root = await tagged(remote, cache, "a", "v1")
    signature = put_manifest(cache, "signature", subject=root)

    await remote.publish(signature, cache, "signed")
    assert [listed.digest for listed in await remote.referrers(root.digest)] == [signature.digest]
    assert (await remote.resolve("signed")).digest == signature.digest


async def test_a_manifest_that_answers_to_another_name_is_not_believed(serve, connect, cache):
    root = put_manifest(cache, "a")
    content = await read(cache, root, max_bytes=root.size)

    async def handler(_request):
        headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": digest_of(b"a lie")}
        return web.Response(body=content, headers=headers)

    remote = await connect(await serve(handler))
    assert await remote.read_tag("v1") == (root, content)


# What a push would take.


async def test_what_a_push_would_take_is_known_before(registry, connect, cache):
    remote = await connect(registry.host)
    sibling = await connect(registry.host, "team/other")
    borrower = await connect(registry.host, "team/third", mount_from=("team/other",))
    blob, root = cache.put(b"weights"), put_manifest(cache, "a")

    assert [await remote.need(each) for each in (blob, root)] == [Need.BYTES, Need.BYTES]
    await sibling.push(blob, cache)
    assert await sibling.need(blob) is Need.NOTHING
    assert await remote.need(blob) is Need.BYTES
    assert await borrower.need(blob) is Need.MOUNT
    assert await borrower.need(root) is Need.BYTES
    assert not await borrower.exists(blob)


# Lists.


async def test_tags_come_in_pages(registry, connect, cache, monkeypatch):
    monkeypatch.setattr("kitd.registry.repository.NAMES_A_PAGE", 2)
    remote = await connect(registry.host)
    tags = [f"v{number}" for number in range(5)]
    await tagged(remote, cache, "a", *tags)
    # distribution 2 has no pages of tags, and no order.
    listed = [tag async for tag in remote.tags()]
    assert sorted(listed, key=lambda tag: tag.name) == [ListedTag(name) for name in tags]


async def test_a_list_may_say_what_tags_name(serve, connect):
    digest = digest_of(b"a kit")

    async def handler(request):
        if "last" in request.query:
            return web.json_response({"tags": ["v2"], "manifest": {digest: {"tag": "v2"}}})
        return web.json_response(
            {"tags": ["latest", "v1"], "manifest": {digest: {"tag": ["v1"]}}},
            headers={"Link": '</v2/team/model/tags/list?last=v1>; rel="next"'},
        )

    remote = await connect(await serve(handler))
    assert [tag async for tag in remote.tags()] == [
        ListedTag("latest"),
        ListedTag("v1", digest),
        ListedTag("v2"),
    ]


async def test_a_registry_tells_its_repositories_in_pages(registry, connect, cache, monkeypatch):
    monkeypatch.setattr("kitd.registry.client.NAMES_A_PAGE", 2)
    client = await connect.client(RegistrySettings())
    assert [name async for name in client.repositories(registry.host)] == []
    listed = [f"team/model-{number}" for number in range(5)]
    for name in listed:
        remote = await client.repository(Repository(registry.host, name))
        await tagged(remote, cache, "a", "v1")
    assert [name async for name in client.repositories(registry.host)] == listed


async def test_a_registry_that_tells_nobody_says_so(fault_registry, connect):
    fault_registry.tell(catalog=False)
    client = await connect.client(RegistrySettings())
    with pytest.raises(RegistryUnsupportedError, match="listed to nobody"):
        await anext(client.repositories(fault_registry.host))


@pytest.mark.parametrize("body", ["nonsense", '{"repositories":"x"}', "[]"])
async def test_what_is_no_list_of_repositories_is_refused(serve, connect, body):
    async def handler(_request):
        return web.Response(text=body, content_type="application/json")

    client = await connect.client(RegistrySettings())
    with pytest.raises(RegistryProtocolError):
        await anext(client.repositories(await serve(handler)))


async def test_a_catalog_without_an_end_is_left(serve, connect, monkeypatch):
    monkeypatch.setattr("kitd.registry.listing.MAX_PAGES", 5)

    async def handler(request):
        after = int(request.query.get("last", "0")) + 1
        link = f'</v2/_catalog?last={after}>; rel="next"'
        return web.json_response({"repositories": [f"r{after}"]}, headers={"Link": link})

    client = await connect.client(RegistrySettings())
    names = client.repositories(await serve(handler))
    assert [await anext(names) for _ in range(5)] == [f"r{number}" for number in range(1, 6)]
    with pytest.raises(RegistryProtocolError, match="more than 5 pages"):
        await anext(names)
