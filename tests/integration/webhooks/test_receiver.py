"""Every answer that a sender can get, and what is in the ledger when it has got it."""

import asyncio
import gzip
import json
import os
import random
import threading
from collections import Counter

import pytest

from kitd.ledger.delivery_ledger import unpack_body
from told import REGISTRY, SECRET, push, signed

SHORT = b"fifteen letters"
JOBS = "SELECT reference FROM jobs ORDER BY id"
ROWS = "SELECT source, name, state, reason, changes, jobs FROM deliveries ORDER BY id"


def events(sql, kind):
    found = sql("SELECT subject, data FROM events WHERE type = ? ORDER BY seq", kind)
    return [(subject, json.loads(data)) for subject, data in found]


async def test_an_authentic_delivery_is_a_row_and_its_jobs(post, sql):
    status, said = await post.send(push(tags=["v1", "v2"]), x_name="d1")
    assert (status, said) == (202, b"accepted\n")
    assert sql(JOBS) == [(f"{REGISTRY}/team/model:v1",), (f"{REGISTRY}/team/model:v2",)]
    assert sql(ROWS) == [("one", "d1", "accepted", None, 2, "[1, 2]")]


async def test_changes_that_nobody_follows_are_accepted(post, sql):
    """Each says why nothing followed."""
    assert (await post.send(push(tags=[])))[0] == 202
    assert (await post.send(push(tags=["quiet"])))[0] == 202
    assert (await post.send(push("other/model", tags=["quiet"])))[0] == 202
    assert (await post.send(push("other/model", tags=["quiet", "quiet"])))[0] == 202
    unread = f"no mirror reads {REGISTRY}/other/model"
    assert sql("SELECT state, reason, changes, jobs FROM deliveries ORDER BY id") == [
        ("accepted", "it tells of no change", 0, "[]"),
        ("accepted", "both ends of the mirror have it already, or it names no tag", 1, "[]"),
        ("accepted", unread, 1, "[]"),
        ("accepted", f"{unread} and 1 more", 2, "[]"),
    ]
    again = await post.desk.replay(3)
    assert (again.state, again.reason) == ("accepted", unread)


async def test_what_has_a_name_comes_once_in_a_day(post, sql, parts):
    first = push()
    assert (await post.send(first, x_name="d1"))[0] == 202
    assert await post.send(first, x_name="d1") == (200, b"duplicate\n")
    assert (await post.send(first, x_name="d2"))[0] == 202
    assert (await post.send(first, source="two", x_name="d1"))[0] == 202
    parts.clock.advance(24 * 3600 - 1)
    assert (await post.send(first, x_name="d1"))[0] == 200
    parts.clock.advance(2)
    assert (await post.send(first, x_name="d1"))[0] == 202
    assert len(sql(ROWS)) == 4


async def test_what_has_no_name_is_kept_once_in_ten_minutes_and_heard_each_time(
    post, sql, parts, database
):
    """It may be the same thing once more: what it asks for is asked for again."""
    body = push()
    assert (await post.send(body))[0] == 202
    assert (await post.send(body))[0] == 200
    assert len(sql(JOBS)) == 1
    await database.write(lambda connection: connection.execute("DELETE FROM jobs") and None)
    assert (await post.send(body))[0] == 200
    assert len(sql(JOBS)) == 1
    assert (await post.send(body, source="two"))[0] == 202
    assert (await post.send(push("team/other")))[0] == 202
    parts.clock.advance(601)
    assert (await post.send(body))[0] == 202
    assert len(sql(ROWS)) == 4


async def test_a_name_with_other_content_is_another_delivery(post, sql):
    """Names stand in headers that nobody signs."""
    assert (await post.send(push(), x_name="d1"))[0] == 202
    assert (await post.send(push("team/other"), x_name="d1"))[0] == 202
    assert (await post.send(push(), x_name="d1"))[0] == 200
    assert len(sql(ROWS)) == 2


async def test_a_clock_that_was_wrong_for_a_while_makes_nothing_a_duplicate(post, parts):
    """Rows of a future that was none hold for as long as all others, not until it comes."""
    parts.clock.advance(365 * 86_400)
    for name in ({}, {"x_name": "d1"}):
        assert (await post.send(push(), **name))[0] == 202
    parts.clock.advance(-365 * 86_400)
    for name in ({}, {"x_name": "d1"}):
        assert (await post.send(push(), **name))[0] == 202


async def test_what_there_is_nothing_to_act_on_is_a_row_without_its_body(post, sql):
    assert await post.send(b'{"ignore": 1}') == (200, b"ignored\n")
    assert sql(ROWS) == [("one", None, "ignored", "nothing to act on", 0, "[]")]
    assert sql("SELECT body FROM deliveries") == [(None,)]
    assert sql("SELECT count(*) FROM events") == [(0,)]


async def test_what_is_malformed_is_taken_kept_and_told(post, sql):
    assert await post.send(b"{") == (202, b"malformed\n")
    assert (await post.send(b"{"))[0] == 200
    assert sql(ROWS) == [("one", None, "malformed", "it is not JSON", 0, "[]")]
    told = {"source": "one", "delivery": 1, "reason": "it is not JSON"}
    assert events(sql, "webhook.malformed") == [("webhook:one", told)]


async def test_a_format_that_fails_is_our_fault_and_blocks_nobody(post, sql, caplog):
    status, said = await post.send(b'{"defect": 1}')
    assert (status, said) == (202, b"malformed\n")
    assert sql("SELECT reason FROM deliveries")[0][0].startswith("kitd failed to read it")


async def test_what_was_malformed_can_be_replayed_when_it_is_understood(post, parts, sql):
    await post.send(push(new=True))
    again = await post.desk.replay(1)
    assert (again.state, again.reason, again.replays) == ("malformed", "an unknown word", 1)
    assert sql(JOBS) == []
    parts.form.knows_new = True
    again = await post.desk.replay(1)
    assert (again.state, again.reason, again.changes, again.jobs) == ("accepted", None, 1, (1,))
    assert sql(JOBS) == [(f"{REGISTRY}/team/model:v1",)]
    told = [data for _, data in events(sql, "webhook.replayed")]
    assert [(data["state"], data["jobs"]) for data in told] == [
        ("malformed", []),
        ("accepted", [1]),
    ]


async def test_a_handshake_is_answered_and_not_kept(post, sql):
    assert await post.send(b'{"code": "1234"}') == (200, b"1234")
    headers = signed(b"", webhook_request_origin="events.example.com")
    async with post.client.options("/hooks/one", headers=headers) as response:
        assert response.status == 200
        assert response.headers["WebHook-Allowed-Origin"] == "events.example.com"
    assert sql(ROWS) == []


async def test_options_without_a_handshake_are_not_for_this(post, sql):
    async with post.client.options("/hooks/one", headers=signed(b"")) as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST")
    assert (await post.ask("OPTIONS", "/hooks/one"))[0] == 401
    assert (await post.ask("GET", "/hooks/one"))[0] == 405
    assert sql(ROWS) == []


@pytest.mark.parametrize(
    "path", ["/", "/hooks", "/hooks/", "/hooks/none", "/hooks/%00", "/hooks/.."]
)
async def test_nobody_of_that_name(post, sql, path):
    status, said = await post.ask("POST", path, b"{}")
    assert status in (404, 405)
    assert b"none" not in said
    assert sql(ROWS) == []


async def test_strangers_get_nothing_and_leave_nothing(post, sql):
    body = push()
    wrong = signed(body, secret=b"another")
    assert await post.ask("POST", "/hooks/one", body, wrong) == (401, b"")
    assert await post.ask("POST", "/hooks/one", body) == (401, b"")
    assert await post.ask("POST", "/hooks/one/hunter2", body) == (401, b"")
    assert await post.ask("POST", "/hooks/none/hunter2", body, wrong) == (404, b"")
    assert sql(ROWS) == []
    refused = post.desk.refusals
    assert (refused.by_source, refused.unknown) == ({"one": 3}, 1)


async def test_refusals_are_told_once_a_minute_with_how_many(post, sql, parts):
    for _ in range(5):
        assert (await post.ask("POST", "/hooks/one", b"{}"))[0] == 401
    parts.clock.advance(60)
    assert (await post.ask("POST", "/hooks/one", b"{}"))[0] == 401
    told = [data for _, data in events(sql, "webhook.refused")]
    assert told == [{"source": "one", "count": 1}, {"source": "one", "count": 5}]


async def test_the_secret_may_stand_in_the_path(post, sql):
    path = f"/hooks/one/{SECRET.decode()}"
    assert (await post.ask("POST", path, push()))[0] == 202
    assert len(sql(ROWS)) == 1


async def test_nothing_of_the_credential_is_kept(post, sql, database, parts):
    headers = {"authorization": SECRET.decode(), "cookie": SECRET.decode()}
    await post.send(push(), content_type="application/json", **headers)
    await post.ask("POST", f"/hooks/one/{SECRET.decode()}", b"{")
    rows = sql("SELECT * FROM deliveries") + sql("SELECT data FROM events")
    assert "horse" not in repr(rows)
    kept = [json.loads(headers).keys() for (headers,) in sql("SELECT headers FROM deliveries")]
    assert kept[0] == {"content-type", "user-agent"}
    assert parts.secrets.redact(f"/hooks/one/{SECRET.decode()}") == "/hooks/one/[redacted]"


async def test_what_gives_rights_in_a_body_is_not_kept(post, sql):
    """It is known when it comes again all the same, and can be replayed."""
    body = push(callback="hunter2")
    assert (await post.send(body))[0] == 202
    assert (await post.send(body))[0] == 200
    (packed,) = sql("SELECT body FROM deliveries")[0]
    assert json.loads(unpack_body(packed))["callback"] == "[redacted]"
    again = await post.desk.replay(1)
    assert (again.state, again.body_bytes, again.changes) == ("accepted", len(body), 1)


async def test_a_signature_is_over_the_bytes_of_the_wire(post, sql):
    body = gzip.compress(push())
    status, said = await post.send(body, content_encoding="gzip")
    assert (status, said) == (202, b"malformed\n")
    assert "Content-Encoding" in sql("SELECT reason FROM deliveries")[0][0]


async def test_a_large_body_is_read_like_a_small_one(post, sql):
    body = push(more="x" * 200_000)
    assert (await post.send(body))[0] == 202
    assert (await post.send(body))[0] == 200
    again = await post.desk.replay(1)
    assert (again.body_bytes, again.jobs) == (len(body), (1,))


async def test_the_sources_are_those_that_are_configured_now(post, parts):
    one = parts.sources.pop("one")
    assert (await post.send(push()))[0] == 404
    parts.sources["three"] = one
    assert (await post.send(push(), source="three"))[0] == 202


def make_directory(path):
    path.unlink()
    path.mkdir()


def make_pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b" \n"),
        lambda path: path.write_bytes(SHORT + b"\n"),
        lambda path: path.write_bytes(b"x" * 100_000),
        make_directory,
        make_pipe,
    ],
)
async def test_without_its_secret_nothing_is_judged(post, secret_file, spoil, sql):
    """An empty secret would let everybody in, and a short one whoever tries all there are."""
    spoil(secret_file)
    body = push()
    for secret in (b"", SHORT):
        headers = signed(body, secret)
        async with post.client.post("/hooks/one", data=body, headers=headers) as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "5")
    assert sql(ROWS) == []


async def test_a_secret_that_is_replaced_counts_at_once(post, secret_file):
    secret_file.write_bytes(b"battery staple correct")
    assert (await post.send(push()))[0] == 401
    body = push()
    assert (await post.ask("POST", "/hooks/one", body, signed(body, b"battery staple correct")))[
        0
    ] == 202


async def test_duplicates_at_the_same_time_are_one_delivery(post, sql):
    """Over sixteen connections, in any order: each delivery once, and one set of its jobs."""
    draw = random.Random(6)
    bodies = [push(f"team/model-{number}") for number in range(40)]
    sendings = [*enumerate(bodies)] * 8
    draw.shuffle(sendings)
    answers: Counter[int] = Counter()

    async def sender(share):
        for number, body in share:
            name = {"x_name": f"d{number}"} if number % 2 else {}
            answers[(await post.send(body, **name))[0]] += 1

    async with asyncio.TaskGroup() as group:
        for first in range(16):
            group.create_task(sender(sendings[first::16]))
    assert answers == {202: 40, 200: 280}
    assert len(sql(ROWS)) == len(sql(JOBS)) == 40


async def test_a_ledger_that_takes_too_long_is_busy_and_what_it_wrote_is_known(post, sql, database):
    """The sender is told to come again, and is told then that it came before."""
    release = threading.Event()
    stuck = asyncio.create_task(database.write(lambda _connection: release.wait(20)))
    body = push()
    try:
        async with post.client.post("/hooks/one", data=body, headers=signed(body)) as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "5")
    finally:
        release.set()
        await stuck
    assert (await post.send(body))[0] == 200
    assert len(sql(ROWS)) == len(sql(JOBS)) == 1


async def test_a_full_ledger_takes_nothing_and_says_so(post, sql, database):
    def fill(connection):
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    await database.write(fill)
    draw = random.Random(1)
    statuses = [
        (await post.send(push(more=draw.randbytes(20_000).hex()), x_name=str(number)))[0]
        for number in range(20)
    ]
    assert statuses[-1] == 503
    assert len(sql(ROWS)) == statuses.count(202)
    await database.write(lambda connection: connection.execute("PRAGMA max_page_count = 100000"))
    assert (await post.send(push(), x_name="after"))[0] == 202
