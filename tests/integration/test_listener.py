"""What clients of an HTTP listener can take: so many places, and those for so long."""

import asyncio
import socket
from collections import Counter
from contextlib import asynccontextmanager, closing
from dataclasses import replace

import pytest
from aiohttp import web

from kitd.config.address import TcpAddress
from kitd.listener import MAX_TURNED_AWAY, Bounds, listening

BOUNDS = Bounds(connections=8, keepalive_s=20.0, read_bytes=1 << 14)
LARGE = bytes(32 << 20)
"""More than the kernel keeps for who does not read."""


@asynccontextmanager
async def serve(bounds, answer, place=TcpAddress("127.0.0.1", 0)):  # noqa: B008 - a value
    application = web.Application()
    application.router.add_get("/", answer)
    async with listening(application, place, bounds, option="x.listen") as listener:
        yield listener.getsockname()


@pytest.fixture(params=["tcp", "unix"])
def place(request, tmp_path):
    """Where to listen: the kernel watches over readers at a port, and over none at a socket."""
    if request.param == "tcp":
        yield TcpAddress("127.0.0.1", 0)
        return
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "sock"))
        listener.listen()
        listener.setblocking(False)
        yield listener


async def say_hello(_request):
    return web.Response(text="hello")


def ask(place):
    """Connect and ask without a turn of the loop: the kernel alone answers."""
    family = socket.AF_UNIX if isinstance(place, str) else socket.AF_INET
    client = socket.socket(family)
    client.connect(place)
    client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    client.setblocking(False)
    return client


async def first_heard(client):
    """Return the version and the status of an answer; nothing where the connection just ended."""
    try:
        return (await asyncio.get_running_loop().sock_recv(client, 1000))[:12]
    except ConnectionError:
        return b""


async def was_answered(client):
    return await first_heard(client) == b"HTTP/1.1 200"


async def test_those_without_a_place_are_told_to_come_again_but_not_all_of_them():
    """Who is told has a descriptor for a moment: of a flood only so many are."""
    async with serve(BOUNDS, say_hello) as place, asyncio.timeout(20):
        clients = [ask(place) for _ in range(BOUNDS.connections + MAX_TURNED_AWAY + 20)]
        heard = Counter([await first_heard(client) for client in clients])
        assert heard.pop(b"HTTP/1.1 200") == BOUNDS.connections
        # One that has its answer and closes makes room for another.
        assert heard.pop(b"HTTP/1.1 503") == MAX_TURNED_AWAY
        assert heard.pop(b"") == 20
        for client in clients:
            client.close()


@pytest.mark.parametrize("idle_s", [None, 20.0])
@pytest.mark.parametrize("rounds", [1, 3])
async def test_of_many_who_come_at_once_so_many_are_let_in_as_there_are_places(rounds, idle_s):
    """All of them are accepted in one turn of the loop; those let in keep their places."""
    async with serve(replace(BOUNDS, idle_s=idle_s), say_hello) as place, asyncio.timeout(20):
        clients, let_in = [], []
        for _ in range(rounds):
            arriving = [ask(place) for _ in range(40)]
            clients += arriving
            let_in += [client for client in arriving if await was_answered(client)]
        assert len(let_in) == BOUNDS.connections
        for client in clients:
            client.close()


async def test_a_place_that_is_left_is_for_the_next():
    async with serve(BOUNDS, say_hello) as place, asyncio.timeout(20):
        for _ in range(5):
            arriving = [ask(place) for _ in range(BOUNDS.connections)]
            while not all([await was_answered(client) for client in arriving]):
                # Those who left are not gone at once.
                for client in arriving:
                    client.close()
                arriving = [ask(place) for _ in range(BOUNDS.connections)]
            for client in arriving:
                client.close()


async def test_who_never_reads_loses_his_place(place):
    """One place, a client that takes no byte of its answer, and one who waits for the place."""
    ended = asyncio.Event()

    async def pour(request):
        response = web.StreamResponse()
        try:
            await response.prepare(request)
            await response.write(LARGE)
        finally:
            ended.set()
        return response

    bounds = replace(BOUNDS, connections=1, unread_s=0.5)
    async with serve(bounds, pour, place) as address:
        with closing(ask(address)), closing(ask(address)) as other:
            async with asyncio.timeout(30):
                assert not await was_answered(other)
                await ended.wait()
                while True:
                    with closing(ask(address)) as third:
                        if await was_answered(third):
                            break


async def test_who_reads_slowly_keeps_his_place(place):
    """What takes longer than the bound is fine as long as some of it is taken now and then."""

    async def pour(_request):
        return web.Response(body=LARGE)

    async with serve(replace(BOUNDS, unread_s=0.5), pour, place) as address:
        with closing(ask(address)) as client:
            loop, taken = asyncio.get_running_loop(), 0
            began_s = loop.time()
            async with asyncio.timeout(40):
                while taken < len(LARGE):
                    # For a time of its own: the bound is what is tested.
                    if loop.time() - began_s < 2.0:
                        await asyncio.sleep(0.05)
                    heard = await loop.sock_recv(client, 1 << 20)
                    assert heard
                    taken += len(heard)


async def test_who_says_only_half_of_a_head_loses_his_place():
    async with serve(replace(BOUNDS, connections=1, keepalive_s=0.3), say_hello) as place:
        with closing(socket.create_connection(place)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHo")
            client.setblocking(False)
            async with asyncio.timeout(20):
                assert not await was_answered(client)
                while True:
                    with closing(ask(place)) as other:
                        if await was_answered(other):
                            break


async def test_who_is_idle_for_longest_leaves_his_place_to_who_comes():
    """And neither who has just been answered, nor who waits for an answer, nor who reads one."""
    slow = asyncio.Event()

    async def answer(request):
        if "slow" in request.query:
            await slow.wait()
        return web.Response(body=LARGE if "large" in request.query else b"hello")

    bounds = replace(BOUNDS, connections=4, idle_s=0.0)
    async with serve(bounds, answer) as place, asyncio.timeout(20):
        silent, asked = socket.create_connection(place), ask(place)
        assert await was_answered(asked)
        waiting, reading = socket.create_connection(place), socket.create_connection(place)
        waiting.sendall(b"GET /?slow HTTP/1.1\r\nHost: a\r\n\r\n")
        reading.sendall(b"GET /?large HTTP/1.1\r\nHost: a\r\n\r\n")
        for client in (silent, waiting, reading):
            client.setblocking(False)
        assert await first_heard(reading) == b"HTTP/1.1 200"

        with closing(ask(place)) as next_one:
            assert await first_heard(silent) == b"", "it was the first, and has asked for nothing"
            assert await was_answered(next_one)
            with closing(ask(place)) as another:
                assert await first_heard(asked) == b"", "it is idle since before the next one was"
                assert await was_answered(another)
        slow.set()
        assert await first_heard(waiting) == b"HTTP/1.1 200"
        left = len(LARGE)
        while left > 1000:
            left -= len(await asyncio.get_running_loop().sock_recv(reading, 1 << 20))
        for client in (silent, asked, waiting, reading):
            client.close()


async def test_a_defect_is_counted_as_the_answer_that_it_gets(caplog):
    async def defect(_request):
        raise ValueError("a defect")

    answers = Counter()
    application = web.Application()
    application.router.add_get("/", defect)
    place = TcpAddress("127.0.0.1", 0)
    async with listening(
        application, place, BOUNDS, option="x.listen", answers=answers
    ) as listener:
        with closing(ask(listener.getsockname())) as client:
            assert await first_heard(client) == b"HTTP/1.1 500"
    assert answers == {"5xx": 1}
    assert "a defect" in caplog.text


async def test_answers_are_counted_by_class_and_so_are_those_who_are_turned_away():
    answers = Counter()
    application = web.Application()
    application.router.add_get("/", say_hello)
    bounds = replace(BOUNDS, connections=1)
    place = TcpAddress("127.0.0.1", 0)
    async with listening(
        application, place, bounds, option="x.listen", answers=answers
    ) as listener:
        name = listener.getsockname()
        with closing(ask(name)) as first:
            assert await first_heard(first) == b"HTTP/1.1 200"
            first.sendall(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await first_heard(first) == b"HTTP/1.1 404"
            with closing(ask(name)) as second:
                assert await first_heard(second) == b"HTTP/1.1 503"

    assert answers == {"2xx": 1, "4xx": 1, "5xx": 1}
