import asyncio

import pytest
from structlog.testing import capture_logs

from kitd.rpc.limit import Limits
from kitd.rpc.subscription import Progress


def code_of(message) -> str:
    return message["error"]["data"]["code"]


async def subscribe(client, **params):
    await client.call("events.subscribe", params)
    return (await client.receive())["result"]


async def test_replays_and_goes_live_in_order_without_a_gap(running):
    harness = await running()
    for _ in range(700):
        harness.events.append()
    client = harness.connect()
    assert await subscribe(client, from_seq=100) == {"subscription": 1, "head_seq": 700}
    seqs = []
    while len(seqs) < 1100:
        message = await client.receive()
        assert message["method"] == "events.event"
        assert message["params"]["subscription"] == 1
        seqs.append(message["params"]["event"]["seq"])
        # New ones arrive while the old ones are replayed.
        if len(harness.events.held) < 1200:
            harness.events.append()
    assert seqs == list(range(101, 1201))


async def test_without_a_cursor_only_what_is_new_comes(running):
    harness = await running()
    harness.events.append()
    client = harness.connect()
    await subscribe(client)
    harness.events.append(text="new")
    event = (await client.receive())["params"]["event"]
    assert event == {
        "seq": 2,
        "at": "2024-01-01T00:00:00.000Z",
        "type": "test.happened",
        "subject": "daemon",
        "data": {"text": "new"},
    }


async def test_only_wanted_events_come_and_the_others_are_read_once(running):
    harness = await running()
    client = harness.connect()
    await subscribe(client, from_seq=0, types=["wanted"])
    for n in range(600):
        harness.events.append(kind="wanted" if n % 100 == 0 else "other")
    seqs = [(await client.receive())["params"]["event"]["seq"] for _ in range(6)]
    assert seqs == [1, 101, 201, 301, 401, 501]
    await client.call("test.ping")
    await client.receive()
    reads = harness.events.reads
    harness.events.append(kind="wanted")
    await client.receive()
    assert harness.events.reads <= reads + 2


@pytest.mark.parametrize(
    ("from_seq", "code"), [(3, "cursor_truncated"), (11, "cursor_future"), (4, None), (10, None)]
)
async def test_a_cursor_outside_the_stream_is_an_error(running, from_seq, code):
    harness = await running()
    for _ in range(10):
        harness.events.append()
    harness.events.forget(4)
    client = harness.connect()
    await client.call("events.subscribe", {"from_seq": from_seq})
    message = await client.receive()
    assert "result" in message if code is None else code_of(message) == code


async def test_unsubscribing_ends_one_subscription(running):
    harness = await running()
    client = harness.connect()
    await subscribe(client)
    await subscribe(client)
    await client.call("events.unsubscribe", {"subscription": 1})
    assert (await client.receive())["result"] == {}
    harness.events.append()
    assert (await client.receive())["params"]["subscription"] == 2
    await client.call("events.unsubscribe", {"subscription": 1})
    assert code_of(await client.receive()) == "not_found"


async def test_subscriptions_are_bounded_and_make_room_when_they_end(running):
    client = (await running(Limits(subscriptions=2))).connect()
    await subscribe(client)
    await subscribe(client)
    await client.call("events.subscribe")
    assert code_of(await client.receive()) == "queue_full"
    await client.call("events.unsubscribe", {"subscription": 2})
    await client.receive()
    assert (await subscribe(client))["subscription"] == 3


async def test_a_reader_that_stops_reading_is_told_where_to_go_on(running, eventually):
    harness = await running(Limits(queued_messages=10, lag_s=0.1))
    client = harness.connect(receive_bytes=4096)
    await subscribe(client, from_seq=0)
    with capture_logs() as logs:
        for _ in range(2000):
            harness.events.append(text="x" * 1000)
        await eventually(lambda: any(entry["event"] == "rpc.lagged" for entry in logs))
    seqs = []
    while (message := await client.receive())["method"] == "events.event":
        seqs.append(message["params"]["event"]["seq"])
    assert message["method"] == "events.lagged"
    assert message["params"] == {"subscription": 1, "last_seq": len(seqs)}
    assert seqs == list(range(1, len(seqs) + 1))
    assert len(seqs) < 2000
    # The connection lives, and the stream goes on from there.
    await subscribe(client, from_seq=len(seqs))
    assert (await client.receive())["params"]["event"]["seq"] == len(seqs) + 1


async def test_a_slow_reader_that_goes_on_reading_gets_everything(running):
    harness = await running(Limits(queued_messages=4, queued_bytes=4096))
    client = harness.connect(receive_bytes=4096)
    await subscribe(client, from_seq=0)
    for _ in range(500):
        harness.events.append(text="x" * 1000)
    seqs = []
    for _ in range(500):
        seqs.append((await client.receive())["params"]["event"]["seq"])
        await asyncio.sleep(0)
    assert seqs == list(range(1, 501))


async def test_a_reader_that_retention_overtook_is_told(running):
    harness = await running(Limits(queued_messages=1, queued_bytes=1))
    client = harness.connect(receive_bytes=4096)
    await subscribe(client, from_seq=0)
    for _ in range(1000):
        harness.events.append(text="x" * 1000)
    assert (await client.receive())["params"]["event"]["seq"] == 1
    harness.events.forget(999)
    seqs = [1]
    while (message := await client.receive())["method"] == "events.event":
        seqs.append(message["params"]["event"]["seq"])
    assert message["params"] == {"subscription": 1, "last_seq": len(seqs)}


async def test_heartbeats_tell_a_quiet_stream_from_a_dead_one(running):
    harness = await running(Limits(heartbeat_s=0.02))
    client = harness.connect()
    await subscribe(client)
    await subscribe(client)
    for _ in range(3):
        message = await client.receive()
        assert (message["method"], message["params"]) == ("$/heartbeat", {"head_seq": 0})


async def test_there_is_no_heartbeat_without_a_subscription(running):
    harness = await running(Limits(heartbeat_s=0.02))
    client = harness.connect()
    await subscribe(client)
    assert (await client.receive())["method"] == "$/heartbeat"
    await client.call("events.unsubscribe", {"subscription": 1})
    while "result" not in (message := await client.receive()):
        assert message["method"] == "$/heartbeat"
    # Five intervals, in which one more would have come.
    await asyncio.sleep(0.1)
    await client.call("test.ping", request_id="next")
    assert (await client.receive())["id"] == "next"


async def test_progress_is_conflated_and_the_last_one_always_comes(running):
    harness = await running()
    client = harness.connect()
    await subscribe(client)
    await subscribe(client)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    count = 200
    for done in range(1, count + 1):
        harness.server.report(Progress(7, None, "push", done, count))
        await asyncio.sleep(0.002)
    took = loop.time() - begin
    seen = []
    while not seen or seen[-1]["bytes"] != count:
        message = await client.receive()
        assert message["method"] == "$/progress"
        seen.append(message["params"])
    assert seen[-1] == {"job": 7, "phase": "push", "bytes": count, "total": count}
    assert len(seen) <= 2 + took * 4
    assert [entry["bytes"] for entry in seen] == sorted({entry["bytes"] for entry in seen})


async def test_progress_goes_before_the_event_that_ends_the_job(running):
    harness = await running()
    client = harness.connect()
    await subscribe(client)
    harness.server.report(Progress(7, None, "push", 1, 2))
    assert (await client.receive())["params"]["bytes"] == 1
    harness.server.report(Progress(7, None, "push", 2, 2))
    harness.events.append(subject="job:7", kind="job.succeeded")
    assert (await client.receive())["params"]["bytes"] == 2
    assert (await client.receive())["params"]["event"]["type"] == "job.succeeded"


async def test_only_wanted_progress_comes(running):
    harness = await running()
    client = harness.connect()
    harness.server.report(Progress(8, None, "push", 1, 2))
    await subscribe(client, job=7)
    harness.server.report(Progress(8, None, "push", 2, 2))
    harness.server.report(Progress(7, None, "push", 1, 2))
    assert (await client.receive())["params"]["job"] == 7


async def test_looks_at_what_does_not_answer_hold_up_no_events(running):
    """Two of them wait for a disk or a registry; a third would wait for these, and nobody else."""
    server = await running()
    lookers = [server.connect() for _ in range(3)]
    for looker in lookers:
        await looker.call("test.look")
    await server.services.started.wait()
    reader = server.connect()
    await reader.call("test.list", request_id=7)
    assert (await reader.receive())["id"] == 7
    server.events.append()
    await reader.call("events.subscribe", {"from_seq": 0})
    assert (await reader.receive())["result"]["head_seq"] == 1
    assert (await reader.receive())["params"]["event"]["seq"] == 1
    server.services.release.set()
    for looker in lookers:
        assert (await looker.receive())["result"] == {"text": "released"}
