"""Reading from mirrors that have it, lack it, fail, break off and lie."""

import json
import os
from collections import Counter

import pytest
from aiohttp import encode_basic_auth, web

from kitd.content.copy import copy_graph
from kitd.content.store import MismatchError
from kitd.content.verify import read
from kitd.oci.descriptor import describe
from kitd.oci.digest import InvalidDigestError
from kitd.oci.media_type import OCI_EMPTY, OCI_MANIFEST
from kitd.oci.reference import Repository
from kitd.registry.client import RegistryClient
from kitd.registry.errors import (
    RegistryDeniedError,
    RegistryNotFoundError,
    RegistryUnreachableError,
)
from kitd.registry.mirrored import CHECKED_BYTES, DOUBT_S, REST_S
from kitd.registry.settings import Anonymous, Mirror, PasswordFile, RegistrySettings
from kitd.registry.transport import Surroundings

NAME = "team/model"
SMALL = b"ten bytes."


class Shelf:
    """A registry in memory that a test makes fail and lie."""

    def __init__(self):
        self.contents = {}
        self.tags = {}
        self.asked = Counter()
        self.requests = []
        self.status = None
        """Answered to everything, with `headers`, where a test sets it."""
        self.headers = {"WWW-Authenticate": "Basic realm=x"}
        self.cut_at = None
        """After so many bytes of a blob the connection ends."""

    def put(self, content, media_type="application/octet-stream", *, instead=None):
        target = describe(media_type, content)
        self.contents[target.digest] = (instead or content, media_type)
        return target

    def kit(self, mark, *layers):
        entries = [
            {"mediaType": each.media_type, "digest": each.digest, "size": each.size}
            for each in (self.put(b"{}", OCI_EMPTY), *layers)
        ]
        document = {"schemaVersion": 2, "config": entries[0], "layers": entries[1:]}
        content = json.dumps(document | {"annotations": {"mark": mark}}).encode()
        target = self.put(content, OCI_MANIFEST)
        self.tags["latest"] = target.digest
        return target

    async def handle(self, request):
        kind, name = request.path.split("/")[-2:]
        self.asked[f"{request.method} {kind}"] += 1
        self.requests.append(request)
        if self.status is not None:
            return web.Response(status=self.status, headers=self.headers)
        if kind == "referrers":
            return web.Response(status=404)
        name = self.tags.get(name, name)
        if name not in self.contents:
            return web.Response(status=404)
        content, media_type = self.contents[name]
        headers = {"Docker-Content-Digest": name, "Content-Type": media_type}
        if request.method == "HEAD":
            return web.Response(headers=headers | {"Content-Length": str(len(content))})
        return await self.send(request, content, headers)

    async def send(self, request, content, headers):
        start = request.http_range.start or 0
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        if start:
            end = len(content) - 1
            response.headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        response.content_length = len(content) - start
        await response.prepare(request)
        if self.cut_at is not None:
            await response.write(content[start : self.cut_at])
            request.transport.close()
            return response
        await response.write(content[start:])
        return response


@pytest.fixture
async def shelves(serve):
    """An origin and two mirrors, with their addresses."""
    shelves = [Shelf(), Shelf(), Shelf()]
    for shelf in shelves:
        shelf.host = await serve(shelf.handle)
    return shelves


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def client(shelves, clock):
    """A client that reads the origin's content from both mirrors first."""
    origin, one, two = shelves

    async def sleep(delay_s):
        """Wait for nothing between attempts."""

    settings = {origin.host: RegistrySettings(mirrors=(Mirror(one.host), Mirror(two.host, "pre")))}
    surroundings = Surroundings(environment={}, clock=clock, sleep=sleep)
    async with RegistryClient(
        lambda host: settings.get(host, RegistrySettings()), surroundings
    ) as client:
        client.settings = settings
        yield client


async def fetch(client, shelf, target):
    remote = await client.repository(Repository(shelf.host, NAME))
    return await read(remote, target, max_bytes=1 << 30)


async def test_content_comes_from_the_first_mirror_that_has_it(client, shelves):
    origin, one, two = shelves
    target = two.put(SMALL)
    assert await fetch(client, origin, target) == SMALL
    assert one.asked == {"GET blobs": 1}
    assert two.requests[0].path == f"/v2/pre/{NAME}/blobs/{target.digest}"
    assert origin.requests == []


async def test_what_no_mirror_has_comes_from_the_registry(client, shelves):
    origin, one, two = shelves
    target = origin.put(SMALL)
    for _ in range(2):
        assert await fetch(client, origin, target) == SMALL
    # To lack something is no failure: they are asked again.
    assert one.asked == two.asked == origin.asked == {"GET blobs": 2}
    with pytest.raises(RegistryNotFoundError, match=origin.host):
        await fetch(client, origin, describe("a/b", b"nobody has it"))


async def test_only_mirrors_are_told_which_registry_is_meant(client, shelves):
    origin, one, two = shelves
    await fetch(client, origin, origin.put(SMALL))
    assert one.requests[0].query == two.requests[0].query == {"ns": origin.host}
    assert origin.requests[0].query == {}
    # A mirror that is a registry of its own is asked for its own without it.
    await fetch(client, one, one.put(SMALL))
    assert one.requests[-1].query == {}


@pytest.mark.parametrize("status", [418, 500, 501])
async def test_a_mirror_that_fails_is_left_alone_for_a_while(client, shelves, clock, status):
    origin, one, _ = shelves
    target = origin.put(SMALL)
    one.status = status
    assert await fetch(client, origin, target) == SMALL
    tries = one.asked["GET blobs"]
    assert tries >= 1
    clock.now_s = REST_S - 1
    assert await fetch(client, origin, target) == SMALL
    assert one.asked["GET blobs"] == tries
    clock.now_s = REST_S + 1
    one.status = None
    one.put(SMALL)
    assert await fetch(client, origin, target) == SMALL
    assert one.asked["GET blobs"] == tries + 1
    assert origin.asked["GET blobs"] == 2


async def test_a_mirror_is_left_alone_for_as_long_as_it_asks(client, shelves, clock):
    origin, one, _ = shelves
    target = origin.put(SMALL)
    one.status = 429
    one.headers = {"Retry-After": "300"}
    assert await fetch(client, origin, target) == SMALL
    asked = one.asked.total()
    clock.now_s = 299
    assert await fetch(client, origin, target) == SMALL
    assert one.asked.total() == asked


@pytest.mark.parametrize("status", [401, 403])
async def test_a_mirror_that_refuses_one_repository_is_asked_for_others(client, shelves, status):
    origin, one, _ = shelves
    target = origin.put(SMALL)
    one.status = status
    for _ in range(2):
        assert await fetch(client, origin, target) == SMALL
    assert one.asked == {"GET blobs": 1}
    one.status = None
    one.put(SMALL)
    remote = await client.repository(Repository(origin.host, "team/other"))
    assert await read(remote, target, max_bytes=100) == SMALL
    assert one.asked == {"GET blobs": 2}


async def test_mirrors_that_are_not_there_hold_nobody_up(client, shelves, free_address, tmp_path):
    origin, *_ = shelves
    client.settings[origin.host] = RegistrySettings(
        mirrors=(Mirror(free_address), Mirror("mirror.invalid"), Mirror("broken.example.com"))
    )
    client.settings["broken.example.com"] = RegistrySettings(ca_file=tmp_path / "missing.pem")
    target = origin.put(SMALL)
    assert await fetch(client, origin, target) == SMALL


async def test_a_mirror_whose_password_cannot_be_read_holds_nobody_up(client, shelves, tmp_path):
    origin, one, two = shelves
    client.settings[origin.host] = RegistrySettings(
        mirrors=(Mirror(one.host, tags=True), Mirror(two.host))
    )
    broken = PasswordFile("robot", tmp_path / "missing")
    client.settings[one.host] = RegistrySettings(credentials=broken)
    one.status = 401
    root = origin.kit("kit")
    remote = await client.repository(Repository(origin.host, NAME))
    assert await remote.resolve("latest") == root
    assert await read(remote, root, max_bytes=10_000)
    assert await remote.referrers(root.digest) == ()
    # What is wrong with the file is not asked the mirror for.
    assert one.asked.total() == 1


async def test_what_nobody_has_is_said_while_there_is_somebody_else_to_ask(client, shelves):
    """Before the content is opened, and not when it is read."""
    origin, *_ = shelves
    remote = await client.repository(Repository(origin.host, NAME))
    for size in (len(SMALL), CHECKED_BYTES + 1):
        opening = remote.fetch(describe("a/b", bytes(size)))
        with pytest.raises(RegistryNotFoundError, match=origin.host):
            await opening.__aenter__()


@pytest.mark.parametrize("offset", [0, 4, len(SMALL)])
async def test_content_of_a_mirror_begins_at_any_offset(client, shelves, offset):
    origin, one, _ = shelves
    remote = await client.repository(Repository(origin.host, NAME))
    async with remote.fetch(one.put(SMALL), offset=offset) as stream:
        assert b"".join([bytes(chunk) async for chunk in stream]) == SMALL[offset:]
    assert origin.requests == []


async def test_what_a_mirror_breaks_off_is_gone_on_with_elsewhere(client, shelves):
    origin, one, two = shelves
    content = os.urandom(CHECKED_BYTES * 2)
    target = one.put(content)
    two.put(content)
    origin.put(content)
    one.cut_at = CHECKED_BYTES
    two.cut_at = CHECKED_BYTES + 500_000
    assert await fetch(client, origin, target) == content
    # Each was asked for no more than what was missing.
    for shelf in (two, origin):
        assert all(request.http_range.start for request in shelf.requests)


async def test_a_small_lie_is_not_noticed(client, shelves):
    origin, one, _ = shelves
    target = origin.put(SMALL)
    one.put(SMALL, instead=b"ten lies..")
    for _ in range(2):
        assert await fetch(client, origin, target) == SMALL
    assert one.asked == {"GET blobs": 1}
    other = one.put(b"something else")
    assert await fetch(client, origin, other) == b"something else"


async def test_a_large_lie_costs_one_more_try(client, shelves, clock):
    origin, one, _ = shelves
    content = os.urandom(CHECKED_BYTES + 1)
    target = origin.put(content)
    one.put(content, instead=bytes(len(content)))
    with pytest.raises(MismatchError):
        await fetch(client, origin, target)
    assert await fetch(client, origin, target) == content
    assert one.asked == {"GET blobs": 1}
    clock.now_s = DOUBT_S + 1
    one.put(content)
    assert await fetch(client, origin, target) == content
    assert one.asked == {"GET blobs": 2}


async def test_a_copy_from_mirrors_is_complete(client, shelves, cache):
    """One mirror has the layers, the other lies about the manifest and has nothing else."""
    origin, one, two = shelves
    layers = [origin.put(os.urandom(100_000)) for _ in range(3)]
    root = origin.kit("original", *layers)
    for layer in layers:
        two.contents[layer.digest] = origin.contents[layer.digest]
    one.contents[root.digest] = (bytes(root.size), OCI_MANIFEST)
    remote = await client.repository(Repository(origin.host, NAME))
    assert await remote.resolve("latest") == root
    with cache.hold() as held:
        await copy_graph(remote, held, root, concurrency=2, progress=lambda _done, _total: None)
    for layer in (*layers, root):
        assert cache.store.has(layer)
    # From the origin came what no mirror had: the manifest and the config.
    assert origin.asked["GET blobs"] == 1


async def test_a_tag_is_what_the_registry_says_it_is(client, shelves):
    origin, one, two = shelves
    current, former = origin.kit("current"), one.kit("former")
    two.kit("other")
    remote = await client.repository(Repository(origin.host, NAME))
    assert await remote.resolve("latest") == current
    with pytest.raises(InvalidDigestError):
        await remote.resolve("sha256:half")
    assert one.requests == two.requests == []
    assert await remote.resolve(former.digest) == former


async def test_a_tag_is_what_a_mirror_says_where_that_is_asked_for(client, shelves):
    origin, one, two = shelves
    origin.kit("current")
    one.kit("not asked")
    former = two.kit("former")
    client.settings[origin.host] = RegistrySettings(
        mirrors=(Mirror(one.host), Mirror(two.host, tags=True))
    )
    remote = await client.repository(Repository(origin.host, NAME))
    assert await remote.resolve("latest") == former
    assert await remote.referrers(former.digest) == ()
    assert one.requests == origin.requests == []


async def test_a_registry_that_is_down_does_not_hide_what_mirrors_have(
    client, shelves, free_address
):
    _, one, _ = shelves
    client.settings[free_address] = RegistrySettings(mirrors=(Mirror(one.host),))
    root = one.kit("kit")
    remote = await client.repository(Repository(free_address, NAME))
    assert await remote.resolve(root.digest) == root
    assert await read(remote, root, max_bytes=10_000)
    assert await remote.referrers(root.digest) == ()


async def test_a_registry_that_is_down_is_not_spoken_for(client, shelves, free_address):
    """Neither what a tag means nor that it holds something is taken from a mirror."""
    _, one, _ = shelves
    client.settings[free_address] = RegistrySettings(mirrors=(Mirror(one.host),))
    one.kit("kit")
    remote = await client.repository(Repository(free_address, NAME))
    with pytest.raises(RegistryUnreachableError):
        await remote.resolve("latest")


async def test_what_only_a_mirror_holds_the_registry_does_not(client, shelves):
    origin, one, _ = shelves
    root = one.kit("kit")
    remote = await client.repository(Repository(origin.host, NAME))
    assert await remote.resolve(root.digest) == root
    assert not await remote.exists(root)


async def test_nothing_is_written_to_a_mirror(client, shelves, docker_registry, cache):
    _, one, two = shelves
    host = docker_registry.host
    client.settings[host] = RegistrySettings(mirrors=(Mirror(one.host), Mirror(two.host)))
    remote = await client.repository(Repository(host, NAME))
    blob = cache.put(SMALL)
    assert await remote.push(blob, cache) == len(SMALL)
    config = cache.put(b"{}", OCI_EMPTY)
    await remote.push(config, cache)
    entry = {"mediaType": OCI_EMPTY, "digest": config.digest, "size": 2}
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": entry, "layers": []}
    root = cache.put(json.dumps(document).encode(), OCI_MANIFEST)
    await remote.push(root, cache)
    await remote.tag(root, "latest")
    assert [tag.name async for tag in remote.tags()] == ["latest"]
    assert {request.method for shelf in (one, two) for request in shelf.requests} <= {"GET"}


async def test_a_mirror_gets_its_own_credentials_and_no_others(client, shelves, tmp_path):
    origin, one, two = shelves
    for name in ("origin", "mirror"):
        (tmp_path / name).write_text(f"{name}-secret")
        (tmp_path / name).chmod(0o600)
    client.settings |= {
        origin.host: RegistrySettings(
            credentials=PasswordFile("ada", tmp_path / "origin"),
            mirrors=(Mirror(one.host), Mirror(two.host)),
        ),
        one.host: RegistrySettings(credentials=PasswordFile("robot", tmp_path / "mirror")),
        two.host: RegistrySettings(credentials=Anonymous()),
    }
    for shelf in shelves:
        shelf.status = 401
    with pytest.raises(RegistryDeniedError):
        await fetch(client, origin, describe("a/b", SMALL))

    def shown(shelf):
        return {request.headers.get("Authorization") for request in shelf.requests}

    assert shown(origin) == {None, encode_basic_auth("ada", "origin-secret")}
    assert shown(one) == {None, encode_basic_auth("robot", "mirror-secret")}
    assert shown(two) == {None}
