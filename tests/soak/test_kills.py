"""kill -9 at any moment of everything that kitd does: nothing acknowledged is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILL_LIVES = Path(__file__).parents[1] / "faults" / "kill_lives.py"
DRIVERS = 2
SLOWEST_KILL_S = 20.0


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_kill_9_at_any_moment_loses_nothing(soak, start_docker_registry, tmp_path, capsys):
    """Several daemons beside each other, each with a seed of its own."""
    hosts = [start_docker_registry().host for _ in range(2)]
    kills = -(-soak.kills // DRIVERS)
    seeds = [1000 * soak.seed + number for number in range(DRIVERS)]
    drivers = [
        subprocess.Popen(
            [
                *(sys.executable, KILL_LIVES, tmp_path, *hosts),
                *("--seed", str(seed), "--kills", str(kills)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"]},
        )
        for seed in seeds
    ]
    try:
        said = [driver.communicate(timeout=kills * SLOWEST_KILL_S)[0] for driver in drivers]
    finally:
        for driver in drivers:
            driver.kill()
            driver.wait()
    assert all(said), "a driver ended without a word: its error is on stderr"
    found = [json.loads(text.splitlines()[-1]) for text in said]
    with capsys.disabled():
        for one in found:
            print(f"\nseed {one['seed']}: {one['kills']} kills in {one['seconds']:.0f} s")
            print("  " + ", ".join(f"{what}: {count}" for what, count in one["counts"].items()))
    wrong = [f"seed {one['seed']}: {line}" for one in found for line in one["wrong"]]
    assert not wrong, "\n".join(wrong)
    assert sum(one["kills"] for one in found) >= soak.kills
