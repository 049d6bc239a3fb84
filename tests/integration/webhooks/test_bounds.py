"""What a stranger can take of kitd: little, and not for long."""

import asyncio
import random
import time

import aiohttp
import pytest
from structlog.testing import capture_logs

from kitd.webhooks.server import BOUNDS
from told import push, signed

MIB = 1 << 20
TOLD_MAX_BYTES = 300_000


def head(body_bytes=None, source="one", **headers):
    """Return the head of a delivery, with a length or in chunks."""
    length = f"Content-Length: {body_bytes}" if body_bytes is not None else None
    lines = [f"POST /hooks/{source} HTTP/1.1", "Host: a", length or "Transfer-Encoding: chunked"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def status_of(answer):
    return int(answer.split(b" ", 2)[1])


async def test_a_body_that_says_it_is_too_large_is_not_read(post, sql):
    """The answer comes although nothing of the body does, and the connection ends."""
    with capture_logs() as logged:
        answer = await post.raw(head(TOLD_MAX_BYTES + 1))
        assert status_of(await post.raw(head(TOLD_MAX_BYTES + 1))) == 413
    assert status_of(answer) == 413
    assert answer.endswith(b"\r\n\r\n")
    assert sql("SELECT 1 FROM deliveries") == []
    told = {"source": "one", "reason": "answered with HTTP 413", "log_level": "warning"}
    assert logged == [{"event": "webhook.body_refused", **told}], "once, and again in a minute"


async def test_a_body_that_turns_out_too_large_is_read_no_further(post):
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    answer = await post.raw(head() + chunk * 5)
    assert status_of(answer) == 413


async def test_the_largest_body_is_taken(post):
    body = push(x="")
    body = push(x="x" * (TOLD_MAX_BYTES - len(body)))
    assert len(body) == TOLD_MAX_BYTES
    assert (await post.send(body))[0] == 202


async def test_a_large_body_for_nobody_is_for_nobody(post):
    assert status_of(await post.raw(head(100 * MIB, source="none"))) == 404
    assert post.desk.refusals.unknown == 1


async def test_a_body_that_does_not_come_ends(listen):
    async with listen(idle_s=0.1) as post:
        began_s = time.monotonic()
        assert status_of(await post.raw(head(100) + b"x")) == 408
        assert time.monotonic() - began_s < 5
        assert (await post.send(push()))[0] == 202


async def test_a_body_that_comes_drop_by_drop_ends(listen):
    """Each drop is in time; all of them are not."""
    async with listen(idle_s=5, total_s=0.5) as post:
        reader, writer = await asyncio.open_connection(post.host, post.port)
        writer.write(head(100_000))

        async def drip():
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        async with asyncio.timeout(20):
            assert status_of(await reader.readline()) == 408
        dripping.cancel()
        writer.close()


async def test_bodies_have_room_together_and_give_it_back(listen):
    """Four that are held leave no room for a fifth, which is told to come again."""
    async with listen(held_bytes=400_000) as post:
        held = []
        for _ in range(4):
            _, writer = await asyncio.open_connection(post.host, post.port)
            writer.write(head(100_000) + bytes(99_000))
            held.append(writer)
        body = push(x="x" * 50_000)
        async with asyncio.timeout(20):
            while post.server._held_bytes < 4 * 99_000:
                await asyncio.sleep(0.01)
        async with post.client.post("/hooks/one", data=body, headers=signed(body)) as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "5")
        for writer in held:
            writer.close()
        async with asyncio.timeout(20):
            while post.server._held_bytes:
                await asyncio.sleep(0.01)
        assert (await post.send(body))[0] == 202


async def test_connections_beyond_the_bound_are_turned_away(post):
    """Half requests hold their places; when they go, deliveries are answered again."""
    begun = []
    for _ in range(BOUNDS.connections):
        _, writer = await asyncio.open_connection(post.host, post.port)
        writer.write(b"POST /hooks/one HTTP/1.1\r\nHo")
        begun.append(writer)
    # In the middle of a body, whose end nobody reads.
    answer = await post.raw(head(200_000) + bytes(100_000))
    assert status_of(answer) == 503
    assert b"\r\nRetry-After: 5\r\n" in answer
    for writer in begun:
        writer.close()
    async with asyncio.timeout(20):
        while True:
            try:
                status, _ = await post.send(push())
            except aiohttp.ClientError:
                status = 503
            if status == 202:
                break
            assert status == 503
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("seed", range(8))
async def test_bytes_that_are_no_deliveries_are_answered_and_forgotten(post, sql, seed, caplog):
    """A request with bytes changed, left out and added: an answer or an end, no traceback."""
    draw = random.Random(seed)
    body = push()
    good = head(len(body), **signed(body)) + body
    for _ in range(40):
        bad = bytearray(good)
        for _ in range(draw.randrange(1, 6)):
            place = draw.randrange(len(bad))
            match draw.randrange(3):
                case 0:
                    bad[place] = draw.randrange(256)
                case 1:
                    del bad[place : place + draw.randrange(1, 20)]
                case _:
                    bad[place:place] = draw.randbytes(draw.randrange(1, 20))
        reader, writer = await asyncio.open_connection(post.host, post.port)
        writer.write(bytes(bad))
        writer.write_eof()
        async with asyncio.timeout(20):
            try:
                answer = await reader.read()
            except ConnectionError:
                answer = b""
        writer.close()
        assert not answer or status_of(answer) in {200, 202, 400, 401, 404, 405, 408, 413, 417, 501}
    assert "Traceback" not in caplog.text
    assert (await post.send(push("after")))[0] == 202


async def test_a_sender_that_goes_away_leaves_nothing(post, sql):
    for cut in (b"", b"{", bytes(90_000)):
        _, writer = await asyncio.open_connection(post.host, post.port)
        writer.write(head(100_000) + cut)
        await writer.drain()
        writer.close()
    assert (await post.send(push()))[0] == 202
    async with asyncio.timeout(20):
        while post.server._held_bytes:
            await asyncio.sleep(0.01)
    assert sql("SELECT count(*) FROM deliveries") == [(1,)]


async def test_many_on_one_connection(post):
    """A sender that keeps its connection, and sends the next before the answer."""
    body = push()
    one = head(len(body), **signed(body)) + body
    last = head(len(body), Connection="close", **signed(body)) + body
    answer = await post.raw(one * 5 + last)
    assert answer.count(b"HTTP/1.1 202") == 1
    assert answer.count(b"HTTP/1.1 200") == 5


async def test_what_deliveries_came_to_is_counted_by_those_that_there_are(post):
    """Strangers who make up names are one name together."""
    body = push()
    for name in ("d1", "d1", "d2"):
        await post.send(body, x_name=name)
    await post.ask("POST", "/hooks/one", body, {"X-Signature": "wrong"})
    await post.raw(head(TOLD_MAX_BYTES + 1))
    for number in range(5):
        await post.send(body, source=f"made-up-{number}")

    assert post.server.verdicts == {
        ("one", "accepted"): 2,
        ("one", "duplicate"): 1,
        ("one", "refused"): 1,
        ("one", "unread"): 1,
        ("", "unknown"): 5,
    }
