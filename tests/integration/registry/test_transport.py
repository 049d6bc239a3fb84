"""Peers that are broken, hostile, or not registries at all."""

import asyncio
import socket
import ssl
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from kitd import __version__
from kitd.content.verify import read
from kitd.errors import Disposition
from kitd.oci.descriptor import describe
from kitd.oci.media_type import OCI_MANIFEST
from kitd.registry.errors import (
    RegistryDeniedError,
    RegistryMismatchError,
    RegistryNotFoundError,
    RegistryProtocolError,
    RegistryRejectedError,
    RegistryServerError,
    RegistryTimeoutError,
    RegistryTlsError,
    RegistryUnreachableError,
)
from kitd.registry.request import Request
from kitd.registry.retry import TRIES
from kitd.registry.settings import PasswordFile, RegistrySettings
from kitd.registry.transport import Surroundings, Transport

CONTENT = b"ten bytes."
TARGET = describe("application/octet-stream", CONTENT)
MANIFEST = (
    b'{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"%s","size":2},"layers":[]}'
    % (TARGET.digest.encode())
)


async def fetch(remote) -> bytes:
    return await read(remote, TARGET, max_bytes=1000)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


# No registry there.


async def test_a_refused_connection_is_tried_five_times_and_can_be_retried_later(connect):
    host = f"127.0.0.1:{free_port()}"
    remote = await connect(host)
    with pytest.raises(RegistryUnreachableError, match=f"{host}: Connection refused") as caught:
        await remote.exists(TARGET)
    assert caught.value.disposition is Disposition.RETRY
    assert len(connect.delays) == TRIES - 1
    for delay_s, longest_s in zip(connect.delays, [0.5, 1, 2, 4], strict=True):
        assert 0 <= delay_s <= longest_s


async def test_a_host_name_that_does_not_exist_is_unreachable(connect):
    with pytest.raises(RegistryUnreachableError, match=r"registry\.invalid"):
        await (await connect("registry.invalid")).exists(TARGET)


@pytest.mark.parametrize("status", [200, 404])
async def test_a_web_page_is_not_taken_for_a_registry(serve, connect, status):
    async def handler(_request):
        page = "<html><title>Sign in to ACME</title></html>"
        return web.Response(text=page, content_type="text/html", status=status)

    host = await serve(handler)
    with pytest.raises(RegistryProtocolError, match="Sign in to ACME") as caught:
        await (await connect.client(RegistrySettings())).ping(host)
    assert f"is {host} really a registry?" in caught.value.hint


async def test_a_web_server_that_says_yes_to_everything_has_no_blobs(serve, connect):
    async def handler(_request):
        return web.Response(text="welcome", content_type="text/html")

    with pytest.raises(RegistryProtocolError, match="HTML"):
        await (await connect(await serve(handler))).exists(TARGET)


async def test_an_empty_answer_is_no_web_page_whatever_it_is_called(serve, connect):
    async def handler(_request):
        return web.Response(content_type="text/html")

    host = await serve(handler)
    await (await connect.client(RegistrySettings())).ping(host)
    # A page's answer to HEAD is empty, too.
    with pytest.raises(RegistryProtocolError, match="HTML"):
        await (await connect(host)).exists(TARGET)


async def test_what_is_no_http_at_all_is_said_so(talk, connect):
    async def greet(reader, writer):
        await reader.readline()
        writer.write(b"220 mail.example.com ESMTP\r\n")

    remote = await connect(await talk(greet))
    with pytest.raises(RegistryProtocolError, match="not HTTP"):
        await remote.exists(TARGET)


async def test_a_connection_that_closes_without_an_answer_is_unreachable(talk, connect):
    async def hang_up(_reader, _writer):
        pass

    remote = await connect(await talk(hang_up))
    with pytest.raises(RegistryUnreachableError):
        await remote.exists(TARGET)


# Silence.


@pytest.fixture
async def transport():
    """Open transports whose requests a test sends itself."""
    async with AsyncExitStack() as stack:

        async def start(host: str, **settings: Any) -> Transport:
            async def at_once(_delay_s: float) -> None:
                pass

            surroundings = Surroundings(sleep=at_once)
            opened = await Transport.open(host, RegistrySettings(**settings), surroundings)
            stack.push_async_callback(opened.close)
            return opened

        yield start


async def test_a_registry_that_says_nothing_times_out(talk, transport):
    async def listen(reader, _writer):
        await reader.read()

    sender = await transport(await talk(listen))
    request = Request(operation="wait", method="GET", url=sender.url(""), idle_s=0.05)
    with pytest.raises(RegistryTimeoutError, match="did not answer in time"):
        async with sender.send(request):
            pass


async def test_a_registry_that_stops_in_the_middle_times_out(talk, transport):
    async def falter(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nten")
        await reader.read()

    sender = await transport(await talk(falter))
    request = Request(operation="wait", method="GET", url=sender.url(""), idle_s=0.05)
    with pytest.raises(RegistryTimeoutError):
        async with sender.send(request) as response:
            await sender.read(response, operation="wait", max_bytes=100)


@asynccontextmanager
async def endless():
    """Open a body without an end."""

    async def chunks():
        while True:
            yield bytes(1 << 20)

    yield chunks()


async def test_a_registry_that_takes_no_more_of_a_body_times_out(talk, transport):
    async def stop_reading(reader, _writer):
        await reader.readuntil(b"\r\n\r\n")
        await hung_up.wait()

    hung_up = asyncio.Event()

    sender = await transport(await talk(stop_reading))
    request = Request(
        operation="send", method="PUT", url=sender.url("x"), content=endless, idle_s=0.05
    )
    try:
        with pytest.raises(RegistryTimeoutError):
            async with sender.send(request):
                pass
    finally:
        hung_up.set()


ESTABLISHED = "01"


def state_of(port):
    """Return the state of the connection from a local port: see proc_net(5)."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return next(row[3] for row in rows if row[1].endswith(f":{port:04X}"))


async def test_a_connection_that_takes_no_more_of_a_body_is_gone_with_its_request(talk, transport):
    """A peer that reads nothing keeps no socket of ours."""
    ports, ended = [], asyncio.Event()

    async def stop_reading(reader, writer):
        ports.append(writer.get_extra_info("peername")[1])
        await reader.readuntil(b"\r\n\r\n")
        await ended.wait()

    sender = await transport(await talk(stop_reading))
    request = Request(
        operation="send", method="PUT", url=sender.url("x"), content=endless, idle_s=0.05
    )
    try:
        with pytest.raises(RegistryTimeoutError):
            async with sender.send(request):
                pass
        await asyncio.sleep(0)
        assert state_of(ports[0]) != ESTABLISHED
    finally:
        ended.set()


@pytest.mark.parametrize("is_secure", [False, True])
async def test_an_answer_that_is_none_in_the_middle_of_a_body_is_told(
    talk, transport, pki, is_secure
):
    """The library gives up the connection, and so does whoever sent the body."""

    async def babble(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"garbage\r\n\r\n")
        await writer.drain()
        await told.wait()
        writer.transport.abort()

    told = asyncio.Event()
    options, settings = {}, {}
    if is_secure:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pki / "registry.pem", pki / "registry.key")
        options, settings = {"ssl": context}, {"plain_http": False, "ca_file": pki / "ca.pem"}
    sender = await transport(await talk(babble, **options), **settings)
    request = Request(operation="send", method="PUT", url=sender.url("x"), content=endless)
    with pytest.raises(RegistryProtocolError, match="not HTTP"):
        async with sender.send(request):
            pass
    told.set()
    await asyncio.sleep(0.1)


async def test_a_slow_body_has_all_the_time_it_needs(serve, transport):
    async def handler(request):
        await request.read()
        return web.Response(status=201)

    @asynccontextmanager
    async def drops():
        async def chunks():
            for _ in range(15):
                await asyncio.sleep(0.05)
                yield b"drop"

        yield chunks()

    sender = await transport(await serve(handler))
    request = Request(
        operation="send", method="PUT", url=sender.url("x"), content=drops, idle_s=0.5
    )
    async with sender.send(request) as response:
        assert response.status == 201


async def test_a_request_that_is_cancelled_twice_sends_nothing_of_another_file(
    talk, transport, cache, tmp_path
):
    """The file is closed once no thread sends it: its descriptor's number is soon another's."""
    go_on, ended, received = asyncio.Event(), asyncio.Event(), bytearray()

    async def read_late(reader, _writer):
        await reader.readuntil(b"\r\n\r\n")
        await go_on.wait()
        while chunk := await reader.read(1 << 20):
            received.extend(chunk)
        ended.set()

    streams = []

    @asynccontextmanager
    async def opened():
        async with cache.fetch(target) as stream:
            streams.append(stream)
            yield stream

    other = tmp_path / "other"
    other.write_bytes(b"secret" * (8 << 20))
    target = cache.put(b"b" * (32 << 20))
    sender = await transport(await talk(read_late))
    request = Request(
        operation="send",
        method="PUT",
        url=sender.url("x"),
        headers={"Content-Length": str(target.size)},
        content=opened,
    )

    async def send():
        async with sender.send(request):
            pass

    sending = asyncio.create_task(send())
    # Until the socket is full: what a thread finds no room for in half a second waits for some.
    left = None
    while not streams or left != streams[0].sendable:
        left = streams[0].sendable if streams else None
        await asyncio.sleep(0.5)
    sending.cancel()
    await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    with other.open("rb"):
        go_on.set()
        async with asyncio.timeout(10):
            await ended.wait()
    assert set(received) == {ord("b")}


@pytest.mark.parametrize("announced", [True, False])
async def test_a_connection_is_kept_after_a_large_body(serve, transport, cache, announced):
    connections, sizes = set(), []

    async def handler(request):
        connections.add(request.transport)
        size = 0
        async for chunk in request.content.iter_any():
            size += len(chunk)
        sizes.append(size)
        return web.Response(status=201)

    target = cache.put(bytes(9 << 20))
    sender = await transport(await serve(handler))
    length = {"Content-Length": str(target.size)} if announced else {}
    request = Request(
        operation="send",
        method="PUT",
        url=sender.url("x"),
        headers=length,
        content=lambda: cache.fetch(target),
    )
    for _ in range(10):
        async with sender.send(request):
            pass
    assert sizes == [target.size] * 10
    assert len(connections) == 1


# TLS.


async def test_tls_with_an_own_authority(start_docker_registry, connect, cache, pki):
    tls = {"certificate": str(pki / "registry.pem"), "key": str(pki / "registry.key")}
    host = start_docker_registry(http={"tls": tls}).host
    target = cache.put(CONTENT)

    trusting = await connect(
        host, settings=RegistrySettings(plain_http=False, ca_file=pki / "ca.pem")
    )
    await trusting.push(target, cache)
    assert await fetch(trusting) == CONTENT

    strict = await connect(host, settings=RegistrySettings(plain_http=False))
    with pytest.raises(RegistryTlsError, match="certificate is not trusted") as caught:
        await strict.exists(target)
    assert "ca_file" in caught.value.hint
    assert caught.value.disposition is Disposition.FAIL

    confused = await connect(host)
    with pytest.raises(RegistryTlsError) as caught:
        await fetch(confused)
    assert "plain_http: false" in caught.value.hint


async def test_tls_with_a_client_certificate(serve, connect, pki):
    async def handler(_request):
        return web.Response(headers={"Content-Length": "10"})

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pki / "ca.pem")
    context.load_cert_chain(pki / "registry.pem", pki / "registry.key")
    context.verify_mode = ssl.CERT_REQUIRED
    host = await serve(handler, ssl=context)
    settings = RegistrySettings(
        plain_http=False,
        ca_file=pki / "ca.pem",
        client_cert=pki / "registry.pem",
        client_key=pki / "registry.key",
    )
    assert await (await connect(host, settings=settings)).exists(TARGET)


async def test_tls_to_a_plain_registry_says_what_to_set(docker_registry, connect):
    remote = await connect(docker_registry.host, settings=RegistrySettings(plain_http=False))
    with pytest.raises(RegistryTlsError) as caught:
        await remote.exists(TARGET)
    assert "plain_http: true" in caught.value.hint


async def test_a_missing_ca_file_is_named(connect, tmp_path):
    settings = RegistrySettings(ca_file=tmp_path / "no.pem")
    with pytest.raises(RegistryTlsError, match=r"no\.pem"):
        await connect("registry.example.com", settings=settings)


async def test_a_proxy_is_gone_through(talk, connect):
    asked = []

    async def forward(reader, writer):
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")

    settings = RegistrySettings(plain_http=True, proxy=f"http://ada:pw@{await talk(forward)}")
    remote = await connect("registry.example.com", settings=settings)
    assert await remote.exists(TARGET)
    assert asked[0].startswith("HEAD http://registry.example.com/v2/team/model/blobs/sha256:")
    assert "Proxy-Authorization: Basic YWRhOnB3" in asked[0]


# Redirects.


@pytest.fixture
def with_password(tmp_path) -> RegistrySettings:
    (tmp_path / "password").write_text("s3cret")
    return RegistrySettings(credentials=PasswordFile("ada", tmp_path / "password"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", None])
async def test_a_redirect_to_another_origin_gets_no_authorization(
    serve, connect, with_password, host
):
    """Another port is another origin, and another name for the same place is one, too."""
    strangers = []

    async def storage(request):
        strangers.append(request.headers.get("Authorization"))
        return web.Response(body=CONTENT)

    port = (await serve(storage)).rpartition(":")[2]

    async def handler(request):
        if request.path == "/signed":
            return await storage(request)
        if "Authorization" not in request.headers:
            return web.Response(status=401, headers={"WWW-Authenticate": "Basic realm=x"})
        site = f"{host}:{port}" if host else f"localhost:{own.rpartition(':')[2]}"
        return web.Response(status=307, headers={"Location": f"http://{site}/signed?a=b%2Fc"})

    own = await serve(handler)
    remote = await connect(own, settings=with_password)
    assert await fetch(remote) == CONTENT
    assert strangers == [None]


async def test_a_challenge_from_another_origin_is_not_answered(serve, connect, with_password):
    strangers = []

    async def storage(request):
        strangers.append(request.headers.get("Authorization"))
        return web.Response(status=401, headers={"WWW-Authenticate": "Basic realm=x"})

    elsewhere = await serve(storage)

    async def handler(_request):
        return web.Response(status=307, headers={"Location": f"http://{elsewhere}/"})

    remote = await connect(await serve(handler), settings=with_password)
    with pytest.raises(RegistryDeniedError):
        await fetch(remote)
    assert strangers == [None]


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("/again", "more than 5 times"),
        ("ftp://127.0.0.1/x", "not an HTTP URL"),
        ("http://ada:pw@127.0.0.1/x", "credentials"),
        ("http://[broken", "not a URL"),
    ],
)
async def test_a_redirect_that_leads_nowhere_is_refused(serve, connect, location, reason):
    seen = Counter()

    async def handler(request):
        seen["all"] += 1
        return web.Response(status=302, headers={"Location": location})

    with pytest.raises(RegistryProtocolError, match=reason):
        await fetch(await connect(await serve(handler)))
    assert seen["all"] <= 6


# Answers.


@pytest.mark.parametrize(
    ("status", "error", "tries"),
    [
        (400, RegistryRejectedError, 1),
        (403, RegistryDeniedError, 1),
        (404, RegistryNotFoundError, 1),
        (408, RegistryTimeoutError, 5),
        (500, RegistryServerError, 5),
        (501, RegistryServerError, 1),
        (503, RegistryServerError, 5),
        (524, RegistryServerError, 5),
    ],
)
async def test_only_what_may_pass_is_tried_again(serve, connect, status, error, tries):
    seen = Counter()

    async def handler(_request):
        seen["all"] += 1
        body = {"errors": [{"code": "SOME_CODE", "message": "said the registry"}]}
        return web.json_response(body, status=status)

    with pytest.raises(error, match="SOME_CODE: said the registry"):
        await fetch(await connect(await serve(handler)))
    assert seen["all"] == tries


@pytest.mark.parametrize("cut", [False, True], ids=["503", "cut"])
async def test_a_write_that_may_be_done_twice_is_sent_again_and_a_blob_is_not(
    serve, connect, cache, cut
):
    """What arrived of a blob is for its upload to find out."""
    seen = Counter()

    async def handler(request):
        seen[request.method] += 1
        match request.method:
            case "HEAD":
                return web.Response(status=404)
            case "POST" if seen["POST"] == 2:
                return web.Response(status=202, headers={"Location": "/upload"})
        if cut:
            request.transport.abort()
        return web.Response(status=503)

    with pytest.raises((RegistryServerError, RegistryUnreachableError)):
        await (await connect(await serve(handler))).push(cache.put(CONTENT), cache)
    # The second HEAD asks whether the blob is there after all.
    assert seen == {"HEAD": 2, "POST": 2, "PUT": 1}


async def test_a_manifest_is_stored_again_where_it_is_unclear_whether_it_was(serve, connect, cache):
    stored = []

    async def handler(request):
        if request.method == "HEAD":
            return web.Response(status=404)
        stored.append(await request.read())
        if len(stored) == 1:
            request.transport.abort()
        return web.Response(status=201)

    remote = await connect(await serve(handler))
    await remote.push(cache.put(MANIFEST, OCI_MANIFEST), cache)
    assert stored == [MANIFEST, MANIFEST]


async def test_a_registry_that_learns_of_its_blobs_late_gets_some_time(serve, connect, cache):
    """So do those that link a blob twice at a time, and those that are not of one mind."""
    late = ["MANIFEST_BLOB_UNKNOWN", "DIGEST_INVALID"]
    stored = []

    async def handler(request):
        if request.method == "HEAD":
            return web.Response(status=404)
        stored.append(await request.read())
        if len(stored) < 3:
            return web.json_response({"errors": [{"code": code} for code in late]}, status=400)
        return web.Response(status=201)

    remote = await connect(await serve(handler))
    await remote.push(cache.put(MANIFEST, OCI_MANIFEST), cache)
    assert stored == [MANIFEST] * 3


async def test_a_failure_that_passes_is_not_noticed(serve, connect):
    answers = iter([502, 504, 200])

    async def handler(_request):
        return web.Response(status=next(answers), body=CONTENT)

    assert await fetch(await connect(await serve(handler))) == CONTENT


async def test_requests_say_who_asks_and_take_no_compression(serve, connect):
    headers = []

    async def handler(request):
        headers.append(request.headers)
        return web.Response(body=CONTENT)

    await fetch(await connect(await serve(handler)))
    assert headers[0]["User-Agent"] == f"kitd/{__version__}"
    assert headers[0]["Accept-Encoding"] == "identity"


# Content.


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "without a length"])
@pytest.mark.parametrize("body", [CONTENT[:-1], CONTENT + b"!"], ids=["shorter", "longer"])
async def test_content_of_another_size_is_refused(serve, connect, chunked, body):
    async def handler(_request):
        response = web.Response(body=body)
        if chunked:
            response.enable_chunked_encoding()
        return response

    remote = await connect(await serve(handler))
    with pytest.raises(RegistryMismatchError):
        async with remote.fetch(TARGET) as stream:
            _ = [chunk async for chunk in stream]


async def test_content_that_breaks_off_is_unreachable(talk, connect):
    async def break_off(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nten")

    remote = await connect(await talk(break_off))
    with pytest.raises(RegistryUnreachableError, match="cut off"):
        await fetch(remote)


async def test_compressed_content_is_refused(serve, connect):
    async def handler(_request):
        return web.Response(body=CONTENT, headers={"Content-Encoding": "gzip"})

    with pytest.raises(RegistryProtocolError, match="gzip"):
        await fetch(await connect(await serve(handler)))


async def test_a_registry_that_ignores_ranges_is_skipped_through(serve, connect):
    async def handler(_request):
        return web.Response(body=CONTENT)

    remote = await connect(await serve(handler))
    async with remote.fetch(TARGET, offset=4) as stream:
        assert b"".join([bytes(chunk) async for chunk in stream]) == CONTENT[4:]


@pytest.mark.parametrize("content_range", ["bytes 3-9/10", "bytes 4-8/10", "bytes */10", None])
async def test_a_part_that_was_not_asked_for_is_refused(serve, connect, content_range):
    async def handler(_request):
        headers = {"Content-Range": content_range} if content_range else {}
        return web.Response(status=206, body=CONTENT[4:], headers=headers)

    remote = await connect(await serve(handler))
    with pytest.raises((RegistryMismatchError, RegistryProtocolError)):
        async with remote.fetch(TARGET, offset=4) as stream:
            _ = [chunk async for chunk in stream]


# Manifests and tags.


@pytest.mark.parametrize("head", [200, 405])
@pytest.mark.parametrize("content_type", [OCI_MANIFEST, "application/json", "text/plain"])
async def test_a_manifest_is_read_where_its_headers_say_too_little(
    serve, connect, head, content_type
):
    async def handler(request):
        status = head if request.method == "HEAD" else 200
        return web.Response(status=status, body=MANIFEST, content_type=content_type)

    remote = await connect(await serve(handler))
    assert await remote.resolve("latest") == describe(OCI_MANIFEST, MANIFEST)


async def test_another_manifest_than_the_one_asked_for_is_refused(serve, connect):
    async def handler(_request):
        headers = {"Docker-Content-Digest": TARGET.digest}
        return web.Response(body=MANIFEST, content_type=OCI_MANIFEST, headers=headers)

    remote = await connect(await serve(handler))
    with pytest.raises(RegistryMismatchError):
        await remote.resolve("sha256:" + "0" * 64)


async def test_an_endless_manifest_is_not_read_to_its_end(serve, connect):
    async def handler(request):
        response = web.StreamResponse()
        await response.prepare(request)
        # Until the client hangs up.
        while request.method == "GET":
            await response.write(b" " * 65536)
        return response

    remote = await connect(await serve(handler))
    with pytest.raises(RegistryProtocolError, match="more than"):
        await remote.resolve("latest")


async def test_tags_are_followed_over_pages(serve, connect):
    pages = {None: (["a", "b"], "b"), "b": (["c"], "c"), "c": (None, None)}

    async def handler(request):
        names, last = pages[request.query.get("last")]
        link = f'</v2/team/model/tags/list?n=2&last={last}>; rel="next"'
        headers = {"Link": link} if last else {}
        return web.json_response({"name": "team/model", "tags": names}, headers=headers)

    remote = await connect(await serve(handler))
    assert [tag.name async for tag in remote.tags()] == ["a", "b", "c"]


async def test_pages_without_an_end_are_given_up(serve, connect):
    async def handler(_request):
        return web.json_response({"tags": ["a"]}, headers={"Link": '</again>; rel="next"'})

    remote = await connect(await serve(handler))
    with pytest.raises(RegistryProtocolError, match="pages"):
        async for _ in remote.tags():
            pass


@pytest.mark.parametrize(
    ("body", "link"),
    [
        (b'{"tags": ["../../etc"]}', None),
        (b'{"tags": [1]}', None),
        (b'{"tags": "a"}', None),
        (b"[]", None),
        (b'{"tags": []}', '<http://elsewhere.example/>; rel="next"'),
    ],
)
async def test_a_list_of_tags_that_makes_no_sense_is_refused(serve, connect, body, link):
    async def handler(_request):
        return web.Response(body=body, headers={"Link": link} if link else {})

    remote = await connect(await serve(handler))
    with pytest.raises(RegistryProtocolError):
        _ = [tag.name async for tag in remote.tags()]
