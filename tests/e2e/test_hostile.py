"""One user floods the socket, and another one asks for something small."""

import json
import os
import resource
import select
import signal
import socket
import statistics
import time
from contextlib import contextmanager, suppress

import pytest

from kitd.client import Client, request
from kitd.client.connection import Connection

HOSTILE = 2102
PINGS = 40
MEDIAN_S = 0.5
SLOWEST_S = 10.0
"""Far more than it takes: whoever is starved waits for as long as the flood lasts, and the machine
may have other things to do as well. How fast it is says `python -m benchmarks hostile`."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="becoming other users needs root"),
]


def line(method, number=1, **params):
    call = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    return json.dumps(call).encode() + b"\n"


def lines(method, count, **params):
    return b"".join(line(method, number, **params) for number in range(count))


def connected(path, count):
    socks = []
    for _ in range(count):
        socks.append(socket.socket(socket.AF_UNIX))
        socks[-1].connect(path)
    return socks


def pour(data, connections=16, *, reads=True):
    """Send this for ever over several connections."""

    def attack(path):
        socks = connected(path, connections)
        done = dict.fromkeys(socks, 0)
        for sock in socks:
            sock.setblocking(False)
        while True:
            yield
            readable, writable, _ = select.select(socks if reads else [], socks, [], 0.1)
            for sock in readable:
                sock.recv(1 << 20)
            for sock in writable:
                at = done[sock]
                done[sock] = (at + sock.send(data[at : at + 65536])) % len(data)

    return attack


def dribble(path):
    """Send half lines, byte by byte, over as many connections as there may be."""
    socks = connected(path, 190)
    while True:
        yield
        for sock in socks:
            sock.send(b"{")
        time.sleep(0.05)


def stay(path):
    """Hold as many connections as wait to be accepted, at most."""
    socks = connected(path, 100)
    while True:
        yield
        time.sleep(0.05)
        assert socks


def come_and_go(path):
    while True:
        yield
        for sock in connected(path, 50):
            sock.close()


def show_too_much(path):
    """Send descriptors that nobody asked for."""
    root = os.open("/", os.O_RDONLY)
    (sock,) = connected(path, 1)
    while True:
        yield
        socket.send_fds(sock, [line("system.ping")], [root] * 4)
        sock.recv(65536)


LISTS = lines("jobs.list", 64, limit=500)
BATCH = b"[" + LISTS.rstrip().replace(b"\n", b",") + b"]\n"
STRINGS = line("x").replace(b"{}", b'{"a":[' + b",".join([b'"x"'] * 200_000) + b"]}")
SUBSCRIPTIONS = lines("events.subscribe", 8, from_seq=0)
ATTACKS = {
    "a flood of calls": pour(lines("system.ping", 1000)),
    "blank lines": pour(b"\n" * 65536),
    "lines that are no JSON": pour(b"{]\n" * 1000),
    "long lists": pour(LISTS),
    "batches of long lists": pour(BATCH),
    "long lines": pour(STRINGS, 8),
    "deep lines": pour(b"[" * 1_000_000 + b"\n", 8),
    "subscriptions that nobody reads": pour(SUBSCRIPTIONS, 64, reads=False),
    "answers that nobody reads": pour(LISTS, 32, reads=False),
    "half lines": dribble,
    "connections that come and go": come_and_go,
    "descriptors": show_too_much,
}


@contextmanager
def under(attack, path):
    """Have another user attack, in a process of his own, while the context is open."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(HOSTILE, HOSTILE, HOSTILE)
            os.setresuid(HOSTILE, HOSTILE, HOSTILE)
            while True:
                # One that is hung up on comes again.
                with suppress(OSError):
                    for turn, _ in enumerate(attack(path)):
                        if turn == 1:
                            os.write(write, b".")
                time.sleep(0.01)
        finally:
            os._exit(1)
    os.close(write)
    try:
        began, _, _ = select.select([read], [], [], 20)
        assert began, "it never began"
        yield
    finally:
        os.close(read)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.fixture
def daemon(public_place, kitd):
    access = [{"uid": HOSTILE, "role": "read"}]
    running = kitd({"rpc": {"mode": "0666", "access": access}, "log": {"level": "warning"}})
    running.place = public_place
    running.start()
    yield running
    running.stop()


def ping(connection):
    """Return how long a few pings took."""
    took = []
    for _ in range(PINGS):
        began = time.perf_counter()
        connection.call("system.ping", {}, timeout_s=20)
        took.append(time.perf_counter() - began)
    return took


def open_files(daemon):
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def test_a_hostile_user_does_not_keep_another_one_waiting(daemon, new_project, eventually):
    root = new_project(daemon.place / "project")
    with Client.connect(daemon.socket) as client:
        for number in range(100):
            client.call(request.pack(str(root), f"x:{number}"))
    with Connection(str(daemon.socket)) as connection:
        ping(connection)
        at_rest = open_files(daemon)
        slow = []
        for name, attack in ATTACKS.items():
            with under(attack, str(daemon.socket)):
                took = ping(connection)
            if statistics.median(took) > MEDIAN_S or max(took) > SLOWEST_S:
                slow.append(f"{name}: {statistics.median(took):.3f} s, at most {max(took):.3f} s")
        assert slow == []
        eventually("all to be closed", lambda: open_files(daemon) <= at_rest)


def test_without_descriptors_left_those_who_are_connected_are_served(daemon, eventually):
    pid = daemon.process.pid
    with Connection(str(daemon.socket)) as connection:
        ping(connection)
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        few = (open_files(daemon) + 4, before[1])
        resource.prlimit(pid, resource.RLIMIT_NOFILE, few)
        with under(stay, str(daemon.socket)):
            eventually("none to be left", lambda: open_files(daemon) >= few[0])
            assert max(ping(connection)) < SLOWEST_S
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    with Connection(str(daemon.socket)) as connection:
        ping(connection)
