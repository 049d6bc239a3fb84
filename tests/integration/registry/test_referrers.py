"""Referrers at registries that keep lists of them, that keep none, and that do neither right."""

import asyncio
import hashlib
import json
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiohttp import ClientSession, web

from kitd.clock import SystemClock
from kitd.content.referrers import MAX_REFERRERS
from kitd.gateway.server import Gateway
from kitd.ledger.catalog import Catalog
from kitd.ledger.database import Database
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import digest_of
from kitd.oci.media_type import ACCEPT, OCI_EMPTY, OCI_INDEX, OCI_MANIFEST
from kitd.oci.reference import Repository
from kitd.oci.referrer import referrers_tag
from kitd.registry.client import RegistryClient
from kitd.registry.errors import (
    RegistryProtocolError,
    RegistryRateLimitedError,
    RegistryStateError,
)
from kitd.registry.referrers import KNOWN_S, MAX_PAGES, MAX_TRIES
from kitd.registry.settings import RegistrySettings
from kitd.registry.transport import Surroundings
from tests.integration.registry.manifests import ARTIFACT_TYPE, put_manifest

NAME = "team/model"
SUBJECT = digest_of(b"the kit")


def artifact(cache, mark, subject=None):
    """Put a manifest into the cache; return its descriptor as a list of referrers has it."""
    target = put_manifest(cache, mark, subject)
    return replace(target, annotations={"mark": mark}, artifact_type=ARTIFACT_TYPE)


async def push(remote, cache, *manifests):
    await remote.push(cache.put(b"{}", OCI_EMPTY), cache)
    for manifest in manifests:
        await remote.push(manifest, cache)


@asynccontextmanager
async def manifest_of(host, identifier):
    url = f"http://{host}/v2/{NAME}/manifests/{identifier}"
    async with ClientSession() as session, session.get(url, headers={"Accept": ACCEPT}) as got:
        yield got


# A registry without lists: Debian's.


async def test_without_lists_the_index_under_the_tag_is_kept_up(docker_registry, connect, cache):
    remote = await connect(docker_registry.host)
    kit = artifact(cache, "kit")
    assert await remote.referrers(kit.digest) == ()
    signature, sbom = artifact(cache, "signature", kit), artifact(cache, "sbom", kit)
    await push(remote, cache, kit, signature, sbom, signature)
    assert await remote.referrers(kit.digest) == (signature, sbom)
    assert await remote.referrers(signature.digest) == ()
    async with manifest_of(docker_registry.host, referrers_tag(kit.digest)) as got:
        assert got.headers["Content-Type"] == OCI_INDEX
        listed = json.loads(await got.read())["manifests"]
    assert listed[0] == {
        "mediaType": OCI_MANIFEST,
        "digest": signature.digest,
        "size": signature.size,
        "artifactType": ARTIFACT_TYPE,
        "annotations": {"mark": "signature"},
    }
    assert await (await connect(docker_registry.host)).referrers(kit.digest) == (signature, sbom)


async def test_what_an_earlier_push_did_not_come_to_is_listed_by_the_next(
    docker_registry, connect, cache
):
    kit = artifact(cache, "kit")
    signature = artifact(cache, "signature", kit)
    remote = await connect(docker_registry.host)
    await push(remote, cache, kit)
    url = f"http://{docker_registry.host}/v2/{NAME}/manifests/{signature.digest}"
    content = cache.store.read(signature, max_bytes=10_000)
    async with (
        ClientSession() as session,
        session.put(url, data=content, headers={"Content-Type": OCI_MANIFEST}) as put,
    ):
        assert put.status == 201
    assert await remote.referrers(kit.digest) == ()
    assert await remote.push(signature, cache) == 0
    assert await remote.referrers(kit.digest) == (signature,)


async def test_writers_at_once_lose_no_entry(docker_registry, connect, cache):
    kit = artifact(cache, "kit")
    signatures = [artifact(cache, f"signature {number}", kit) for number in range(8)]
    client = await connect.client(RegistrySettings())
    repository = Repository(docker_registry.host, NAME)
    await push(await client.repository(repository), cache, kit)
    async with asyncio.TaskGroup() as group:
        for signature in signatures:
            # Each with a repository of its own, as jobs have them.
            remote = await client.repository(repository)
            group.create_task(remote.push(signature, cache))
    listed = await (await client.repository(repository)).referrers(kit.digest)
    assert {each.digest for each in listed} == {each.digest for each in signatures}
    assert len(listed) == 8


async def test_a_tag_that_names_no_index_is_neither_followed_nor_overwritten(
    docker_registry, connect, cache
):
    remote = await connect(docker_registry.host)
    kit = artifact(cache, "kit")
    await push(remote, cache, kit)
    tag = referrers_tag(kit.digest)
    await remote.tag(kit, tag)
    with pytest.raises(RegistryProtocolError, match=rf"follow {NAME}:{tag} .*no OCI image index"):
        await remote.referrers(kit.digest)
    with pytest.raises(RegistryProtocolError, match=rf"add to {NAME}:{tag} .*no OCI image index"):
        await remote.push(artifact(cache, "signature", kit), cache)
    async with manifest_of(docker_registry.host, tag) as got:
        assert got.headers["Docker-Content-Digest"] == kit.digest


# A registry with lists: kitd's own.


async def no_kit(_manifest):
    """Summarise manifests as those of anything but kits."""


@pytest.fixture
async def gateway(tmp_path, cache):
    async with (
        Database(tmp_path / "ledger.db") as database,
        Gateway(cache.store, Catalog(database, SystemClock(), no_kit)).listen(
            "127.0.0.1", 0
        ) as address,
    ):
        yield "{}:{}".format(*address)


async def test_with_lists_the_registry_is_asked_and_no_tag_is_made(gateway, connect, cache):
    remote = await connect(gateway)
    kit = artifact(cache, "kit")
    signature, sbom = artifact(cache, "signature", kit), artifact(cache, "sbom", kit)
    await push(remote, cache, kit, signature, sbom)
    listed = await remote.referrers(kit.digest)
    assert sorted(listed, key=lambda each: each.digest) == sorted(
        [signature, sbom], key=lambda each: each.digest
    )
    assert [tag.name async for tag in remote.tags()] == []
    # Another client, which learns it from the list and not from a push.
    again = await connect(gateway)
    assert await again.push(signature, cache) == 0
    assert [tag.name async for tag in again.tags()] == []


async def test_a_list_of_many_large_entries_is_read_page_by_page(gateway, connect, cache):
    """kitd's registry answers with pages of at most 2 MiB."""
    remote = await connect(gateway)
    kit = artifact(cache, "kit")
    signatures = [artifact(cache, f"{number}" * 700_000, kit) for number in range(5)]
    await push(remote, cache, kit, *signatures)
    listed = await remote.referrers(kit.digest)
    assert {each.digest for each in listed} == {each.digest for each in signatures}


# Others.


def entry(number):
    return {"mediaType": OCI_MANIFEST, "digest": digest_of(str(number).encode()), "size": 7}


def index(entries):
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return web.Response(body=json.dumps(document).encode(), content_type=OCI_INDEX)


class Quirky:
    """A registry whose lists of referrers are as a test wants them; the tag lists one."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    async def handle(self, request):
        kind = request.path.split("/")[-2]
        self.asked.append(kind)
        if kind == "referrers":
            return self.answer(request)
        assert request.path.endswith(f"manifests/{referrers_tag(SUBJECT)}")
        return index([entry("tagged")])


TAGGED = (Descriptor(OCI_MANIFEST, digest_of(b"tagged"), 7),)


async def test_a_thousand_referrers_come_in_pages(serve, connect):
    def page(request):
        start = int(request.query.get("from", 0))
        response = index([entry(number) for number in range(start, start + 100)])
        if start < 900:
            response.headers["Link"] = f'<{request.path}?from={start + 100}>; rel="next"'
        return response

    quirky = Quirky(page)
    listed = await (await connect(await serve(quirky.handle))).referrers(SUBJECT)
    assert [each.digest for each in listed] == [entry(number)["digest"] for number in range(1000)]
    assert quirky.asked == ["referrers"] * 10


async def test_a_list_without_end_is_cut_off(serve, connect):
    def page(request):
        response = index([entry(number) for number in range(1000)])
        response.headers["Link"] = f'<{request.path}?more>; rel="next"'
        return response

    quirky = Quirky(page)
    listed = await (await connect(await serve(quirky.handle))).referrers(SUBJECT)
    assert MAX_REFERRERS < len(listed) <= MAX_REFERRERS + 1000
    assert len(quirky.asked) == 5


async def test_empty_pages_without_end_are_refused(serve, connect):
    def page(request):
        response = index([])
        response.headers["Link"] = f'<{request.path}>; rel="next"'
        return response

    quirky = Quirky(page)
    with pytest.raises(RegistryProtocolError, match=f"more than {MAX_PAGES} pages"):
        await (await connect(await serve(quirky.handle))).referrers(SUBJECT)
    assert len(quirky.asked) == MAX_PAGES


async def test_a_page_elsewhere_is_not_asked_for(serve, connect):
    def page(request):
        following = "page" in request.query
        link = "http://elsewhere.example.com/v2/" if following else f"{request.path}?page"
        response = index([entry(1)])
        response.headers["Link"] = f'<{link}>; rel="next"'
        return response

    with pytest.raises(RegistryProtocolError, match=r"elsewhere\.example\.com"):
        await (await connect(await serve(Quirky(page).handle))).referrers(SUBJECT)


def html(request):
    return web.Response(text="<html><title>Welcome</title></html>", content_type="text/html")


def html_not_found(request):
    return web.Response(text="<html>", content_type="text/html", status=404)


def something_else(request):
    return web.json_response({"status": "ok"})


@pytest.mark.parametrize(
    "answer",
    [
        *(
            pytest.param(lambda _, status=status: web.Response(status=status), id=str(status))
            for status in (400, 401, 403, 404, 405, 406, 410, 500, 501)
        ),
        html,
        html_not_found,
        something_else,
    ],
)
async def test_where_there_is_no_list_the_tag_is_followed(serve, connect, answer):
    quirky = Quirky(answer)
    remote = await connect(await serve(quirky.handle))
    assert await remote.referrers(SUBJECT) == TAGGED
    # A failure may be asked about again before it is believed.
    assert set(quirky.asked[:-1]) == {"referrers"}
    assert quirky.asked[-1] == "manifests"


async def test_a_registry_that_asks_for_patience_is_not_taken_for_one_without_lists(serve, connect):
    quirky = Quirky(lambda _: web.Response(status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(RegistryRateLimitedError):
        await (await connect(await serve(quirky.handle))).referrers(SUBJECT)
    assert "manifests" not in quirky.asked


async def test_it_is_remembered_for_an_hour_that_a_repository_has_no_lists(serve):
    now_s = 0.0
    quirky = Quirky(lambda _: web.Response(status=404))
    repository = Repository(await serve(quirky.handle), NAME)
    surroundings = Surroundings(environment={}, clock=lambda: now_s)
    async with RegistryClient(lambda _: RegistrySettings(), surroundings) as client:
        for now_s in (0.0, KNOWN_S / 2, KNOWN_S + 1):  # noqa: B007 - the clock reads it
            remote = await client.repository(repository)
            assert await remote.referrers(SUBJECT) == TAGGED
    assert quirky.asked == ["referrers", "manifests", "manifests", "referrers", "manifests"]


@pytest.mark.parametrize("status", [400, 405, 500, 501])
async def test_whoever_fails_at_lists_is_not_asked_for_each_manifest(serve, connect, status):
    quirky = Quirky(lambda _: web.Response(status=status))
    remote = await connect(await serve(quirky.handle))
    await remote.referrers(SUBJECT)
    quirky.asked.clear()
    assert await remote.referrers(SUBJECT) == TAGGED
    assert quirky.asked == ["manifests"]


async def test_a_registry_that_has_lists_may_fail_once(serve, connect):
    answers = [index([entry(1)]), *(web.Response(status=500) for _ in range(5)), index([entry(1)])]
    quirky = Quirky(lambda _: answers.pop(0))
    remote = await connect(await serve(quirky.handle))
    listed = await remote.referrers(SUBJECT)
    await remote.referrers(SUBJECT)
    assert await remote.referrers(SUBJECT) == listed


class Shelf:
    """A registry in memory without lists, which heeds If-Match."""

    def __init__(self):
        self.manifests = {}
        self.rivals = iter(())
        """What others put into the index, one before each of our writes of it."""

    async def handle(self, request):
        *_, kind, name = request.path.split("/")
        if kind == "referrers":
            return web.Response(status=404)
        if request.method == "PUT":
            return self.put(name, await request.read(), request.headers.get("If-Match"))
        content = self.manifests.get(name)
        if content is None:
            return web.Response(status=404)
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        return web.Response(body=content, content_type=OCI_INDEX, headers=headers)

    def put(self, name, content, version):
        if name.startswith("sha256-") and (rival := next(self.rivals, None)) is not None:
            held = json.loads(self.manifests[name])
            held["manifests"].append(rival)
            self.manifests[name] = json.dumps(held).encode()
        held = self.manifests.get(name)
        if held is not None and version != f'"{hashlib.sha256(held).hexdigest()}"':
            return web.Response(status=412)
        self.manifests[name] = content
        return web.Response(status=201)


@pytest.fixture
async def shelf(serve, connect, cache):
    """A shelf, a repository on it, and a kit with one signature."""
    shelf = Shelf()
    remote = await connect(await serve(shelf.handle))
    kit = artifact(cache, "kit")
    await remote.push(artifact(cache, "first", kit), cache)
    return shelf, remote, kit


async def test_an_index_that_somebody_changed_meanwhile_is_read_again(shelf, cache):
    shelf, remote, kit = shelf
    shelf.rivals = iter([entry("rival 1"), entry("rival 2")])
    await remote.push(artifact(cache, "second", kit), cache)
    listed = {each.digest for each in await remote.referrers(kit.digest)}
    assert len(listed) == 4
    assert {entry("rival 1")["digest"], entry("rival 2")["digest"]} < listed


async def test_an_index_that_is_always_changed_is_given_up_for_now(shelf, cache):
    shelf, remote, kit = shelf
    shelf.rivals = map(entry, range(100))
    with pytest.raises(RegistryStateError, match="others change the list"):
        await remote.push(artifact(cache, "second", kit), cache)
    assert next(shelf.rivals) == entry(MAX_TRIES)
