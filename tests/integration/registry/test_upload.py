"""Uploads to registries with habits of their own: what is sent, and how trouble is got over."""

import asyncio
import os
import re
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web

from fault_registry.quirks import Quirks
from fault_registry.server import FaultRegistry
from kitd.content.store import MismatchError
from kitd.oci.digest import digest_of
from kitd.registry.errors import (
    RegistryDeniedError,
    RegistryProtocolError,
    RegistryRejectedError,
    RegistryServerError,
    RegistryStateError,
)
from kitd.registry.settings import RegistrySettings, UploadMode
from kitd.registry.upload import AT_ONCE_BYTES

SIZE = 1000
CHUNKED = RegistrySettings(upload_mode=UploadMode.CHUNKED, chunk_bytes=300)


@dataclass
class UploadPeer:
    """One upload of a registry, with the quirk that a test is about.

    `quirk` sees each PATCH first, with its number; an answer or an exception of its own is used.
    """

    quirk: Callable | None = None
    post_headers: dict[str, str] = field(default_factory=dict)
    location: str = "/upload/{step}?_state=a%2Fb%3D{step}"
    ranges: bool = True
    received: bytearray = field(default_factory=bytearray)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    step: int = 0
    patches: int = 0
    stored: str | None = None

    def headers(self) -> dict[str, str]:
        self.step += 1
        headers = {"Location": self.location.format(step=self.step)}
        if self.ranges:
            headers["Range"] = f"0-{max(len(self.received) - 1, 0)}"
        return headers

    async def handle(self, request: web.Request) -> web.StreamResponse:
        said = request.headers.get("Content-Range", "")
        self.requests.append((request.method, request.raw_path, said))
        match request.method:
            case "HEAD":
                return web.Response(status=404)
            case "POST":
                return web.Response(status=202, headers={**self.headers(), **self.post_headers})
            case "GET":
                return web.Response(status=204, headers=self.headers())
            case "DELETE":
                return web.Response(status=204)
            case "PATCH":
                self.patches += 1
                if self.quirk and (answer := await self.quirk(self, request, self.patches)):
                    return answer
                start = int(said.partition("-")[0]) if said else 0
                if start != len(self.received):
                    return web.Response(status=416)
                self.received += await request.read()
                return web.Response(status=202, headers=self.headers())
        self.received += await request.read()
        self.stored = digest_of(self.received)
        assert request.query["digest"] == self.stored
        return web.Response(status=201, headers={"Docker-Content-Digest": self.stored})


@pytest.fixture
def push(serve, connect, cache):
    """Push `SIZE` random bytes to a peer and return the target."""

    async def run(peer: UploadPeer, settings: RegistrySettings = CHUNKED):
        remote = await connect(await serve(peer.handle), settings=settings)
        target = cache.put(os.urandom(SIZE))
        assert await remote.push(target, cache) == SIZE
        assert peer.stored == target.digest
        return target

    return run


async def test_chunks_follow_each_other_and_the_locations(push):
    peer = UploadPeer()
    target = await push(peer)
    digest = target.digest.replace(":", "%3A")
    assert peer.requests == [
        ("HEAD", f"/v2/team/model/blobs/{target.digest}", ""),
        ("POST", f"/v2/team/model/blobs/uploads/?mount={target.digest}", ""),
        ("PATCH", "/upload/1?_state=a%2Fb%3D1", "0-299"),
        ("PATCH", "/upload/2?_state=a%2Fb%3D2", "300-599"),
        ("PATCH", "/upload/3?_state=a%2Fb%3D3", "600-899"),
        ("PATCH", "/upload/4?_state=a%2Fb%3D4", "900-999"),
        ("PUT", f"/upload/5?_state=a%2Fb%3D5&digest={digest}", ""),
    ]


async def test_a_small_blob_goes_in_one_request(push):
    peer = UploadPeer()
    await push(peer, RegistrySettings())
    assert [method for method, _, _ in peer.requests] == ["HEAD", "POST", "PUT"]


async def test_a_stream_goes_in_one_patch_without_a_length(push):
    lengths = []

    async def note(_peer, request, _number):
        lengths.append(request.headers.get("Content-Length"))

    peer = UploadPeer(note)
    await push(peer, RegistrySettings(upload_mode=UploadMode.STREAM))
    assert lengths == [None]


async def test_the_least_size_of_a_chunk_is_kept(push):
    peer = UploadPeer(post_headers={"OCI-Chunk-Min-Length": "500"})
    await push(peer)
    assert [said for method, _, said in peer.requests if method == "PATCH"] == ["0-499", "500-999"]


async def test_a_registry_that_names_no_range_is_believed(push):
    await push(UploadPeer(ranges=False))


async def test_relative_locations_are_relative_to_the_request(push):
    peer = UploadPeer(location="session-{step}")
    await push(peer)
    assert peer.requests[2][1] == "/v2/team/model/blobs/uploads/session-1"


async def test_what_a_registry_kept_of_a_chunk_is_not_sent_again(push):
    async def keep_a_hundred(peer, request, number):
        if number != 2:
            return None
        peer.received += (await request.read())[:100]
        return web.Response(status=202, headers=peer.headers())

    peer = UploadPeer(keep_a_hundred)
    await push(peer)
    said = [said for method, _, said in peer.requests if method == "PATCH"]
    assert said == ["0-299", "300-599", "400-699", "700-999"]


@pytest.mark.parametrize("kept", [0, 120, 300])
async def test_after_a_server_error_the_upload_goes_on_from_what_arrived(push, kept):
    async def fail_once(peer, request, number):
        if number != 2:
            return None
        peer.received += (await request.read())[:kept]
        return web.Response(status=500)

    peer = UploadPeer(fail_once)
    await push(peer)
    said = [said for method, _, said in peer.requests if method == "PATCH"]
    assert said[2].startswith(f"{300 + kept}-")
    assert [method for method, _, _ in peer.requests].count("GET") == 1


async def test_after_a_lost_connection_the_upload_goes_on(push):
    async def hang_up(peer, request, number):
        if number == 2:
            peer.received += (await request.read())[:200]
            request.transport.abort()
            return web.Response()
        return None

    peer = UploadPeer(hang_up)
    await push(peer)
    assert ("PATCH", "500-799") in [(method, said) for method, _, said in peer.requests]


async def test_an_upload_out_of_step_is_brought_into_step(push):
    async def lose_some(peer, request, number):
        if number == 3:
            del peer.received[250:]

    peer = UploadPeer(lose_some)
    await push(peer)
    said = [said for method, _, said in peer.requests if method == "PATCH"]
    assert said == ["0-299", "300-599", "600-899", "250-549", "550-849", "850-999"]


async def test_what_quay_says_of_an_upload_is_understood(tmp_path, connect, cache):
    """Its empty answers are called pages, and when asked it counts a byte more than there is."""
    quirks = Quirks(
        upload_ranges="quay", empty_type="text/html; charset=utf-8", cut_received_bytes=250, cuts=2
    )
    async with FaultRegistry(tmp_path / "peer", quirks) as peer:
        target = cache.put(os.urandom(SIZE))
        remote = await connect(peer.host, settings=CHUNKED)
        assert await remote.push(target, cache) == SIZE
        assert peer.tally.cuts == 2
        assert peer.tally.blob("team/model", target.digest).received_bytes == SIZE
        assert await remote.exists(target)


async def test_an_upload_out_of_step_is_asked_for_its_state(push):
    """What a 416 itself says may be off by one."""

    async def lose_some(peer, request, number):
        if number == 2:
            del peer.received[250:]
            return web.Response(status=416, headers={**peer.headers(), "Range": "0-250"})
        return None

    peer = UploadPeer(lose_some)
    await push(peer)
    said = [said for method, _, said in peer.requests if method in ("PATCH", "GET")]
    assert said == ["0-299", "300-599", "", "250-549", "550-849", "850-999"]


async def test_a_registry_that_never_gets_on_is_given_up(push):
    async def fail(_peer, request, _number):
        await request.read()
        return web.Response(status=500)

    peer = UploadPeer(fail)
    with pytest.raises(RegistryServerError):
        await push(peer)
    assert peer.patches == 4


async def test_a_registry_that_keeps_nothing_is_given_up(push):
    async def forget(_peer, request, _number):
        await request.read()
        return web.Response(status=202, headers={"Range": "0-0"})

    peer = UploadPeer(forget)
    with pytest.raises(RegistryProtocolError, match="keeps nothing"):
        await push(peer)
    assert peer.patches == 4


@pytest.mark.parametrize("value", ["0-1000000", "5-299", "all of it"])
async def test_a_range_that_makes_no_sense_is_refused(push, value):
    async def boast(_peer, request, _number):
        await request.read()
        return web.Response(status=202, headers={"Range": value})

    with pytest.raises(RegistryProtocolError, match="claims"):
        await push(UploadPeer(boast))


@pytest.mark.parametrize("status", [401, 403])
async def test_who_may_not_send_anything_is_told_so(push, status):
    async def deny(_peer, request, _number):
        await request.read()
        return web.json_response(
            {"errors": [{"code": "DENIED", "message": "the quota is used up"}]}, status=status
        )

    peer = UploadPeer(deny)
    with pytest.raises(RegistryDeniedError, match="the quota is used up"):
        await push(peer)
    assert peer.patches == 1


async def test_an_upload_that_the_registry_forgot_can_begin_again_later(push):
    async def forget(_peer, request, _number):
        await request.read()
        return web.Response(status=404)

    with pytest.raises(RegistryStateError, match="no longer knows the upload"):
        await push(UploadPeer(forget))


async def test_a_body_that_is_too_large_says_what_to_set(push):
    async def refuse(_peer, request, _number):
        await request.read()
        return web.Response(status=413)

    with pytest.raises(RegistryRejectedError) as caught:
        await push(UploadPeer(refuse))
    assert "upload.chunk" in caught.value.hint


async def test_an_early_refusal_is_heard_while_the_body_is_on_its_way(serve, connect, cache):
    async def handler(request):
        if request.method == "PUT":
            return web.Response(status=413, headers={"Connection": "close"})
        headers = {"Location": "/upload"} if request.method == "POST" else {}
        return web.Response(status=202 if headers else 404, headers=headers)

    remote = await connect(await serve(handler))
    target = cache.put(os.urandom(16 << 20))
    with pytest.raises(RegistryRejectedError, match="413"):
        await remote.push(target, cache)


class EarlyPeer:
    """A registry that acknowledges a part of a body while the rest of it is on its way."""

    def __init__(self, part_bytes: int) -> None:
        self.part_bytes = part_bytes
        self.received = bytearray()
        self.stored: str | None = None
        self.patches = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while self.stored is None:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, target, _ = head.split(" ", 2)
                length = re.search(r"content-length: (\d+)", head.lower())
                status, ends = 202, False
                match method:
                    case "HEAD":
                        status = 404
                    case "GET":
                        status = 204
                    case "PATCH":
                        assert length is None
                        self.patches += 1
                        ends = await self.take(reader)
                    case "PUT":
                        self.received += await reader.readexactly(int(length[1]))
                        self.stored = digest_of(self.received)
                        assert parse_qs(urlsplit(target).query)["digest"] == [self.stored]
                        status = 201
                range_ = f"Range: 0-{max(len(self.received) - 1, 0)}\r\n"
                lines = f"HTTP/1.1 {status} -\r\nLocation: /upload\r\n{range_}"
                body = "" if status == 204 else "Content-Length: 0\r\n"
                writer.write(f"{lines}{body}\r\n".encode())
                await writer.drain()
                if ends:
                    return

    async def take(self, reader: asyncio.StreamReader) -> bool:
        """Take chunks (RFC 9112, 7.1) until there is enough; whether there were more."""
        most = len(self.received) + self.part_bytes
        while size := int(await reader.readline(), 16):
            content = await reader.readexactly(min(size, most - len(self.received)))
            self.received += content
            if len(self.received) == most:
                return True
            await reader.readexactly(2)
        await reader.readexactly(2)
        return False


async def test_what_is_acknowledged_while_the_body_is_on_its_way_is_not_sent_again(
    talk, connect, cache
):
    peer = EarlyPeer(12 << 20)
    settings = RegistrySettings(upload_mode=UploadMode.STREAM)
    remote = await connect(await talk(peer.talk), settings=settings)
    target = cache.put(os.urandom(32 << 20))
    await remote.push(target, cache)
    assert peer.stored == target.digest
    assert peer.patches == 3


async def test_a_refused_mount_is_used_as_the_upload(serve, connect, cache):
    peer = UploadPeer()

    async def lend(request):
        if request.method == "HEAD" and "/base/" in request.path:
            return web.Response(headers={"Content-Length": str(SIZE)})
        return await peer.handle(request)

    remote = await connect(await serve(lend), mount_from=("team/base",))
    target = cache.put(os.urandom(SIZE))
    assert await remote.push(target, cache) == SIZE
    posts = [path for method, path, _ in peer.requests if method == "POST"]
    assert len(posts) == 1
    assert f"mount={target.digest}" in posts[0].replace("%3A", ":")
    assert peer.stored == target.digest


@pytest.mark.parametrize("status", [401, 403, 408, 500])
async def test_a_lender_in_trouble_keeps_nobody_from_lending(serve, connect, cache, status):
    """Nor does it keep the blob from being sent."""
    asked = []

    async def lend(request):
        asked.append((request.method, request.path))
        if "/broken/" in request.path:
            return web.Response(status=status)
        if request.method == "HEAD" and "/base/" in request.path:
            return web.Response(headers={"Content-Length": str(SIZE)})
        if request.query.get("from") == "team/base":
            return web.Response(status=201)
        return await peer.handle(request)

    peer = UploadPeer()
    host = await serve(lend)
    remote = await connect(host, mount_from=("team/broken", "team/base"))
    target = cache.put(os.urandom(SIZE))
    assert await remote.push(target, cache) == 0
    assert remote.mounted_bytes == SIZE
    remote = await connect(host, "team/other", mount_from=("team/broken",))
    assert await remote.push(target, cache) == SIZE


@pytest.mark.parametrize("size", [SIZE, AT_ONCE_BYTES + SIZE], ids=["at once", "in pieces"])
async def test_a_source_that_ends_early_leaves_no_connection_to_confuse(
    serve, connect, cache, size
):
    class Short:
        async def exists(self, target):
            return True

        @asynccontextmanager
        async def fetch(self, target, *, offset=0):
            async with cache.fetch(target, offset=offset) as stream:

                async def first():
                    yield (await anext(stream))[:10]

                yield first()

    peer = UploadPeer()
    remote = await connect(await serve(peer.handle))
    target = cache.put(os.urandom(size))
    with pytest.raises(MismatchError, match=f"{size - 10} bytes before the end"):
        await remote.push(target, Short())
    assert peer.stored is None
    assert peer.requests[-1][0] == "DELETE"
    assert await remote.push(target, cache) == size


@pytest.mark.parametrize("size", [SIZE, AT_ONCE_BYTES + SIZE], ids=["at once", "in pieces"])
async def test_a_cancelled_push_ends_the_reading_of_its_source(serve, connect, cache, size):
    reading, closed = asyncio.Event(), asyncio.Event()

    class Slow:
        async def exists(self, target):
            return True

        @asynccontextmanager
        async def fetch(self, target, *, offset=0):
            async def stall():
                yield b"x"
                reading.set()
                await asyncio.Event().wait()

            try:
                yield stall()
            finally:
                closed.set()

    peer = UploadPeer()
    remote = await connect(await serve(peer.handle))
    push = asyncio.ensure_future(remote.push(cache.put(os.urandom(size)), Slow()))
    await asyncio.wait_for(reading.wait(), 5)
    push.cancel()
    with pytest.raises(asyncio.CancelledError):
        await push
    assert closed.is_set()
    assert peer.stored is None
