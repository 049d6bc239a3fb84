"""A layer that is many times larger than the disk of kitd's state: packed, pushed, and unpacked.

`stream_disk.py DISK PLACE REGISTRY --layer BYTES`: DISK is an empty file system for the states of
two daemons; one packs and pushes, the other unpacks. The last line is a summary as JSON.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aftermath
from forked import Daemon, adopt_orphans, reap_orphans

from kitd.client import Client, request
from kitd.client.unpack import unpack

START_S = 30.0
STOP_S = 45.0
SAMPLE_S = 0.02
KITFILE = "manifestVersion: 1.0.0\nmodel: {name: weights, path: model.bin}\n"


@contextmanager
def peak_of(disk: Path, seen: dict[str, object], name: str) -> Iterator[None]:
    """Note how much of a disk was in use at most, beyond what was at the beginning."""

    def used() -> int:
        status = os.statvfs(disk)
        return (status.f_blocks - status.f_bfree) * status.f_frsize

    done = threading.Event()
    begin = most = used()

    def watch() -> None:
        nonlocal most
        while not done.wait(SAMPLE_S):
            most = max(most, used())

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun_s = time.monotonic()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        seen[f"{name}_s"] = round(time.monotonic() - begun_s, 1)
        seen[f"{name}_peak_bytes"] = max(most, used()) - begin


@contextmanager
def life(place: Path, state: Path, wrong: list[str]) -> Iterator[Client]:
    """Run a daemon; look at what it leaves."""
    place.mkdir()
    daemon = Daemon(
        place,
        {"state_dir": str(state), "log": {"format": "json"}, "cache": {"leave_free": "0"}},
    )
    daemon.start()
    client = daemon.connect(START_S)
    assert client is not None, daemon.last_words()
    with client:
        yield client
    daemon.signal(signal.SIGTERM)
    if (code := daemon.wait(STOP_S)) != 0:
        wrong.append(f"exit code {code}: {daemon.last_words()}")
    if left := reap_orphans(10.0):
        wrong.append(f"processes left behind: {left}")
    with aftermath.opened(state) as ledger:
        wrong += aftermath.ledger_faults(ledger) + aftermath.rest_faults(ledger)
    wrong += aftermath.leftovers(state / "cache")


def finish(client: Client, job: int) -> None:
    """Wait for a job and for what followed from it."""
    ended = client.wait(job)
    assert ended.state == "succeeded", ended.error
    assert ended.attempt == 1, ended.document
    for follower in ended.followed_by:
        finish(client, follower)


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run(disk: Path, place: Path, registry: str, layer_bytes: int) -> dict[str, object]:
    """Pack and push, unpack, and return what was seen."""
    status = os.statvfs(disk)
    wrong: list[str] = []
    seen: dict[str, object] = {
        "layer_bytes": layer_bytes,
        "free_bytes": status.f_bavail * status.f_frsize,
        "wrong": wrong,
    }
    project = place / "project"
    project.mkdir()
    (project / "Kitfile").write_text(KITFILE)
    model = project / "model.bin"
    with model.open("wb") as file:
        file.write(os.urandom(1 << 20))
        file.truncate(layer_bytes)
        file.seek(-(1 << 20), os.SEEK_END)
        file.write(os.urandom(1 << 20))
    reference = f"{registry}/disk/stream:v1"
    with life(place / "here", disk / "here", wrong) as client, peak_of(disk, seen, "pack"):
        finish(client, client.call(request.pack(str(project), reference, push=True)).id)
    shutil.rmtree(disk / "here")
    target = place / "target"
    with life(place / "there", disk / "there", wrong) as client, peak_of(disk, seen, "unpack"):
        finish(client, client.call(request.pull(reference)).id)
        plan = client.call(request.plan_unpack(reference))
        unpack(client, plan, target, progress=lambda _progress: None)
    if digest_of(target / "model.bin") != digest_of(model):
        wrong.append("what was unpacked is not what was packed")
    shutil.rmtree(target)
    return seen


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("disk", type=Path)
    parser.add_argument("place", type=Path)
    parser.add_argument("registry")
    parser.add_argument("--layer", type=int, required=True)
    options = parser.parse_args()
    adopt_orphans()
    seen = run(options.disk, options.place, options.registry, options.layer)
    print(json.dumps(seen))
    return 1 if seen["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
