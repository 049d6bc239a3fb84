"""From a saved file to its tag in a registry, beyond the quiet time that was asked for."""

import json
import time
import urllib.request
from pathlib import Path

from benchmarks.measure import Row
from benchmarks.scene import daemon

QUIET_S = 1.0
SAVES = 5


def run(place: Path) -> list[Row]:
    """Measure several saves of a small project against kitd's own registry."""
    root = place / "project"
    root.mkdir()
    (root / "Kitfile").write_text("manifestVersion: 1.0.0\ncode: [{path: .}]\n")
    (root / "a.py").write_text("0\n")
    with daemon(place, {"registry": {"listen": "127.0.0.1:0"}}) as scene:
        lines = (place / "kitd.log").read_text().splitlines()
        ready = next(json.loads(line) for line in lines if '"daemon.ready"' in line)
    address = ready["registry"]
    config = {
        "registry": {"listen": address},
        "projects": {
            "bench": {
                "path": str(root),
                "reference": f"{address}/bench/save",
                "settle": {"quiet": f"{QUIET_S:.0f}s"},
            }
        },
    }
    with daemon(place, config) as scene:
        url = f"http://{address}/v2/bench/save/manifests/latest"

        def digest() -> str | None:
            try:
                with urllib.request.urlopen(url) as answer:
                    return str(answer.headers["Docker-Content-Digest"])
            except OSError:
                return None

        while digest() is None:
            time.sleep(0.02)
        seconds = []
        for number in range(SAVES):
            known = digest()
            (root / "a.py").write_text(f"{number + 1}\n")
            started_s = time.perf_counter()
            while digest() == known:
                time.sleep(0.01)
            seconds.append(time.perf_counter() - started_s)
            while "running" in scene.kitctl("jobs", "list"):
                time.sleep(0.02)
    quiet = tuple(QUIET_S for _ in seconds)
    return [Row("save to tag", {"kitd": tuple(seconds), "quiet time": quiet})]
