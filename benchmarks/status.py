"""How long `kitctl status` takes, beside an empty Python."""

import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.measure import Comparison, Settings, alternate, command, goal, ready
from benchmarks.scene import BIN, daemon

ROUNDS = 20
GOAL_MS = 60.0


def run(place: Path, settings: Settings) -> Iterator[str]:
    """Measure some rounds; there is nothing to scale."""
    with daemon(place, {}) as scene:
        contestants = {
            "kitctl": ready(partial(scene.kitctl, "status")),
            "python": ready(command(str(BIN / "python"), "-c", "pass")),
        }
        seconds = alternate(contestants, rounds=max(ROUNDS, settings.rounds))
    is_met = statistics.median(seconds["kitctl"]) * 1000 <= GOAL_MS
    note = goal(f"at most {GOAL_MS:g} ms", is_met=is_met)
    yield Comparison("the command `kitctl status`", seconds, note=note).table()
