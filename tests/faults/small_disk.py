"""A disk that is nearly full: kitd fills it up, waits, and goes on when there is room again.

`small_disk.py DISK --room BYTES REGISTRY`: DISK is an empty file system that is filled up but for
so many bytes. Then there are more kits to pack than fit. The last line is a summary as JSON.
"""

import argparse
import json
import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import aftermath
from forked import Daemon, adopt_orphans, reap_orphans

from kitd.client import Client, request
from kitd.client.record import Job
from kitd.errors import KitdError

DEADLINE_S = 45.0
KITS = 5
KIT_BYTES = 1 << 20
FILLED_S = 20.0
"""How long kitd gets to find out that the disk is full."""
ASKED_EVERY_S = 0.2
EX_TEMPFAIL = 75
KITFILE = "manifestVersion: 1.0.0\nmodel: {name: weights, path: model.bin}\n"


def fill(path: Path, room_bytes: int) -> None:
    """Write a file that leaves so much of its disk."""
    disk = os.statvfs(path.parent)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - room_bytes)


def settled(client: Client, jobs: list[int], deadline_s: float) -> list[Job]:
    """Return the jobs once they have ended, or as they are at the deadline."""
    end_s = time.monotonic() + deadline_s
    while True:
        found = [client.call(request.get_job(job)) for job in jobs]
        if all(job.is_terminal for job in found) or time.monotonic() > end_s:
            return found
        time.sleep(0.1)


def wait_for_complaint(client: Client, jobs: list[int]) -> tuple[int, tuple[str, ...]]:
    """Return how many jobs wait and what the status says of it, once it does."""
    end_s = time.monotonic() + FILLED_S
    while True:
        waiting = sum(not job.is_terminal for job in settled(client, jobs, ASKED_EVERY_S))
        degraded: tuple[str, ...] = ()
        with suppress(KitdError):
            degraded = client.call(request.status()).degraded
        if degraded or not waiting or time.monotonic() > end_s:
            return waiting, degraded


def live(disk: Path, place: Path, room_bytes: int, registry: str) -> dict[str, object]:
    """Fill up, make room, and return what was seen."""
    draw = random.Random(room_bytes)
    state = disk / "state"
    daemon = Daemon(
        place,
        {"state_dir": str(state), "log": {"format": "json"}, "cache": {"leave_free": "0"}},
    )
    filler = disk / "filler"
    fill(filler, room_bytes)
    seen: dict[str, object] = {
        "room": room_bytes,
        "acknowledged": 0,
        "waiting": 0,
        "refused": [],
        "degraded": (),
    }
    wrong: list[str] = []
    seen["wrong"] = wrong
    jobs: list[int] = []
    targets: list[str] = []
    refused: list[str] = []
    daemon.start()
    client = daemon.connect(DEADLINE_S)
    if client is None:
        code = daemon.wait(DEADLINE_S)
        seen["did not start"] = daemon.last_words().splitlines()[-1]
        if code != EX_TEMPFAIL:
            wrong.append(f"did not start: exit code {code}: {daemon.last_words()}")
        filler.unlink()
        daemon.start()
        client = daemon.connect(DEADLINE_S)
        assert client is not None, daemon.last_words()
    with client:
        for number in range(KITS):
            root = place / f"kit-{number}"
            root.mkdir()
            (root / "Kitfile").write_text(KITFILE)
            (root / "model.bin").write_bytes(draw.randbytes(KIT_BYTES))
            target = f"{registry}/disk-{room_bytes}/kit-{number}:v1"
            try:
                # Pushed later: what a registry has may be collected, and makes room.
                jobs.append(client.call(request.pack(str(root), target)).id)
                targets.append(target)
            except KitdError as error:
                refused.append(error.code)
        seen["waiting"], seen["degraded"] = wait_for_complaint(client, jobs)
        filler.unlink(missing_ok=True)
        after = settled(client, jobs, DEADLINE_S)
        pushes = [client.call(request.push(target)).id for target in targets]
        after += settled(client, pushes, DEADLINE_S)
    for job in after:
        if job.state != "succeeded":
            wrong.append(f"job {job.id} ({job.kind}) is {job.state}: {job.error}")
        elif job.attempt != 1:
            wrong.append(f"job {job.id} ({job.kind}) burned {job.attempt} attempts")
    if seen["waiting"] and not seen["degraded"]:
        wrong.append("the status says nothing of a full disk")
    daemon.signal(signal.SIGTERM)
    if (code := daemon.wait(DEADLINE_S)) != 0:
        wrong.append(f"exit code {code}: {daemon.last_words()}")
    if left := reap_orphans(10.0):
        wrong.append(f"processes left behind: {left}")
    with aftermath.opened(state) as ledger:
        wrong += aftermath.ledger_faults(ledger) + aftermath.rest_faults(ledger)
        wrong += aftermath.cache_faults(ledger, state / "cache")
    wrong += aftermath.leftovers(state / "cache")
    wrong += aftermath.registry_faults(
        registry, [f"disk-{room_bytes}/kit-{number}" for number in range(KITS)]
    )
    return {**seen, "acknowledged": len(jobs), "refused": refused}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("disk", type=Path)
    parser.add_argument("place", type=Path)
    parser.add_argument("registry")
    parser.add_argument("--room", type=int, required=True)
    options = parser.parse_args()
    adopt_orphans()
    seen = live(options.disk, options.place, options.room, options.registry)
    print(json.dumps(seen))
    return 1 if seen["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
