"""How long a ping takes: in peace, beside packs and pushes, and beside clients that mean harm.

Beside each figure stands that of a process which does nothing but answer: what it waits for is the
processor, and no daemon on this machine could do better.
"""

import contextlib
import multiprocessing
import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TypeAlias

from benchmarks.measure import Settings, goal, mebibytes, peer
from benchmarks.scene import Scene, daemon, docker_registry
from kitd.client import Client, request
from kitd.client.request import Request

PACKED_BYTES, PUSHED_BYTES = 1 << 30, 1 << 28
PACKS, PUSHES = 2, 4
PEACE_S = 5.0
EVERY_S = 0.005
GOAL_MS = 50.0
DEADLINE_S = 600.0
LINE_BYTES = 1 << 20
SLOW_CONNECTIONS, SILENT_CONNECTIONS = 100, 16
EXPENSIVE = (
    (b"jobs.list", b'{"limit":500}'),
    (b"system.status", b"{}"),
    (b"events.read", b'{"from_seq":0,"limit":500}'),
    (b"system.discover", b"{}"),
)
KITFILE = "manifestVersion: 1.0.0\nmodel: {name: weights, path: model.bin}\n"
PING = Request("system.ping", {}, lambda answer: answer)
_CONTEXT = multiprocessing.get_context("spawn")


Answers: TypeAlias = "multiprocessing.SimpleQueue[list[float]]"


def ping(path: str, stop: Event, answered_s: Answers) -> None:
    """Ping until told to stop, every few milliseconds; hand over how long each took."""
    with Client.connect(path) as client:
        repeat(lambda: client.call(PING), stop, answered_s)


def knock(sock: socket.socket, stop: Event, answered_s: Answers) -> None:
    """Do the same with a process that only echoes."""

    def call() -> None:
        sock.sendall(b"x")
        sock.recv(1)

    repeat(call, stop, answered_s)


def echo(sock: socket.socket) -> None:
    while data := sock.recv(1):
        sock.sendall(data)


def repeat(call: Callable[[], object], stop: Event, answered_s: Answers) -> None:
    seconds = []
    while not stop.is_set():
        started_s = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started_s)
        time.sleep(EVERY_S)
    answered_s.put(seconds)


def connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(path)
    return sock


def flood(path: str) -> None:
    """Ask for the most expensive answers, as many at once as are taken."""
    calls = b"".join(
        b'{"jsonrpc":"2.0","id":%d,"method":"%s","params":%s}\n' % (number, method, params)
        for number, (method, params) in enumerate(EXPENSIVE * 25)
    )
    while True:
        with contextlib.suppress(OSError), connect(path) as sock:
            sock.settimeout(1.0)
            while True:
                sock.sendall(calls)
                with contextlib.suppress(TimeoutError):
                    while sock.recv(1 << 20):
                        pass


def send_lines(path: str) -> None:
    """Send lines as long as they may be: deep ones, wide ones, and one that has no end."""
    wide = b'{"jsonrpc":"2.0","id":1,"method":"system.ping","params":{"a":[' + b"1," * 490_000
    lines = [
        b"[" * (LINE_BYTES - 2) + b"\n",
        wide + b"1]}}\n",
        b'{"a":"' + b"\\u0000" * 170_000 + b'"}\n',
        b"x" * (LINE_BYTES + 10),
    ]
    while True:
        for line in lines:
            with contextlib.suppress(OSError), connect(path) as sock:
                sock.sendall(line)
                sock.settimeout(5.0)
                sock.recv(1 << 16)


def dawdle(path: str) -> None:
    """Hold connections open, each with half a line that grows by a byte now and then."""
    socks = [connect(path) for _ in range(SLOW_CONNECTIONS)]
    while True:
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.send(b" ")
            time.sleep(0.01)


def subscribe_and_sleep(path: str) -> None:
    """Subscribe to everything since ever, many times, and read nothing."""
    call = b'{"jsonrpc":"2.0","id":1,"method":"events.subscribe","params":{"from_seq":0}}\n'
    while True:
        socks = []
        for _ in range(SILENT_CONNECTIONS):
            with contextlib.suppress(OSError):
                socks.append(connect(path))
                socks[-1].sendall(call * 8)
        time.sleep(10.0)
        for sock in socks:
            sock.close()


HOSTILE: Sequence[Callable[[str], None]] = (flood, send_lines, dawdle, subscribe_and_sleep)


@contextlib.contextmanager
def hostile_clients(path: str) -> Iterator[None]:
    """Let one client of each kind do its worst."""
    processes = [_CONTEXT.Process(target=client, args=(path,), daemon=True) for client in HOSTILE]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def pinged(scene: Scene, work: Callable[[], None]) -> tuple[list[float], list[float]]:
    """Return how long pings took while something else was done, and how long an echo did."""
    stop = _CONTEXT.Event()
    answers: tuple[Answers, Answers] = _CONTEXT.SimpleQueue(), _CONTEXT.SimpleQueue()
    near, far = socket.socketpair()
    path = str(scene.place / "kitd.sock")
    processes = [
        _CONTEXT.Process(target=echo, args=(far,), daemon=True),
        _CONTEXT.Process(target=ping, args=(path, stop, answers[0]), daemon=True),
        _CONTEXT.Process(target=knock, args=(near, stop, answers[1]), daemon=True),
    ]
    for process in processes:
        process.start()
    near.close()
    far.close()
    work()
    stop.set()
    pings, echoes = (answer.get() for answer in answers)
    for process in processes:
        process.join()
    return pings, echoes


def write_kit(root: Path, size_bytes: int) -> Path:
    """Write a project with one file that is like no other."""
    root.mkdir(parents=True)
    (root / "Kitfile").write_text(KITFILE)
    block = os.urandom(min(size_bytes, 1 << 22))
    with (root / "model.bin").open("wb") as file:
        for number in range(size_bytes // len(block)):
            file.write(number.to_bytes(8, "big") + block[8:])
    return root


def lines(name: str, pings: Sequence[float], echoes: Sequence[float]) -> str:
    """Return two rows of the table."""
    return f"{_line(name, pings)}\n{_line('  an echo meanwhile', echoes)}"


def p99_of(seconds: Sequence[float]) -> float:
    """Return the 99th percentile."""
    return statistics.quantiles(seconds, n=100, method="inclusive")[98]


def _line(name: str, seconds: Sequence[float]) -> str:
    return (
        f"  {name:<34} {statistics.median(seconds) * 1000:>8.2f} {p99_of(seconds) * 1000:>8.2f}"
        f" {max(seconds) * 1000:>8.1f} {len(seconds):>8}"
    )


def run(place: Path, settings: Settings) -> Iterator[str]:
    """Measure the three, one after the other."""
    program = peer("docker-registry")
    if program is None:
        yield "hostile: docker-registry is not on PATH"
        return
    packed, pushed = settings.scaled(PACKED_BYTES), settings.scaled(PUSHED_BYTES)
    workers = {"pack": PACKS, "push": PUSHES}
    with (
        docker_registry(program, place / "registry") as registry,
        daemon(place / "kitd", {"workers": workers}) as scene,
        scene.connect() as client,
    ):

        def pack(root: Path) -> int:
            asked = request.pack(str(root), f"{registry.host}/bench/{root.name}:v1", push=False)
            return client.call(asked).id

        def finish(jobs: Sequence[int]) -> None:
            for job in jobs:
                assert client.wait(job, timeout_s=DEADLINE_S).state == "succeeded"

        def load(round_: str) -> Callable[[], None]:
            """Prepare what is packed and pushed in one round; return what does it."""
            pushing = [place / f"pushed-{round_}-{number}" for number in range(PUSHES)]
            finish([pack(write_kit(root, pushed)) for root in pushing])
            packing = [place / f"packed-{round_}-{number}" for number in range(PACKS)]
            for root in packing:
                write_kit(root, packed)

            def work() -> None:
                pushes = [request.push(f"{registry.host}/bench/{root.name}:v1") for root in pushing]
                jobs = [client.call(asked).id for asked in pushes]
                finish(jobs + [pack(root) for root in packing])

            return work

        yield (
            f"ping beside {PACKS} packs of {mebibytes(packed)} and {PUSHES} pushes of"
            f" {mebibytes(pushed)}, ms\n"
            f"  {'':<34} {'median':>8} {'p99':>8} {'most':>8} {'pings':>8}"
        )
        peace = pinged(scene, lambda: time.sleep(PEACE_S))
        yield lines("in peace", *peace)
        busy = pinged(scene, load("alone"))
        yield lines("packs and pushes", *busy)
        work = load("crowded")
        with hostile_clients(str(scene.place / "kitd.sock")):
            crowded = pinged(scene, work)
        yield lines("packs, pushes and hostile clients", *crowded)
        slowest_s = max(p99_of(pings) for pings, _ in (peace, busy, crowded))
        yield f"  {goal(f'p99 below {GOAL_MS:g} ms', is_met=slowest_s * 1000 < GOAL_MS)}"
