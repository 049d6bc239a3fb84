"""From a saved file to its tag in kitd's own registry: what a small project costs."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import tree
from benchmarks.measure import Comparison, Settings
from benchmarks.scene import daemon
from benchmarks.tag import Tag

DEADLINE_S = 60.0


def run(place: Path, settings: Settings) -> Iterator[str]:
    """Measure several saves of one file."""
    root = place / "project"
    root.mkdir()
    tree.write_kitfile(root, code=[{"path": "."}])
    with daemon(place / "kitd", {"registry": {"listen": "127.0.0.1:0"}}) as scene:
        address = scene.registry_address()
    config = {
        "registry": {"listen": address},
        "projects": {
            "bench": {
                "path": str(root),
                "reference": f"{address}/bench/save",
                "settle": {"quiet": tree.milliseconds(settings.quiet_s)},
            }
        },
    }
    seconds = []
    with (
        daemon(place / "kitd", config) as scene,
        contextlib.closing(Tag(address, "bench/save", "latest")) as tag,
        scene.connect() as client,
    ):
        known = tag.await_other(None, deadline_s=DEADLINE_S)
        for number in range(settings.rounds):
            (root / "a.py").write_text(f"{number}\n")
            started_s = time.perf_counter()
            known = tag.await_other(known, deadline_s=DEADLINE_S)
            seconds.append(time.perf_counter() - started_s)
            scene.await_no_jobs(client)
    quiet = (settings.quiet_s,) * settings.rounds
    yield Comparison("save to tag", {"kitd": tuple(seconds), "settle.quiet": quiet}).table()
