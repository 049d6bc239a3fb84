"""Hosts that are busy, failing or slow: when they are asked, and what waits for what."""

import asyncio
import os
import random
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web
from yarl import URL

from kitd.content.verify import read
from kitd.oci.descriptor import describe
from kitd.oci.reference import Repository
from kitd.registry.admission import MAX_HOSTS, Admissions
from kitd.registry.client import RegistryClient
from kitd.registry.errors import (
    RegistryMismatchError,
    RegistryRateLimitedError,
    RegistryServerError,
    RegistryUnreachableError,
)
from kitd.registry.governor import FAILURES, Closure, Lane, Outcome
from kitd.registry.request import Request
from kitd.registry.retry import NO_ANSWER, TRIES, outcome_of
from kitd.registry.settings import RegistrySettings
from kitd.registry.transport import Surroundings

CONTENT = b"ten bytes."
TARGET = describe("application/octet-stream", CONTENT)
ORIGIN = URL("http://registry.example.com")


def refused(closed):
    return RegistryRateLimitedError("closed", host="r", operation="x", retry_after_s=closed.for_s)


def slot(admissions, lane=Lane.SMALL, origin=ORIGIN):
    return admissions.slot(origin, lane, refusal=refused)


# The hosts' budgets.


async def test_in_a_storm_nobody_is_admitted_in_a_window_and_everybody_in_the_end():
    """Three of ten answers are a 429, each with a window of its own."""
    admissions, dice = Admissions(), random.Random(5)
    loop = asyncio.get_running_loop()
    clock = loop.time
    admitted, windows, under_way, most = [], [], 0, 0

    def begin_window(until_s):
        windows.append((clock(), until_s))

    async def ask():
        nonlocal under_way, most
        while True:
            async with slot(admissions) as settle:
                admitted.append(clock())
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(dice.uniform(0, 0.01))
                under_way -= 1
                if dice.random() >= 0.3:
                    settle(outcome_of(200, None))
                    return
                window_s = dice.uniform(0, 0.02)
                settle(outcome_of(429, window_s))
                # Who was admitted in the same turn of the loop goes on before this is called.
                loop.call_soon(begin_window, clock() + window_s)

    async with asyncio.TaskGroup() as group:
        for _ in range(60):
            group.create_task(ask())
    assert windows
    early = [t for t in admitted for start, end in windows if start < t < end]
    assert early == []
    assert most <= 8


async def test_whoever_gives_up_waiting_takes_no_slot_with_him():
    admissions = Admissions()
    async with AsyncExitStack() as stack:
        for _ in range(8):
            await stack.enter_async_context(slot(admissions))

        async def wait():
            async with slot(admissions):
                pass

        tasks = [asyncio.create_task(wait()) for _ in range(100)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
    # Half are cancelled while they wait, some of the others once they are admitted.
    tasks[1].cancel()
    tasks[3].cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(end, asyncio.CancelledError) for end in ended) == 52
    async with AsyncExitStack() as stack, asyncio.timeout(1):
        for _ in range(8):
            await stack.enter_async_context(slot(admissions))


async def test_a_good_answer_to_a_download_lets_others_begin_before_it_ends():
    admissions = Admissions()
    for _ in range(FAILURES):
        async with slot(admissions) as settle:
            settle(NO_ANSWER)
    assert admissions.closed()[ORIGIN].closure is Closure.FAILING
    async with asyncio.timeout(10), slot(admissions, Lane.READING) as settle:
        settle(Outcome())
        async with slot(admissions):
            assert admissions.closed() == {}


async def test_hosts_beyond_the_bound_are_forgotten_the_open_ones_first():
    admissions = Admissions()
    async with slot(admissions) as settle:
        settle(outcome_of(429, 3600))
    for number in range(2 * MAX_HOSTS):
        async with slot(admissions, origin=URL(f"http://storage-{number}.example.com")):
            pass
    assert list(admissions.closed()) == [ORIGIN]


@pytest.mark.parametrize(
    ("registry", "origin"),
    [
        ("registry.example.com", "https://registry.example.com"),
        ("registry.example.com:443", "https://registry.example.com:443"),
        ("docker.io", "https://registry-1.docker.io"),
        ("127.0.0.1", "http://127.0.0.1"),
        ("[::1]:5000", "http://[::1]:5000"),
    ],
)
async def test_a_host_is_called_what_references_call_it(registry, origin):
    surroundings = Surroundings(environment={})
    async with RegistryClient(lambda _: RegistrySettings(), surroundings) as client:
        await client.repository(Repository(registry, "team/demo"))
        for place in (origin, "https://storage.example.com"):
            for _ in range(FAILURES):
                async with slot(surroundings.admissions, origin=URL(place)) as settle:
                    settle(NO_ANSWER)
        assert set(client.closed()) == {registry, "storage.example.com"}
        assert client.troubled()[registry] == {Closure.FAILING}


async def test_a_host_that_was_closed_is_in_trouble_until_it_proves_well():
    admissions = Admissions()
    for _ in range(FAILURES):
        async with slot(admissions) as settle:
            settle(NO_ANSWER)
    async with slot(admissions):
        # The breaker is open no longer, and this request has no answer yet.
        assert admissions.troubled() == {ORIGIN: {Closure.FAILING}}
    assert admissions.closed() == {}
    assert admissions.troubled() == {ORIGIN: {Closure.FAILING}}
    async with slot(admissions) as settle:
        settle(Outcome())
    assert admissions.troubled() == {}


# What is sent, and when.


async def test_a_registry_that_asks_for_a_second_gets_it_and_then_an_answer(serve, connect):
    arrived = []

    async def handler(_request):
        arrived.append(time.monotonic())
        if len(arrived) == 1:
            return web.Response(status=429, headers={"Retry-After": "1"})
        return web.Response(headers={"Content-Length": "10"})

    remote = await connect(await serve(handler))
    async with asyncio.TaskGroup() as group:
        group.create_task(remote.exists(TARGET))
        while not connect.admissions.closed():
            await asyncio.sleep(0)
        group.create_task(remote.exists(TARGET))
    assert len(arrived) == 3
    assert min(arrived[1:]) - arrived[0] >= 1.0


class Forbidding:
    """A registry that gives tokens, and asks for a second of silence at `/v2/busy`."""

    def __init__(self):
        self.is_waiting = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.arrived = []
        self.forbidden_s = None

    async def wait_for_the_window(self):
        self.is_waiting.set()
        await self.may_go_on.wait()

    async def answer(self, request):
        if request.path == "/token":
            await self.wait_for_the_window()
            return web.json_response({"token": "t", "expires_in": 300})
        if request.path == "/v2/busy":
            self.forbidden_s = time.monotonic()
            return web.Response(status=429, headers={"Retry-After": "1"})
        self.arrived.append(time.monotonic())
        if request.path == "/v2/secret" and "Authorization" not in request.headers:
            realm = f'Bearer realm="http://{request.host}/token",service="s"'
            return web.Response(status=401, headers={"WWW-Authenticate": realm})
        return web.Response(text=(await request.read()).decode())

    @asynccontextmanager
    async def content(self):
        """Open what a body is read from, which takes as long."""
        await self.wait_for_the_window()

        async def chunks():
            yield CONTENT

        yield chunks()


@pytest.mark.parametrize("path", ["secret", "open"])
async def test_a_request_that_was_admitted_before_a_window_is_not_sent_in_it(serve, connect, path):
    """It waited for its token, or for the source of its body."""
    registry = Forbidding()
    host = await serve(registry.answer)
    # Two clients, so that the other does not wait for the same token.
    transport, other = [(await connect(host))._transport for _ in range(2)]
    content = registry.content if path == "open" else CONTENT
    url = transport.url(path)
    request = Request(operation="send", method="PUT", url=url, content=content)

    async def send():
        async with transport.send(request) as response:
            assert await response.read() == CONTENT

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(send())
        await registry.is_waiting.wait()
        busy = Request(operation="ask", method="GET", url=transport.url("busy"), patient=False)
        with pytest.raises(RegistryRateLimitedError):
            async with other.send(busy):
                pass
        registry.may_go_on.set()
    early = [each for each in registry.arrived if 0 < each - registry.forbidden_s < 1.0]
    assert early == []


def in_two_minutes() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=120), usegmt=True)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("retry_after", [lambda: "119", in_two_minutes], ids=["seconds", "date"])
async def test_a_window_that_is_too_long_for_an_attempt_is_said_at_once_and_kept_for_all(
    serve, connect, status, retry_after
):
    seen = Counter()

    async def handler(request):
        seen[request.method] += 1
        body = {"errors": [{"code": "TOOMANYREQUESTS", "message": "you pull too much"}]}
        return web.json_response(body, status=status, headers={"Retry-After": retry_after()})

    remote = await connect(await serve(handler))
    with pytest.raises((RegistryRateLimitedError, RegistryServerError)) as caught:
        async with remote.fetch(TARGET):
            pass
    assert "you pull too much" in caught.value.message
    assert 100 < caught.value.retry_after_s <= 120

    with pytest.raises(RegistryRateLimitedError, match=r"wants no requests for 1\d\d s") as caught:
        await remote.resolve("latest")
    assert 100 < caught.value.retry_after_s <= 120
    assert seen == {"GET": 1}


async def test_a_registry_that_always_has_too_many_requests_gets_five_of_each(serve, connect):
    seen = Counter()

    async def handler(request):
        seen[request.method] += 1
        return web.Response(status=429, headers={"Retry-After": "0"})

    remote = await connect(await serve(handler))
    with pytest.raises(RegistryRateLimitedError) as caught:
        await remote.exists(TARGET)
    assert seen == {"HEAD": TRIES}
    assert caught.value.retry_after_s == 0


async def test_a_blob_is_sent_again_after_a_429_from_its_beginning(serve, connect, cache):
    sent = []

    async def handler(request):
        match request.method:
            case "HEAD":
                return web.Response(status=404)
            case "POST":
                return web.Response(status=202, headers={"Location": "/upload"})
        sent.append(await request.read())
        if len(sent) == 1:
            return web.Response(status=429, headers={"Retry-After": "0"})
        return web.Response(status=201)

    target = cache.put(os.urandom(1000))
    assert await (await connect(await serve(handler))).push(target, cache) == 1000
    assert len(sent) == 2
    assert sent[0] == sent[1]


async def test_a_registry_that_fails_is_left_alone_and_used_again_once_it_is_well(serve, connect):
    seen, failing = Counter(), True

    async def handler(request):
        seen["all"] += 1
        return web.Response(status=500 if failing else 200, body=CONTENT)

    host = await serve(handler)
    remote, client = await connect(host), await connect.client(RegistrySettings())
    with pytest.raises(RegistryServerError):
        await remote.exists(TARGET)
    with pytest.raises(RegistryServerError):
        await client.ping(host)
    assert seen["all"] == TRIES + 1 == FAILURES

    with pytest.raises(RegistryUnreachableError, match="failed 6 times in a row") as caught:
        await client.ping(host)
    assert 0 < caught.value.retry_after_s <= 1
    assert seen["all"] == FAILURES

    failing = False
    assert await remote.exists(TARGET)
    assert connect.admissions.closed() == {}
    await client.ping(host)


async def test_a_question_gets_through_beside_thirty_two_slow_uploads(serve, connect, cache):
    released, busy = asyncio.Event(), asyncio.Semaphore(0)
    uploads, most = 0, 0

    async def handler(request):
        nonlocal uploads, most
        match request.method:
            case "HEAD":
                known = request.path.endswith(TARGET.digest)
                return web.Response(status=200 if known else 404, headers={"Content-Length": "10"})
            case "POST":
                return web.Response(status=202, headers={"Location": "/upload"})
        await request.read()
        uploads += 1
        most = max(most, uploads)
        busy.release()
        await released.wait()
        uploads -= 1
        return web.Response(status=201)

    remote = await connect(await serve(handler))
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for number in range(32):
            group.create_task(remote.push(cache.put(b"%d" % number), cache))
        for _ in range(8):
            await busy.acquire()
        assert await remote.exists(TARGET)
        assert most == 8
        released.set()
    assert uploads == 0


async def test_a_copy_inside_one_registry_cannot_block_itself(docker_registry, connect, cache):
    targets = [cache.put(os.urandom(20_000)) for _ in range(40)]
    source = await connect(docker_registry.host, "team/source")
    copy = await connect(docker_registry.host, "team/copy")
    async with asyncio.timeout(50):
        async with asyncio.TaskGroup() as group:
            for target in targets:
                group.create_task(source.push(target, cache))
        async with asyncio.TaskGroup() as group:
            for target in targets:
                group.create_task(copy.push(target, source))
        assert all([await copy.exists(target) for target in targets])


# Whose trouble it is.


async def test_storage_that_fails_is_not_the_registrys_trouble(serve, talk, connect):
    cuts = 0

    async def hang_up(reader, writer):
        nonlocal cuts
        await reader.readuntil(b"\r\n\r\n")
        # Each try is two: a connection that was kept may be stale, and the HTTP library makes sure.
        if cuts < 2 * FAILURES:
            cuts += 1
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" + CONTENT)

    storage = await talk(hang_up)

    async def handler(request):
        if request.method == "HEAD":
            return web.Response(headers={"Content-Length": "10"})
        return web.Response(status=307, headers={"Location": f"http://{storage}/blob"})

    remote = await connect(await serve(handler))
    with pytest.raises(RegistryUnreachableError):
        await read(remote, TARGET, max_bytes=100)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read(remote, TARGET, max_bytes=100))
        while not connect.admissions.closed():
            await asyncio.sleep(0)
        assert list(connect.admissions.closed()) == [URL(f"http://{storage}")]
        assert await remote.exists(TARGET)
        assert not reading.done()
    assert reading.result() == CONTENT


async def test_a_source_that_fails_is_not_the_targets_trouble(serve, connect, cache):
    class Gone:
        async def exists(self, target):
            return True

        @asynccontextmanager
        async def fetch(self, target, *, offset=0):
            async def broken():
                yield b"x"
                raise RegistryUnreachableError("it is gone", host="elsewhere", operation="fetch")

            yield broken()

    async def handler(request):
        if request.method == "POST":
            return web.Response(status=202, headers={"Location": "/upload"})
        return web.Response(status=404)

    remote = await connect(await serve(handler))
    for _ in range(2 * FAILURES):
        with pytest.raises(RegistryUnreachableError, match="it is gone"):
            await remote.push(TARGET, Gone())
    assert connect.admissions.closed() == {}


async def test_downloads_that_break_off_and_get_on_do_not_close_a_host(talk, connect):
    async def break_off(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nten")

    remote = await connect(await talk(break_off))
    for _ in range(2 * FAILURES):
        with pytest.raises((RegistryUnreachableError, RegistryMismatchError)):
            async with remote.fetch(TARGET) as stream:
                _ = [chunk async for chunk in stream]
    assert connect.admissions.closed() == {}
