"""Descriptors that come with requests: whose they are, and that none is ever left open."""

import asyncio
import json
import os
import socket
import struct
import time
from contextlib import suppress

import pytest

from kitd.rpc.inbox import MAX_RECEIVED
from kitd.rpc.limit import Limits

LINGER_S = 30


def show(text="here", request_id=1):
    call = {"jsonrpc": "2.0", "id": request_id, "method": "test.show", "params": {"text": text}}
    return json.dumps(call).encode() + b"\n"


PING = b'{"jsonrpc":"2.0","id":7,"method":"test.ping"}\n'


def descriptors():
    """How many this process has open, the server's and the client's."""
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
async def harness(running):
    return await running()


@pytest.fixture
def directory(tmp_path):
    handle = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield handle
    os.close(handle)


@pytest.fixture
async def client(harness, directory):
    """A client that is connected; `at_rest` is how many descriptors are open then."""
    client = harness.connect()
    await client.send(PING)
    await client.receive()
    client.at_rest = descriptors()
    return client


def text_of(message):
    return message["result"]["text"]


async def test_a_descriptor_comes_with_its_request_and_is_closed_after_it(
    client, directory, eventually
):
    client.send_with(show(), [directory])
    assert text_of(await client.receive()) == f"here {os.fstat(directory).st_ino}"
    await eventually(lambda: descriptors() == client.at_rest)


async def test_it_belongs_to_the_line_it_came_with_whatever_was_sent_before(
    client, directory, eventually
):
    await client.send(show("before", 1) + PING)
    client.send_with(show("with", 2), [directory])
    await client.send(show("after", 3))
    answers = [await client.receive() for _ in range(4)]
    said = {answer["id"]: answer["result"].get("text") for answer in answers}
    assert said == {
        1: "nothing",
        7: None,
        2: f"with {os.fstat(directory).st_ino}",
        3: "nothing",
    }
    await eventually(lambda: descriptors() == client.at_rest)


@pytest.mark.parametrize("cut", [1, 20, -1])
async def test_a_line_may_come_in_pieces(client, directory, eventually, cut):
    line = show()
    client.send_with(line[:cut], [directory])
    await eventually(lambda: descriptors() == client.at_rest + 1)
    await client.send(line[cut:])
    assert text_of(await client.receive()) == f"here {os.fstat(directory).st_ino}"
    await eventually(lambda: descriptors() == client.at_rest)


@pytest.mark.parametrize(
    "line",
    [
        PING,
        b"\n",
        b"  \n",
        b"{]\n",
        b'{"jsonrpc":"2.0","id":1,"method":"no.such"}\n',
        b'{"jsonrpc":"2.0","method":"test.ping"}\n',
        b"[" + show()[:-1] + b"]\n",
        b'{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":1}}\n',
    ],
)
async def test_what_no_request_takes_is_closed(client, directory, eventually, line):
    client.send_with(line, [directory] * MAX_RECEIVED)
    await client.send(PING.replace(b"7", b"8"))
    while "8" not in str(await client.receive()):
        pass
    await eventually(lambda: descriptors() == client.at_rest)


async def test_a_line_keeps_one_however_many_come_while_it_is_not_complete(
    client, directory, eventually
):
    line = show()
    for byte in line[:-1]:
        client.send_with(bytes([byte]), [directory] * MAX_RECEIVED)
        await asyncio.sleep(0)
    await eventually(lambda: descriptors() == client.at_rest + 1)
    await client.send(line[-1:])
    assert "here" in text_of(await client.receive())
    await eventually(lambda: descriptors() == client.at_rest)


async def test_a_bomb_ends_the_connection(client, directory, eventually):
    client.send_with(PING, [directory] * (MAX_RECEIVED + 1))
    answers = [await client.receive(), await client.receive()]
    assert {answer.get("id") for answer in answers} == {7, None}
    (error,) = [answer["error"] for answer in answers if "error" in answer]
    assert error["data"]["code"] == "too_large"
    assert await client.receive() is None
    await eventually(lambda: descriptors() <= client.at_rest)


async def test_they_are_closed_where_the_peer_hangs_up(harness, directory, eventually):
    at_rest = descriptors()
    for cut in (1, -1):
        client = harness.connect()
        client.send_with(show()[:cut], [directory])
        client.close()
    await eventually(lambda: descriptors() == at_rest)


async def test_they_are_closed_where_a_call_is_cancelled(harness, client, directory, eventually):
    client.send_with(show("wait"), [directory])
    await harness.services.started.wait()
    await client.notify("$/cancelRequest", {"id": 1})
    assert (await client.receive())["error"]["data"]["code"] == "request_cancelled"
    await eventually(lambda: descriptors() == client.at_rest)


async def test_they_are_closed_where_the_server_stops(harness, directory, eventually):
    at_rest = descriptors()
    clients = [harness.connect() for _ in range(4)]
    for client in clients:
        client.send_with(show("wait"), [directory])
        client.send_with(show()[:5], [directory])
    await harness.services.started.wait()
    harness.server.stop(0)
    await harness.serving
    for client in clients:
        client.close()
    # The listener is gone as well.
    await eventually(lambda: descriptors() <= at_rest)


@pytest.fixture
def lingering():
    """A descriptor whose last closing takes as long as its sender likes; it is sent and gone."""
    handles = []

    def make():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            sock = socket.create_connection(listener.getsockname())
            handles.append(listener.accept()[0])
        sock.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                sock.send(bytes(1 << 16))
        # socket(7): close(2) waits until everything is sent, or so many seconds.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER_S))
        return sock

    yield make
    for handle in handles:
        handle.close()


def shown(client, make, data, count=1):
    """Send descriptors of which the receiver's are the last."""
    socks = [make() for _ in range(count)]
    client.send_with(data, [sock.fileno() for sock in socks])
    for sock in socks:
        sock.close()


@pytest.mark.parametrize(
    ("data", "count"),
    [(PING, 1), (show(), 1), (b"{", 1), (PING, MAX_RECEIVED), (PING, 2 * MAX_RECEIVED)],
)
@pytest.mark.parametrize("hangs_up", [False, True])
async def test_a_descriptor_that_takes_its_time_to_close_holds_up_nobody_else(
    harness, client, lingering, data, count, hangs_up
):
    other = harness.connect()
    shown(client, lingering, data, count)
    if hangs_up:
        client.close()
    started = time.monotonic()
    for _ in range(20):
        await other.send(PING)
        assert (await other.receive())["id"] == 7
    assert time.monotonic() - started < LINGER_S / 2


async def test_nor_does_one_of_somebody_who_is_refused(running, lingering):
    harness = await running(Limits(connections_per_uid=0))
    stranger, other = harness.connect(), harness.connect()
    shown(stranger, lingering, PING)
    started = time.monotonic()
    assert (await other.receive())["error"]["data"]["code"] == "queue_full"
    assert time.monotonic() - started < LINGER_S / 2
