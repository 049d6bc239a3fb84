"""What kitd costs while nothing happens: a large tree, and some small ones."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import tree
from benchmarks.measure import Settings
from benchmarks.rest import await_rest, cost
from benchmarks.scene import daemon

PROJECTS = (1, 20, 100)
SHORT_S = 30.0
DEADLINE_S = 600.0


def at_rest(
    place: Path, count: int, *, files: int, folders: int, quiet_s: float, span_s: float
) -> str:
    """Measure projects that were packed and are left alone."""
    projects = tree.write_watched(
        place / "projects", count, files=files, folders=folders, quiet_s=quiet_s
    )
    started_s = time.monotonic()
    with daemon(place / "kitd", {"projects": projects}) as scene:
        rested_s = await_rest(scene, started_s, deadline_s=DEADLINE_S)
        costs = cost(scene, span_s)
    shutil.rmtree(place)
    return (
        f"idle, {count} x {files:,} files in {folders:,} directories\n{costs}\n"
        f"  packed and at rest {rested_s:.1f} s after the start"
    )


def run(place: Path, settings: Settings) -> Iterator[str]:
    """Measure the large tree as long as asked, then small ones for a short time."""
    files, folders = settings.scaled(100_000), settings.scaled(10_000)
    quiet_s = settings.quiet_s
    yield at_rest(
        place / "large", 1, files=files, folders=folders, quiet_s=quiet_s, span_s=settings.idle_s
    )
    for count in PROJECTS:
        span_s = min(SHORT_S, settings.idle_s)
        yield at_rest(
            place / str(count), count, files=100, folders=10, quiet_s=quiet_s, span_s=span_s
        )
