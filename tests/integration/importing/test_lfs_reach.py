"""How far LFS servers lead kitd: nobody outside has it ask what is inside."""

import asyncio
import json
import socket

import pytest
from aiohttp import web as http
from yarl import URL

from kitd.hub.error import HubError
from kitd.hub.git_source import git_source
from kitd.hub.region import Region
from kitd.hub.tree import HubFile
from kitd.importing.git_program import GitProgram
from kitd.importing.lfs import LfsClient
from kitd.importing.web import Advice, Confines, Web
from kitd.secret import Secrets

FILE = HubFile(path="m.bin", size=10, blob="", sha256="a" * 64)
ADVICE = Advice("", "")
OUTSIDE = Confines("git.example.com", frozenset({Region.PUBLIC}))


@pytest.fixture
async def inside(stack):
    """A server on loopback, and what it was asked."""
    asked = []

    async def note(request):
        asked.append(request.path_qs)
        if request.path == "/away":
            raise http.HTTPFound(f"http://127.0.0.2:{port}/inside")
        return http.Response(body=b"internal!!")

    app = http.Application()
    app.router.add_route("*", "/{rest:.*}", note)
    runner = http.AppRunner(app)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    listener = socket.create_server(("0.0.0.0", 0))
    port = listener.getsockname()[1]
    await http.SockSite(runner, listener).start()
    return port, asked


@pytest.fixture
async def web(stack):
    return await stack.enter_async_context(Web(silence_s=5.0))


def ssh_that_answers(directory, href, header=None):
    answer = json.dumps({"href": href, "header": header or {"Authorization": "Bearer by-server"}})
    (directory / "ssh").write_text(f"#!/bin/sh\necho '{answer}'\n")
    (directory / "ssh").chmod(0o755)
    return {"PATH": f"{directory}:/usr/bin:/bin", "HOME": str(directory)}


@pytest.mark.parametrize(
    "href", ["http://127.0.0.1:{}/lfs", "https://127.0.0.1:{}/lfs", "https://localhost:{}/lfs"]
)
async def test_a_server_by_ssh_names_none_on_this_machine(web, inside, tmp_path, href):
    port, asked = inside
    environ = ssh_that_answers(tmp_path, href.format(port))
    source = git_source("git@git.example.com:team/x", None)
    client = LfsClient(source, web, GitProgram(environ), Secrets(), environ)
    with pytest.raises(HubError, match=r"without TLS|not public"):
        await client.fetch(FILE, tmp_path, lambda _: None)
    assert asked == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]"])
async def test_what_is_connected_to_is_what_is_judged(web, host):
    """Names as well as addresses: nothing that listens hears of it."""
    connected = asyncio.Event()

    async def heard(_reader, writer):
        connected.set()
        writer.close()

    server = await asyncio.start_server(heard, host=None, port=0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(HubError, match="not public"):
            async with web.get(URL(f"https://{host}:{port}/x"), lambda _: {}, ADVICE, OUTSIDE):
                pytest.fail("it was asked")
    assert not connected.is_set()


async def test_who_is_on_loopback_leads_to_others_there_and_no_further(web, inside):
    port, asked = inside
    near = Confines("127.0.0.1", await web.regions_open_to("127.0.0.1"))
    async with web.get(URL(f"http://localhost:{port}/a"), lambda _: {}, ADVICE, near) as answer:
        assert await answer.document(100) == b"internal!!"
    with pytest.raises(HubError, match="without TLS"):
        async with web.get(URL(f"http://127.0.0.1:{port}/away"), lambda _: {}, ADVICE, near):
            pytest.fail("it was asked")
    assert asked == ["/a", "/away"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "[::1]", "localhost"])
async def test_a_proxy_is_not_sent_to_an_address_that_is_inside(stack, inside, host):
    port, asked = inside
    proxied = await stack.enter_async_context(
        Web(proxy=lambda _: URL(f"http://127.0.0.1:{port}"), silence_s=5.0)
    )
    with pytest.raises(HubError, match="not public"):
        async with proxied.get(
            URL(f"https://{host}/x", encoded=True), lambda _: {}, ADVICE, OUTSIDE
        ):
            pytest.fail("it was asked")
    assert asked == []


async def test_whatever_a_header_is_called_its_value_is_not_repeated(web, inside, tmp_path):
    header = {"Authorization": "Bearer bearer-word", "X-Amz-Credential": "canary-of-16-chars"}
    environ = ssh_that_answers(tmp_path, f"http://127.0.0.1:{inside[0]}/lfs", header)
    source, secrets = git_source("git@localhost:team/x", None), Secrets()
    client = LfsClient(source, web, GitProgram(environ), secrets, environ)
    with pytest.raises(HubError):
        await client.fetch(FILE, tmp_path, lambda _: None)
    for secret in ("canary-of-16-chars", "bearer-word"):
        assert secrets.redact(f"<{secret}>") == "<[redacted]>"
