"""Endpoints are told of every event, in order, whatever they and kitd go through."""

import asyncio
import contextlib
import hashlib
import hmac
import json
import random

import pytest
from aiohttp import web

from kitd.config.address import Endpoint
from kitd.config.model import NotificationConfig
from kitd.ledger.retention import KEPT_WHATEVER_AGE
from kitd.outbox.sender import BATCH, MAX_UNRECORDED

HOUR_US = 3600 * 1_000_000


def at(endpoint, **fields):
    return NotificationConfig(url=Endpoint(endpoint.url), **fields)


async def test_events_come_in_their_order_from_now_on(live, endpoint):
    async with live() as life:
        await life.emit("before")
        life.endpoints["ci"] = at(endpoint)
        assert await life.reload() == {"ci": 1}
        await life.emit("kit.packed", "tag.moved")
        await life.emit("job.failed")

        assert await endpoint.types(3) == ["kit.packed", "tag.moved", "job.failed"]
        events = await endpoint.events(3)
        assert [int(event["sequence"]) for event in events] == [2, 3, 4]
        assert events[0]["data"] == {"n": "kit.packed"}
        headers, _ = endpoint.requests[0]
        assert headers["Content-Type"] == "application/cloudevents+json; charset=utf-8"
        assert "X-Kitd-Signature" not in headers
        await life.until(cursor=4, failures=0)


async def test_only_what_is_wanted_is_told(live, endpoint):
    async with live(ci=at(endpoint, types=("kit.*", "job.failed"))) as life:
        await life.emit("tag.moved", "kit.packed", "job.ready", "job.failed", "kit.pushed", "x")
        assert await endpoint.types(3) == ["kit.packed", "job.failed", "kit.pushed"]
        await life.until(cursor=5)


async def test_what_is_not_wanted_moves_the_cursor_now_and_then(live, endpoint):
    """So that what retention takes later is not taken for something that was missed."""
    async with live(ci=at(endpoint, types=("kit.*",))) as life:
        await life.emit(*["job.ready"] * (MAX_UNRECORDED + 100))
        row = await life.until(failures=0, cursor=MAX_UNRECORDED)
        assert row["error_code"] is None
    assert endpoint.requests == []
    assert MAX_UNRECORDED + BATCH < KEPT_WHATEVER_AGE


async def test_a_failure_is_tried_again_before_anything_else_is_told(live, endpoint):
    endpoint.answers.extend([(500, {}), (503, {}), (302, {"Location": endpoint.url}), (404, {})])
    async with live(ci=at(endpoint)) as life:
        await life.emit("a", "b")
        assert await endpoint.types(6) == ["a", "a", "a", "a", "a", "b"]
        assert life.delays == [0.5, 1.0, 2.0, 4.0]
        await life.until(cursor=2, failures=0, failing_since_us=None, error_message=None)
    bodies = [body for _, body in endpoint.requests]
    assert len(set(bodies[:5])) == 1


async def test_the_wait_begins_anew_after_a_good_answer(live, endpoint):
    endpoint.answers.extend([(500, {}), (500, {}), (200, {}), (500, {})])
    async with live(ci=at(endpoint)) as life:
        await life.emit("a", "b")
        await endpoint.events(5)
        assert life.delays == [0.5, 1.0, 0.5]


@pytest.mark.parametrize(("asked", "waited"), [("120", 120.0), ("99999", 3600.0), ("soon", 0.5)])
async def test_an_endpoint_says_when_to_come_back(live, endpoint, asked, waited):
    endpoint.answers.append((429, {"Retry-After": asked}))
    async with live(ci=at(endpoint)) as life:
        await life.emit("a")
        await endpoint.events(2)
        assert life.delays == [waited]


async def test_one_that_is_slow_holds_up_nobody_else(live, serve):
    slow, quick = await serve(), await serve()
    slow.open.clear()
    async with live(slow=at(slow), quick=at(quick)) as life:
        await life.emit("a", "b", "c")
        assert await quick.types(3) == ["a", "b", "c"]
        assert await slow.types(1) == ["a"]
        slow.open.set()
        assert await slow.types(3) == ["a", "b", "c"]


async def test_what_happened_while_kitd_was_away_is_told_then(live, endpoint):
    async with live(ci=at(endpoint)) as life:
        await life.emit("a")
        await life.until(cursor=1)
    async with live(ci=at(endpoint)) as life:
        await life.emit("b")
        assert await endpoint.types(2) == ["a", "b"]
        await life.until(cursor=2)


async def test_an_end_between_the_answer_and_the_cursor_is_a_repeat(live, endpoint):
    """The event is told again with the same id and to the byte, and nothing is left out."""
    async with live(ci=at(endpoint)) as life:
        endpoint.open.clear()
        await life.emit("a", "b")
        await endpoint.events(1)
    endpoint.open.set()
    async with live(ci=at(endpoint)):
        assert await endpoint.types(3) == ["a", "a", "b"]
    assert endpoint.requests[0][1] == endpoint.requests[1][1]


async def test_what_is_a_day_old_is_given_up_after_one_more_try(live, endpoint):
    endpoint.answers.append((500, {}))
    async with live(ci=at(endpoint, types=("kit.*",))) as life:
        old_us = life.clock.now_us() - 25 * HOUR_US
        await life.emit(*["kit.packed", "job.ready"] * 150, at_us=old_us)
        assert (await endpoint.events(1))[0]["type"] == "dev.kitd.kit.packed"
        await life.until(cursor=300, failures=1)
        await life.emit("kit.young")

        assert await endpoint.types(2) == ["kit.packed", "kit.young"]
        told = {"endpoint": "ci", "events": 150, "through": 300, "why": "too_old"}
        assert await life.dropped() == [told]
        await life.until(failures=0)


async def test_what_is_old_is_told_where_the_endpoint_is_well(live, endpoint):
    async with live(ci=at(endpoint)) as life:
        await life.emit("a", "b", at_us=life.clock.now_us() - 48 * HOUR_US)
        assert await endpoint.types(2) == ["a", "b"]
        await life.until(cursor=2)
        assert await life.dropped() == []


async def test_nobody_is_told_of_what_was_dropped(live, serve):
    """Each would make another one, for ever."""
    failing, well = await serve(), await serve()
    failing.answers.extend([(500, {})] * 3)
    async with live(a=at(failing), b=at(well)) as life:
        await life.emit("old", at_us=life.clock.now_us() - 25 * HOUR_US)
        await life.until("a", cursor=1)
        await life.emit("x")
        assert await well.types(2) == ["old", "x"]
        await life.until("a", failures=0)
        await life.until("b", cursor=3)
        assert len(await life.dropped()) == 1
    assert set(await failing.types(4)) == {"old", "x"}


async def test_what_the_ledger_forgot_is_counted(live, endpoint):
    endpoint.open.clear()
    async with live(ci=at(endpoint)) as life:
        await life.emit(*"abcde")
        await endpoint.events(1)
    async with live() as life:
        # Out of the configuration, out of the ledger: put it back as it was.
        await life.database.write(
            lambda c: c.execute("INSERT INTO outbox (name, cursor) VALUES ('ci', 0)").close()
        )
        await life.database.write(lambda c: c.execute("DELETE FROM events WHERE seq <= 3").close())
        endpoint.open.set()
        life.endpoints["ci"] = at(endpoint)
        await life.reload()
        assert await endpoint.types(3) == ["a", "d", "e"]
        told = {"endpoint": "ci", "events": 3, "through": 3, "why": "forgotten"}
        assert await life.dropped() == [told]


async def test_endpoints_come_go_and_move_while_it_runs(live, serve):
    one, two, three = [await serve() for _ in range(3)]
    async with live(a=at(one), b=at(two)) as life:
        await life.emit("x")
        await life.until("a", cursor=1)
        await life.until("b", cursor=1)
        # What a is not told of while it hangs, its new place is told of.
        one.open.clear()
        await life.emit("y")
        await one.events(2)
        await life.until("b", cursor=2)
        del life.endpoints["b"]
        life.endpoints["a"] = at(three)
        life.endpoints["c"] = at(two)
        assert await life.reload() == {"a": 1, "c": 2}
        assert await three.types(1) == ["y"]
        await life.emit("z")
        assert await three.types(2) == ["y", "z"]
        assert await two.types(3) == ["x", "y", "z"]
        names = await life.database.read("SELECT name FROM outbox ORDER BY name")
        assert [row["name"] for row in names] == ["a", "c"]


async def test_a_signature_says_who_and_when(live, endpoint, tmp_path):
    """The secret is read for each request."""
    path = tmp_path / "secret"
    path.write_text("the first secret of all\n")
    async with live(ci=at(endpoint, secret_file=path)) as life:
        await life.emit("a")
        await life.until(cursor=1)
        path.write_text("the second secret of all\n")
        await life.emit("b")
        await life.until(cursor=2)
        now_s = life.clock.now_us() // 1_000_000
        for secret, (headers, body) in zip(
            (b"the first secret of all", b"the second secret of all"),
            endpoint.requests,
            strict=True,
        ):
            time, mac = headers["X-Kitd-Signature"].split(",")
            signed = time.removeprefix("t=").encode() + b"." + body
            expected = hmac.new(secret, signed, hashlib.sha256).hexdigest()
            assert mac == f"sha256={expected}"
            assert abs(int(time.removeprefix("t=")) - now_s) < 30
        assert life.secrets.redact("the first secret of all") == "[redacted]"


async def test_without_its_secret_nothing_is_sent(live, endpoint, tmp_path):
    path = tmp_path / "secret"
    async with live(ci=at(endpoint, secret_file=path)) as life:
        await life.emit("a")
        row = await life.until(error_code="notification_file")
        assert str(path) in row["error_message"]
        assert endpoint.requests == []
        path.write_text("here it is: sixteen")
        assert await endpoint.types(1) == ["a"]
        await life.until(cursor=1, error_code=None)


async def test_an_endpoint_that_is_gone_is_asked_again_and_told_of(live, endpoint):
    endpoint.answers.extend([(410, {})] * 3)
    async with live(ci=at(endpoint)) as life:
        await life.emit("a")
        await endpoint.events(3)
        row = await life.until(error_code="notification_gone", failures=3)
        assert "gone" in row["error_message"]
        (failing,) = await life.ledger.failing(3)
        assert (failing.name, failing.failures) == ("ci", 3)
        assert failing.error.code == "notification_gone"
        assert await life.ledger.failing(4) == []
        await life.until(cursor=1, failures=0)


@pytest.mark.parametrize("place", ["url", "url_file"])
async def test_no_more_than_the_host_is_said(live, unused_tcp_port, tmp_path, place):
    url = f"http://127.0.0.1:{unused_tcp_port}/hooks/hunter2"
    path = tmp_path / "url"
    path.write_text(f"{url}?key=hunter3\n")
    config = NotificationConfig(**{place: Endpoint(url) if place == "url" else path})
    async with live(ci=config) as life:
        await life.emit("a")
        row = await life.until(error_code="notification_unreachable")
        assert f"http://127.0.0.1:{unused_tcp_port} " in row["error_message"]
        assert "hunter" not in str(row)


async def test_a_url_file_may_have_a_query(live, serve, tmp_path):
    asked = asyncio.Queue()

    async def handler(request):
        asked.put_nowait(request.path_qs)
        return web.Response()

    endpoint = await serve(handler)
    path = tmp_path / "url"
    path.write_text(f"{endpoint.url}?code=a%2Fb+c\n")
    async with live(ci=NotificationConfig(url_file=path)) as life:
        await life.emit("a")
        assert await asked.get() == "/hooks/kitd?code=a%2Fb+c"
        assert "code=a" not in life.secrets.redact(f"see {endpoint.url}?code=a%2Fb+c")


async def test_an_answer_s_body_is_nobody_s_business(live, serve):
    """One that never ends does not hold up the next event."""
    told = asyncio.Queue()

    async def handler(request):
        told.put_nowait(json.loads(await request.read())["data"]["n"])
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65536)
        except ConnectionError:
            return response

    endpoint = await serve(handler)
    async with live(ci=at(endpoint)) as life:
        await life.emit("a", "b")
        assert [await told.get(), await told.get()] == ["a", "b"]
        await life.until(cursor=2, failures=0)


async def test_one_that_does_not_answer_is_left_after_the_deadline(live, endpoint, monkeypatch):
    monkeypatch.setattr("kitd.outbox.post.DEADLINE_S", 0.2)
    endpoint.open.clear()
    async with live(ci=at(endpoint)) as life:
        await life.emit("a")
        row = await life.until(error_code="notification_timeout")
        assert "within 0.2 s" in row["error_message"]
        endpoint.open.set()
        await life.until(cursor=1, failures=0)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"hello\r\n\r\n",
        b"\x15\x03\x01\0\x02\x02\x16",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
        b"HTTP/1.1 99999999 OK\r\n\r\n",
        b"HTTP/1.1 -200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 7\r\n\r\nzz",
        b"HTTP/1.1 200 OK\r\n\0bad\xff: x\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 3000,
        b"HTTP/1.1 500 no\r\nSet-Cookie: \xff=;;=\r\nRetry-After: \xff\r\n\r\n",
        b"HTTP/1.1 503 no\r\nRetry-After: Mon, 01 Jan 0001 00:00:00 +2359\r\n\r\n",
        b"HTTP/1.1 503 no\r\nRetry-After: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 302 go\r\nLocation: http://[::1\r\n\r\n",
    ],
)
async def test_what_is_no_good_answer_is_a_failure(live, answer):
    """Whatever it is: nothing of it is repeated, and kitd goes on."""

    async def peer(reader, writer):
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(peer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        config = NotificationConfig(url=Endpoint(f"http://127.0.0.1:{port}/x"))
        async with live(ci=config) as life:
            await life.emit("a")
            row = await life.until(cursor=0, failures=3)
            assert row["error_code"] in ("notification_failed", "notification_refused")
            assert f"http://127.0.0.1:{port}" in row["error_message"]
            assert len(row["error_message"]) < 100


@pytest.mark.parametrize("seed", range(4))
async def test_nothing_is_missing_and_nothing_out_of_order(live, endpoint, seed):
    """Answers of every kind, ends at any moment, and events all the while."""
    draw = random.Random(seed)
    wanted, count = ("kit.*",), 0
    for _ in range(6):
        endpoint.answers.extend((draw.choice((200, 204, 429, 500)), {}) for _ in range(8))
        async with live(ci=at(endpoint, types=wanted)) as life:
            before = len(endpoint.requests)
            for _ in range(draw.randrange(4)):
                types = [draw.choice(("kit.packed", "job.ready")) for _ in range(5)]
                await life.emit(*types, "kit.packed")
                count += types.count("kit.packed") + 1
                # At least one is sent for each that happened, so nobody waits for ever.
                before += draw.randrange(2)
                await endpoint.events(before)
    endpoint.answers.clear()
    async with live(ci=at(endpoint, types=wanted)) as life:
        await life.emit("kit.last")
        rows = await life.database.read("SELECT seq, at_us FROM events WHERE type GLOB 'kit.*'")
        expected = [f"{'a' * 32}-{row['seq']}-{row['at_us']}" for row in rows]
        while (told := [event["id"] for event in await endpoint.events(1)])[-1] != expected[-1]:
            await endpoint.events(len(told) + 1)
    assert list(dict.fromkeys(told)) == expected
    assert len(rows) == count + 1


async def test_tls_that_is_none_says_so(live, endpoint):
    secure = NotificationConfig(url=Endpoint(endpoint.url.replace("http:", "https:")))
    async with live(ci=secure) as life:
        await life.emit("a")
        row = await life.until(error_code="notification_tls")
        assert "https://127.0.0.1" in row["error_message"]
