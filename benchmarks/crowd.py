"""Many projects at once: 200 of 5,000 files each, from the first start to one save among them."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import tree
from benchmarks.measure import Comparison, Settings
from benchmarks.rest import await_rest, cost
from benchmarks.scene import Scene, daemon
from kitd.client import Client, request

PROJECTS = 200
FILES, FOLDERS = 5_000, 50
SPAN_S = 60.0
START_DEADLINE_S = 1800.0
SAVE_DEADLINE_S = 120.0
FILE_BYTES = 4096 + 1024
"""What a file of 100 bytes takes on the disk: a block, and its header and content in a layer."""


def last_digest(client: Client, name: str) -> str | None:
    """Return the digest of a project's last kit."""
    projects = client.call(request.list_projects())
    return next(project.last_digest for project in projects if project.name == name)


def save(scene: Scene, name: str, file: Path) -> float:
    """Write one file; return how long it takes until a kit has it."""
    with scene.connect() as client:
        known = last_digest(client, name)
        file.write_bytes(os.urandom(100))
        started_s = time.perf_counter()
        while last_digest(client, name) == known:
            waited_s = time.perf_counter() - started_s
            assert waited_s < SAVE_DEADLINE_S, f"{name} was not packed"
            time.sleep(0.02)
    return time.perf_counter() - started_s


def run(place: Path, settings: Settings) -> Iterator[str]:
    """Measure two starts, idleness and some saves."""
    count = settings.scaled(PROJECTS)
    files = count * (FILES + FOLDERS + 1)
    disk = os.statvfs(place)
    if disk.f_favail < files * 1.1 or disk.f_bavail * disk.f_frsize < files * FILE_BYTES * 1.1:
        yield f"crowd: {place} has no room for {files:,} files"
        return
    root = place / "projects"
    projects = tree.write_watched(
        root, count, files=FILES, folders=FOLDERS, quiet_s=settings.quiet_s
    )
    config = {"projects": projects}
    yield f"crowd, {count} projects of {FILES:,} files in {FOLDERS} directories"
    started_s = time.monotonic()
    with daemon(place / "kitd", config) as scene:
        rested_s = await_rest(scene, started_s, deadline_s=START_DEADLINE_S)
        yield f"  first start: every project packed and at rest after {rested_s:.1f} s"
    started_s = time.monotonic()
    with daemon(place / "kitd", config) as scene:
        rested_s = await_rest(scene, started_s, deadline_s=START_DEADLINE_S)
        yield f"  start with nothing changed: at rest after {rested_s:.1f} s"
        yield cost(scene, min(SPAN_S, settings.idle_s))
        seconds = []
        for number in range(settings.rounds):
            name = sorted(projects)[number % count]
            seconds.append(save(scene, name, root / name / "saved.txt"))
            await_rest(scene, time.monotonic(), deadline_s=SAVE_DEADLINE_S)
    quiet = (settings.quiet_s,) * settings.rounds
    contestants = {"kitd": tuple(seconds), "settle.quiet": quiet}
    yield Comparison("one save in the crowd, until it is packed", contestants).table()
