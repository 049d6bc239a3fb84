import asyncio
import json
import os
import socket
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kitd.rpc.limit import Limits
from kitd.rpc.peer import AccessRule, Role

NOBODY = 65534


def code_of(message) -> str:
    return message["error"]["data"]["code"]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_call_is_answered_with_its_id(running):
    client = (await running()).connect()
    for request_id in (1, "one", "", 0, -5):
        await client.call("test.ping", request_id=request_id)
        assert await client.receive() == {"jsonrpc": "2.0", "id": request_id, "result": {}}


@pytest.mark.parametrize(
    ("name", "params", "number", "code"),
    [
        ("test.lose", {}, -33001, "not_found"),
        ("test.nope", {}, -32601, "method_not_found"),
        ("rpc.discover", {}, -32601, "method_not_found"),
        ("test.echo", {"text": 1}, -32602, "invalid_params"),
        ("test.echo", {"text": "x", "more": 1}, -32602, "invalid_params"),
        ("test.echo", ["x"], -32602, "invalid_params"),
        ("test.crash", {}, -32603, "internal"),
        ("test.fill", {"size": 5 << 20}, -33008, "too_large"),
    ],
)
async def test_errors_have_their_number_and_the_connection_goes_on(
    running, name, params, number, code
):
    client = (await running()).connect()
    await client.call(name, params)
    error = (await client.receive())["error"]
    assert (error["code"], error["data"]["code"]) == (number, code)
    await client.call("test.ping")
    assert "result" in await client.receive()


async def test_a_defect_tells_the_caller_where_to_look_and_nothing_else(running):
    client = (await running()).connect()
    with capture_logs() as logs:
        await client.call("test.crash")
        error = (await client.receive())["error"]
    assert "secret detail" not in json.dumps(error)
    (entry,) = (entry for entry in logs if entry["event"] == "rpc.call_failed")
    assert entry["reference"] in error["data"]["hint"]
    assert entry["exc_info"]


async def test_calls_that_change_something_are_logged_with_their_caller(running):
    client = (await running()).connect()
    with capture_logs() as logs:
        await client.call("test.ping")
        await client.receive()
        await client.call("test.echo", {"text": "secret"})
        await client.receive()
    (entry,) = (entry for entry in logs if entry["event"] == "rpc.call")
    assert entry["method"] == "test.echo"
    assert (entry["uid"], entry["pid"], entry["outcome"]) == (os.getuid(), os.getpid(), "ok")
    assert "secret" not in str(entry)


@pytest.mark.parametrize(
    "line", [b"nonsense\n", b"{}\n", b"[]\n", b"\xff\n", b'{"jsonrpc":"2.0","method":1}\n']
)
async def test_a_bad_line_is_answered_and_the_next_one_is_read(running, line):
    client = (await running()).connect()
    await client.send(line)
    assert (await client.receive())["id"] is None
    await client.call("test.ping")
    assert "result" in await client.receive()


async def test_a_line_may_come_in_pieces_and_many_in_one(running):
    client = (await running()).connect()
    line = b'{"jsonrpc":"2.0","id":1,"method":"test.ping"}\n'
    for byte in line:
        await client.send(bytes([byte]))
    assert (await client.receive())["id"] == 1
    await client.send(b"\n\r\n" + line + line.replace(b"1,", b"2,", 1))
    assert {(await client.receive())["id"] for _ in range(2)} == {1, 2}


async def test_an_endless_line_is_answered_and_the_connection_closed(running):
    client = (await running()).connect()
    await client.send(b"x" * ((1 << 20) + 1))
    message = await client.receive()
    assert (message["id"], code_of(message)) == (None, "too_large")
    assert await client.receive() is None


async def test_the_longest_line_is_read(running):
    client = (await running()).connect()
    line = b'{"jsonrpc":"2.0","id":1,"method":"test.ping"}'
    await client.send(line.ljust(1 << 20) + b"\n")
    assert "result" in await client.receive()


async def test_half_a_line_and_a_hang_up_do_nothing(running, eventually):
    harness = await running()
    before = open_files()
    client = harness.connect()
    await client.send(b'{"jsonrpc":"2.0","id":1,"method":"test.echo","params":{"text":"x"}}')
    client.close()
    await eventually(lambda: open_files() == before)
    assert harness.services.done == 0


async def test_a_batch_is_answered_together_and_in_order(running):
    client = (await running()).connect()
    calls = [
        {"jsonrpc": "2.0", "id": 1, "method": "test.echo", "params": {"text": "a"}},
        {"jsonrpc": "2.0", "method": "test.echo", "params": {"text": "b"}},
        7,
        {"jsonrpc": "2.0", "id": 2, "method": "test.lose"},
        {"jsonrpc": "2.0", "id": 3, "method": "events.subscribe"},
        {"jsonrpc": "2.0", "id": 4, "method": "test.open"},
    ]
    await client.send(json.dumps(calls).encode() + b"\n")
    answers = await client.receive()
    assert [answer["id"] for answer in answers] == [1, None, 2, 3, 4]
    assert answers[0]["result"] == {"text": "a"}
    assert [code_of(answer) for answer in answers[1:]] == [
        "invalid_request",
        "not_found",
        "invalid_request",
        "invalid_request",
    ]
    assert client.descriptors == []


async def test_a_batch_of_notifications_is_not_answered(running, eventually):
    harness = await running()
    client = harness.connect()
    note = {"jsonrpc": "2.0", "method": "test.echo", "params": {"text": "b"}}
    await client.send(json.dumps([note, note]).encode() + b"\n")
    await eventually(lambda: harness.services.done == 2)
    await client.call("test.ping", request_id="next")
    assert (await client.receive())["id"] == "next"


async def test_a_batch_whose_answers_are_too_large_together_says_which_do_not_fit(running):
    client = (await running()).connect()
    calls = [
        {"jsonrpc": "2.0", "id": n, "method": "test.fill", "params": {"size": 1 << 20}}
        for n in range(6)
    ]
    await client.send(json.dumps(calls).encode() + b"\n")
    answers = await client.receive()
    assert ["result" in answer for answer in answers] == [True] * 3 + [False] * 3
    assert {code_of(answer) for answer in answers[3:]} == {"too_large"}


async def test_notifications_are_done_and_not_answered_even_when_they_are_wrong(
    running, eventually
):
    harness = await running()
    client = harness.connect()
    await client.notify("test.nope", {})
    await client.notify("test.echo", {"text": 1})
    await client.notify("test.crash", {})
    await client.notify("test.open", {})
    await client.notify("$/cancelRequest", {"id": [1]})
    await client.notify("test.echo", {"text": "x"})
    await eventually(lambda: harness.services.done == 1)
    await client.call("test.ping", request_id="next")
    assert (await client.receive())["id"] == "next"


async def test_a_slow_call_does_not_hold_up_the_next(running):
    harness = await running()
    client = harness.connect()
    await client.call("test.wait", request_id="slow")
    await client.call("test.ping", request_id="fast")
    assert (await client.receive())["id"] == "fast"
    harness.services.release.set()
    assert (await client.receive())["id"] == "slow"


async def test_cancelling_ends_the_one_call_that_was_meant(running):
    harness = await running()
    client = harness.connect()
    await client.call("test.wait", request_id=1)
    await client.call("test.wait", request_id="1")
    await client.notify("$/cancelRequest", {"id": 1})
    message = await client.receive()
    assert (message["id"], message["error"]["code"]) == (1, -32800)
    harness.services.release.set()
    assert (await client.receive())["id"] == "1"


async def test_a_call_can_be_cancelled_in_the_same_breath(running):
    harness = await running()
    client = harness.connect()
    call = b'{"jsonrpc":"2.0","id":1,"method":"test.wait"}\n'
    cancel = b'{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":1}}\n'
    await client.send(call + cancel)
    assert code_of(await client.receive()) == "request_cancelled"


async def test_a_member_of_a_batch_can_be_cancelled_and_the_others_go_on(running):
    harness = await running()
    client = harness.connect()
    calls = [{"jsonrpc": "2.0", "id": n, "method": "test.wait"} for n in (1, 2)]
    calls.append({"jsonrpc": "2.0", "id": 3, "method": "test.ping"})
    await client.send(json.dumps(calls).encode() + b"\n")
    await harness.services.started.wait()
    for n in (2, 1):
        await client.notify("$/cancelRequest", {"id": n})
    answers = await client.receive()
    assert [answer["id"] for answer in answers] == [1, 2, 3]
    assert [code_of(answer) for answer in answers[:2]] == ["request_cancelled"] * 2
    assert harness.services.cancelled == 1


async def test_an_id_in_use_is_refused_until_it_is_answered(running):
    harness = await running()
    client = harness.connect()
    await client.call("test.wait", request_id=1)
    await client.call("test.ping", request_id=1)
    assert code_of(await client.receive()) == "invalid_request"
    harness.services.release.set()
    assert (await client.receive())["result"] == {"text": "released"}
    await client.call("test.ping", request_id=1)
    assert "result" in await client.receive()


async def test_hanging_up_cancels_what_only_waits(running, eventually):
    harness = await running(Limits(flush_s=0.05))
    client = harness.connect()
    await client.call("test.wait")
    await harness.services.started.wait()
    client.close()
    await eventually(lambda: harness.services.cancelled == 1)


async def test_who_sends_no_more_still_gets_the_answer(running):
    harness = await running()
    client = harness.connect()
    await client.call("test.wait")
    client.sock.shutdown(socket.SHUT_WR)
    await harness.services.started.wait()
    harness.services.release.set()
    assert (await client.receive())["result"] == {"text": "released"}
    assert await client.receive() is None


async def test_who_sends_no_more_does_not_wait_for_ever(running):
    harness = await running(Limits(half_open_s=0.05))
    client = harness.connect()
    await client.call("test.wait")
    client.sock.shutdown(socket.SHUT_WR)
    assert code_of(await client.receive()) == "request_cancelled"
    assert await client.receive() is None


async def test_calls_beyond_the_limit_are_refused_and_cancelling_still_works(running):
    harness = await running(Limits(calls=2))
    client = harness.connect()
    await client.call("test.wait", request_id=1)
    await client.call("test.wait", request_id=2)
    await client.call("test.ping", request_id=3)
    message = await client.receive()
    assert (message["id"], code_of(message)) == (3, "queue_full")
    assert message["error"]["data"]["retryable"]
    await client.notify("$/cancelRequest", {"id": 1})
    assert (await client.receive())["id"] == 1
    await client.call("test.ping", request_id=4)
    assert (await client.receive())["result"] == {}


async def test_a_user_has_a_limit_too_and_each_of_his_connections_one_call(running):
    harness = await running(Limits(calls_per_uid=2))
    busy, idle = harness.connect(), harness.connect()
    await busy.call("test.wait", request_id=1)
    await busy.call("test.wait", request_id=2)
    await busy.call("test.ping", request_id=3)
    message = await busy.receive()
    assert (message["id"], code_of(message)) == (3, "queue_full")
    await idle.call("test.ping", request_id=4)
    assert (await idle.receive())["result"] == {}
    await busy.notify("$/cancelRequest", {"id": 1})
    assert (await busy.receive())["id"] == 1
    await busy.call("test.ping", request_id=5)
    assert (await busy.receive())["result"] == {}


async def test_descriptors_come_with_the_first_byte_of_their_answer(running):
    harness = await running()
    client = harness.connect()
    await client.call("test.ping")
    await client.receive()
    before = open_files()
    await client.call("test.fill", {"size": 100_000}, request_id=1)
    await client.call("test.open", {"count": 32}, request_id=2)
    await client.call("test.ping", request_id=3)
    assert [(await client.receive())["id"] for _ in range(3)] == [1, 2, 3]
    assert len(client.descriptors) == 32
    for handle in client.descriptors:
        assert os.pread(handle, 100, 0) == b"the content of a layer"
        os.close(handle)
    assert open_files() == before


@pytest.mark.parametrize(
    ("params", "code"),
    [({"unspeakable": True, "count": 8}, "internal"), ({"count": 33}, "too_large")],
)
async def test_descriptors_are_closed_when_the_answer_is_an_error(running, params, code):
    harness = await running()
    client = harness.connect()
    await client.call("test.ping")
    await client.receive()
    before = open_files()
    await client.call("test.open", params)
    assert code_of(await client.receive()) == code
    assert client.descriptors == []
    assert open_files() == before


async def test_descriptors_are_closed_when_nobody_receives_them(running, eventually):
    harness = await running()
    before = open_files()
    client = harness.connect()
    # Some wait in the queue, and some for room in it.
    for n in range(15):
        await client.call("test.open", {"count": 1}, request_id=n)
        await client.call("test.fill", {"size": 1 << 19}, request_id=f"fill {n}")
    await eventually(lambda: open_files() > before + 2)
    client.close()
    await eventually(lambda: open_files() == before)


async def test_a_reader_that_stands_still_does_not_hold_up_another(running):
    harness = await running()
    stuck, lively = harness.connect(), harness.connect()
    for n in range(30):
        await stuck.call("test.fill", {"size": 1 << 20}, request_id=n)
    for _ in range(50):
        await lively.call("test.ping")
        assert "result" in await lively.receive()
    # And what it asked for is all there once it reads.
    assert {(await stuck.receive())["id"] for _ in range(30)} == set(range(30))


async def test_a_reader_that_never_reads_is_given_up(running, eventually):
    harness = await running(Limits(stall_s=0.1, flush_s=0.1))
    before = open_files()
    client = harness.connect()
    await client.call("test.fill", {"size": 2 << 20})
    await eventually(lambda: open_files() == before + 1)


async def test_a_flood_leaves_room_for_others(running):
    harness = await running()
    lively = harness.connect()
    # From another process: one that shared the loop with the server would wait for it.
    flood = f"""
import socket
sock = socket.socket(socket.AF_UNIX)
sock.connect({str(harness.path)!r})
print("pouring", flush=True)
while True:
    sock.sendall(b"\\n" * 65536)
"""
    command = (sys.executable, "-c", flood)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"pouring\n"
    try:
        for _ in range(20):
            await lively.call("test.ping")
            assert "result" in await lively.receive()
    finally:
        process.kill()
        await process.communicate()


async def test_connections_beyond_the_limit_are_told_why(running, eventually):
    harness = await running(Limits(connections_per_uid=2))
    first, second = harness.connect(), harness.connect()
    third = harness.connect()
    message = await third.receive()
    assert (message["id"], code_of(message)) == (None, "queue_full")
    assert await third.receive() is None
    first.close()

    async def admitted() -> bool:
        client = harness.connect()
        await client.call("test.ping")
        message = await client.receive()
        client.close()
        return "result" in message

    async with asyncio.timeout(10):
        while not await admitted():
            pass
    await second.call("test.ping")
    assert "result" in await second.receive()


@contextmanager
def acting_as_nobody():
    """Root has every right, so it plays somebody else; other users are somebody else already."""
    if os.getuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


STRANGER = NOBODY if os.getuid() == 0 else os.getuid()


@pytest.fixture
def connect_as_stranger(monkeypatch):
    def connect(harness):
        harness.path.parent.chmod(0o755)
        harness.path.chmod(0o666)
        # By a relative name: the directories above are not the stranger's to search.
        monkeypatch.chdir(harness.path.parent)
        harness.path = Path(harness.path.name)
        try:
            with acting_as_nobody():
                return harness.connect()
        finally:
            harness.path = Path.cwd() / harness.path

    return connect


async def test_a_stranger_is_told_why_and_disconnected(running, connect_as_stranger):
    client = connect_as_stranger(await running(daemon_uid=0))
    message = await client.receive()
    assert (message["id"], code_of(message)) == (None, "denied")
    assert await client.receive() is None


async def test_a_role_allows_what_it_includes_and_no_more(running, connect_as_stranger):
    access = (AccessRule(Role.READ, uid=STRANGER),)
    client = connect_as_stranger(await running(access=access, daemon_uid=0))
    await client.call("test.ping")
    assert "result" in await client.receive()
    await client.call("test.echo", {"text": "x"})
    assert code_of(await client.receive()) == "denied"


async def test_the_last_place_is_kept_for_the_operator(running, connect_as_stranger):
    access = (AccessRule(Role.READ, uid=STRANGER),)
    harness = await running(Limits(connections=1), access=access, daemon_uid=0)
    client = connect_as_stranger(harness)
    assert code_of(await client.receive()) == "queue_full"


async def test_stopping_answers_what_is_in_flight_and_accepts_nobody(running, eventually):
    harness = await running()
    client = harness.connect()
    await client.call("test.wait")
    await harness.services.started.wait()
    harness.server.stop(10)
    await eventually(lambda: not harness.path.exists())
    harness.services.release.set()
    assert (await client.receive())["result"] == {"text": "released"}
    assert await client.receive() is None
    client.close()
    await asyncio.wait_for(harness.serving, 5)


async def test_stopping_does_not_wait_for_ever(running):
    harness = await running()
    client = harness.connect()
    await client.call("test.wait")
    await harness.services.started.wait()
    harness.server.stop(0.05)
    assert code_of(await client.receive()) == "stopping"
    client.close()
    await asyncio.wait_for(harness.serving, 5)


async def test_nothing_is_left_open_after_the_server_ended(running):
    harness = await running()
    before = open_files()
    clients = [harness.connect() for _ in range(5)]
    for client in clients:
        await client.call("test.wait", request_id=1)
        await client.call("test.ping", request_id=2)
        assert (await client.receive())["id"] == 2
    harness.server.stop(0)
    for client in clients:
        assert code_of(await client.receive()) == "stopping"
        client.close()
    await asyncio.wait_for(harness.serving, 5)
    assert open_files() < before
