"""How fast jobs can be asked for and begun: by tasks on the ledger, by clients on the socket, and
behind a million jobs that have ended. What is acknowledged is on the disk.
"""

import asyncio
import contextlib
import json
import multiprocessing
import socket
import sqlite3
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.measure import Settings, goal
from benchmarks.scene import daemon
from kitd.clock import SystemClock
from kitd.ledger.database import Database
from kitd.ledger.job_ledger import JobFilter, JobLedger
from kitd.queue.job import JobRequest, JobState, Lane

CLIENTS = 32
LEDGER_JOBS = 20_000
SOCKET_JOBS = 12_800
BATCH_CALLS = 64
FINISHED_JOBS = 1_000_000
SAMPLES = 1_000
START_S = 1.5
"""What the clients get to come together."""
GOAL_PER_S = 5_000
GOAL_CLAIM_MS = 1.0


def run(place: Path, settings: Settings) -> Iterator[str]:
    """Measure each in turn."""
    yield asyncio.run(_tasks(place / "tasks.sqlite3", settings.scaled(LEDGER_JOBS)))
    jobs = settings.scaled(SOCKET_JOBS)
    yield _clients(place / "single", jobs, batch_calls=1)
    yield _clients(place / "batches", jobs, batch_calls=BATCH_CALLS)
    yield asyncio.run(_crowded(place / "crowded.sqlite3", settings.scaled(FINISHED_JOBS)))


def _rate(name: str, jobs: int, seconds: float, latencies_s: list[float]) -> str:
    ordered = sorted(latencies_s)
    p50, p99 = (ordered[int(len(ordered) * share)] * 1000 for share in (0.5, 0.99))
    return (
        f"{name}\n  {jobs / seconds:>8.0f} jobs a second   p50 {p50:.1f} ms   p99 {p99:.1f} ms"
        f"   {goal(f'at least {GOAL_PER_S}', is_met=jobs / seconds >= GOAL_PER_S)}"
    )


def _wish(key: str, owner: int) -> JobRequest:
    return JobRequest(
        kind="pull",
        lane=Lane.PULL,
        key=f"pull:{key}",
        lock=f"pull:{key}",
        args=json.dumps({"reference": key}).encode(),
        max_attempts=8,
        reference=key,
        priority=10,
        why="somebody asked for it",
        asked_by=owner,
    )


async def _tasks(path: Path, jobs: int) -> str:
    latencies: list[float] = []

    async def client(ledger: JobLedger, number: int) -> None:
        for n in range(jobs // CLIENTS):
            began = time.perf_counter()
            await ledger.enqueue(_wish(f"registry.example.com/{number}/{n}", number))
            latencies.append(time.perf_counter() - began)

    async with Database(path) as database:
        ledger = JobLedger(database, SystemClock(), epoch=1)
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(client(ledger, number))
        seconds = time.perf_counter() - began
    return _rate(f"{CLIENTS} tasks enqueue", len(latencies), seconds, latencies)


def _clients(place: Path, jobs: int, *, batch_calls: int) -> str:
    """Let processes ask for pulls of a registry that takes connections and never answers."""
    rounds = jobs // CLIENTS // batch_calls
    forking = multiprocessing.get_context("fork")
    with socket.create_server(("127.0.0.1", 0), backlog=128) as registry:
        host = f"127.0.0.1:{registry.getsockname()[1]}"
        with daemon(place, {}), ProcessPoolExecutor(CLIENTS, forking) as pool:
            start_s = time.monotonic() + START_S
            clients = [
                pool.submit(
                    _client, place / "kitd.sock", f"{host}/{number}", rounds, batch_calls, start_s
                )
                for number in range(CLIENTS)
            ]
            latencies = [latency for client in clients for latency in client.result()]
            seconds = time.monotonic() - start_s
            with contextlib.closing(sqlite3.connect(place / "state" / "ledger.sqlite3")) as ledger:
                (found,) = ledger.execute("SELECT count(*) FROM jobs").fetchone()
    asked = CLIENTS * rounds * batch_calls
    assert found == asked, (found, asked)
    how = "one call at a time" if batch_calls == 1 else f"batches of {batch_calls}"
    return _rate(f"{CLIENTS} clients on the socket, {how}", asked, seconds, latencies)


def _client(
    path: Path, repository: str, rounds: int, batch_calls: int, start_s: float
) -> list[float]:
    """Ask for jobs from a time on; return how long each answer took, in seconds."""
    lines = []
    for round_number in range(rounds):
        calls = [
            {
                "jsonrpc": "2.0",
                "id": n,
                "method": "kits.pull",
                "params": {"reference": f"{repository}:{round_number}-{n}"},
            }
            for n in range(batch_calls)
        ]
        document = calls[0] if batch_calls == 1 else calls
        lines.append(json.dumps(document).encode() + b"\n")
    latencies = []
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60.0)
        connection.connect(str(path))
        with connection.makefile("rb") as answers:
            time.sleep(max(0.0, start_s - time.monotonic()))
            for line in lines:
                began = time.perf_counter()
                connection.sendall(line)
                answer = answers.readline()
                latencies.append(time.perf_counter() - began)
                assert b'"error":{' not in answer, answer
    return latencies


def _fill(path: Path, jobs: int) -> None:
    """Write a history: jobs that ended in all ways, and a few that wait."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO jobs (kind, lane, key, lock, state, args, project, priority,"
            "  max_attempts, owner, run_at_us, created_us, started_us, finished_us, claim, result,"
            "  error_code)"
            " SELECT CASE i % 2 WHEN 0 THEN 'pack' ELSE 'push' END, 'pack', 'k' || i, 'k' || i,"
            "  CASE WHEN i % 100 < 97 THEN 'succeeded' WHEN i % 100 < 98 THEN 'failed'"
            "   WHEN i % 100 < 99 THEN 'cancelled' ELSE 'superseded' END,"
            "  x'7b7d', 'p' || (i % 100), 0, 8, 'project:p' || (i % 100), i, i, i, i, 1,"
            "  x'7b7d', 'x'"
            " FROM n",
            (jobs,),
        )


async def _crowded(path: Path, jobs: int) -> str:
    async with Database(path):
        pass
    _fill(path, jobs)
    lines = [f"a ledger of {jobs:,} jobs that have ended (median, 99th percentile)"]
    async with Database(path) as database:
        ledger = JobLedger(database, SystemClock(), epoch=1)

        async def measure(name: str, call: Callable[[int], Awaitable[object]]) -> None:
            seconds = []
            for n in range(SAMPLES):
                began = time.perf_counter()
                await call(n)
                seconds.append(time.perf_counter() - began)
            p50, p99 = statistics.median(seconds), sorted(seconds)[int(len(seconds) * 0.99)]
            line = f"  {name:<12} {p50 * 1000:>7.2f} ms {p99 * 1000:>7.2f} ms"
            if name == "claim":
                is_met = p50 * 1000 <= GOAL_CLAIM_MS
                line += f"   {goal(f'at most {GOAL_CLAIM_MS:g} ms', is_met=is_met)}"
            lines.append(line)

        await measure("enqueue", lambda n: ledger.enqueue(_wish(f"new/{n}", n % 7)))
        await measure("claim", lambda _n: ledger.claim({Lane.PULL: 1}))
        await measure("nothing", lambda _n: ledger.claim({Lane.VERIFY: 1}))
        await measure("counts", lambda _n: ledger.counts())
        await measure("list", lambda _n: ledger.list(JobFilter()))
        cancelled = JobFilter(state=JobState.CANCELLED, kind="pack")
        await measure("list --state", lambda _n: ledger.list(cancelled))
    return "\n".join(lines)
