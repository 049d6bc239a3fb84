"""How long `kitctl status` takes, beside an empty Python."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.measure import Comparison, Settings, alternate, command, ready
from benchmarks.scene import BIN, daemon

ROUNDS = 20


def run(place: Path, settings: Settings) -> Iterator[str]:
    """Measure some rounds; there is nothing to scale."""
    with daemon(place, {}) as scene:
        contestants = {
            "kitctl": ready(partial(scene.kitctl, "status")),
            "python": ready(command(str(BIN / "python"), "-c", "pass")),
        }
        seconds = alternate(contestants, rounds=max(ROUNDS, settings.rounds))
    yield Comparison("the command `kitctl status`", seconds, note="goal: at most 60 ms").table()
