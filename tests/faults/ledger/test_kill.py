"""SIGKILL at any time: what was acknowledged is there, and what is there makes sense."""

import os
import random
import selectors
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from kitd.ledger.audit import audit_ledger

BUSY_LIFE = Path(__file__).with_name("busy_life.py")
KILLS = 20
START_DEADLINE_S = 20.0


def acknowledged_until_killed(ledger: Path, after_s: float) -> list[str]:
    """Let a life work for a while, kill it, and return every whole line that it said."""
    process = subprocess.Popen([sys.executable, BUSY_LIFE, ledger], stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = b""
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            deadline_s = time.monotonic() + START_DEADLINE_S
            started = False
            while (left_s := deadline_s - time.monotonic()) > 0:
                if selector.select(left_s):
                    chunk = os.read(process.stdout.fileno(), 1 << 16)
                    assert chunk, "the life ended by itself"
                    said += chunk
                if not started and b"started\n" in said:
                    started, deadline_s = True, time.monotonic() + after_s
            assert started, "the life did not start"
    finally:
        process.kill()
        # What was still in the pipe was acknowledged as well.
        said += process.stdout.read()
        process.stdout.close()
        process.wait()
    *lines, _cut = said.decode().split("\n")
    return lines


def test_nothing_acknowledged_is_lost_and_nothing_half_done_is_found(tmp_path):
    """One ledger, many lives that are killed while they write."""
    ledger = tmp_path / "ledger.sqlite3"
    chance = random.Random(20240229)
    enqueued: set[int] = set()
    succeeded: set[int] = set()
    for kill in range(1, KILLS + 1):
        for line in acknowledged_until_killed(ledger, chance.uniform(0.0, 0.08)):
            verb, _, job = line.partition(" ")
            if verb == "enqueued":
                enqueued.add(int(job))
            elif verb == "succeeded":
                succeeded.add(int(job))
        with closing(sqlite3.connect(ledger)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
            states = dict(connection.execute("SELECT id, state FROM jobs"))
            effects = [
                int(subject.removeprefix("job:"))
                for (subject,) in connection.execute(
                    "SELECT subject FROM events WHERE type = 'effect'"
                )
            ]
            events = connection.execute("SELECT count(*), max(seq) FROM events").fetchone()
            epochs = connection.execute("SELECT count(*) FROM epochs").fetchone()
        assert audit_ledger(ledger) == []
        assert enqueued <= set(states), "an acknowledged job is not in the ledger"
        ended = {job for job, state in states.items() if state == "succeeded"}
        assert succeeded <= ended, "an acknowledged end was undone"
        assert sorted(effects) == sorted(ended), "an end without its effect, or twice"
        assert events[0] == events[1], "a gap in the events"
        assert epochs == (kill,)
    # The test must have had something to lose.
    assert len(enqueued) > 10 * KILLS
    assert len(succeeded) > KILLS
