"""How fast deliveries of webhooks are answered: ten thousand signed ones, half of them duplicates,
in any order over sixteen connections. What is answered is on the disk, with the jobs that follow.
"""

import contextlib
import hashlib
import hmac
import json
import multiprocessing
import random
import socket
import sqlite3
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.measure import Settings, goal
from benchmarks.scene import Scene, daemon

DELIVERIES = 10_000
CONNECTIONS = 16
SECRET = b"correct horse battery staple"
START_S = 1.0
"""What the senders get to come together."""
GOAL_P99_MS = 50.0


def run(place: Path, settings: Settings) -> Iterator[str]:
    """Send as fast as answers come."""
    yield _measure(place / "flood", settings.scaled(DELIVERIES))


def _measure(place: Path, deliveries: int) -> str:
    place.mkdir()
    secret_file = place / "secret"
    secret_file.write_bytes(SECRET)
    distinct = max(1, deliveries // 2)
    numbers = [number % distinct for number in range(deliveries)]
    random.Random(6).shuffle(numbers)
    forking = multiprocessing.get_context("fork")
    with socket.create_server(("127.0.0.1", 0), backlog=128) as registry:
        host = f"127.0.0.1:{registry.getsockname()[1]}"
        source = {"format": "generic", "registry": host, "secret_file": str(secret_file)}
        mirror = {"source": f"{host}/team/model", "targets": [f"{host}/copy/model"]}
        config = {
            "webhooks": {"listen": "127.0.0.1:0", "sources": {"bench": source}},
            "mirrors": {"bench": mirror},
        }
        with daemon(place, config) as scene, ProcessPoolExecutor(CONNECTIONS, forking) as pool:
            port = _port(scene)
            start_s = time.monotonic() + START_S
            senders = [
                pool.submit(_send, port, numbers[first::CONNECTIONS], start_s)
                for first in range(CONNECTIONS)
            ]
            answers = [answer for sender in senders for answer in sender.result()]
            seconds = time.monotonic() - start_s
            with contextlib.closing(sqlite3.connect(place / "state" / "ledger.sqlite3")) as ledger:
                (rows,) = ledger.execute("SELECT count(*) FROM deliveries").fetchone()
                (jobs,) = ledger.execute("SELECT count(*) FROM jobs").fetchone()
    statuses = Counter(status for status, _ in answers)
    assert statuses == {202: distinct, 200: deliveries - distinct}, statuses
    assert rows == distinct, rows
    ordered = sorted(latency_s for _, latency_s in answers)
    p50, p99, most = statistics.median(ordered), ordered[int(len(ordered) * 0.99)], ordered[-1]
    return (
        f"{deliveries:,} deliveries, half of them duplicates, over {CONNECTIONS} connections\n"
        f"  {deliveries / seconds:>8.0f} a second   p50 {p50 * 1000:.1f} ms"
        f"   p99 {p99 * 1000:.1f} ms   most {most * 1000:.1f} ms"
        f"   {goal(f'p99 at most {GOAL_P99_MS:g} ms', is_met=p99 * 1000 <= GOAL_P99_MS)}\n"
        f"  {rows:,} rows, {jobs:,} jobs"
    )


def _port(scene: Scene) -> int:
    lines = (scene.place / "kitd.log").read_text().splitlines()
    ready = next(json.loads(line) for line in lines if '"daemon.ready"' in line)
    return int(str(ready["webhooks"]).rpartition(":")[2])


def _request(number: int) -> bytes:
    """Return a signed delivery of kitd's own format."""
    body = json.dumps({"repository": "team/model", "tag": f"v{number}"}).encode()
    stamp = str(int(time.time()))
    signature = hmac.digest(SECRET, stamp.encode() + b"." + body, hashlib.sha256).hex()
    lines = [
        "POST /hooks/bench HTTP/1.1",
        "Host: kitd",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"X-Kitd-Delivery: bench-{number}",
        f"X-Kitd-Signature: t={stamp},sha256={signature}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _send(port: int, numbers: Sequence[int], start_s: float) -> list[tuple[int, float]]:
    """Send deliveries one after the other; return each answer's status and how long it took."""
    requests = [_request(number) for number in numbers]
    answers = []
    with socket.create_connection(("127.0.0.1", port), timeout=60.0) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection.makefile("rb") as stream:
            time.sleep(max(0.0, start_s - time.monotonic()))
            for request in requests:
                began_s = time.perf_counter()
                connection.sendall(request)
                status = int(stream.readline().split()[1])
                length_bytes = 0
                while (line := stream.readline()) != b"\r\n":
                    if line.lower().startswith(b"content-length:"):
                        length_bytes = int(line.partition(b":")[2])
                stream.read(length_bytes)
                answers.append((status, time.perf_counter() - began_s))
    return answers
