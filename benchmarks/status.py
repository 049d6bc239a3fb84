"""How long `kitctl status` takes, beside an empty Python."""

import subprocess
from pathlib import Path

from benchmarks.measure import Row, alternate
from benchmarks.scene import BIN, daemon


def run(place: Path) -> list[Row]:
    """Measure 20 rounds."""
    with daemon(place, {}) as scene:
        python = [str(BIN / "python"), "-c", "pass"]

        def status() -> None:
            command = [str(BIN / "kitctl"), "status"]
            subprocess.run(command, env=scene.environment, check=True, stdout=subprocess.DEVNULL)

        contestants = {"kitctl": status, "python": lambda: subprocess.run(python, check=True)}
        return [Row("kitctl status", alternate(contestants, rounds=20), "goal: at most 60 ms")]
