"""SIGKILL under a stream of deliveries: what was answered is there once, and so is its job."""

import http.client
import itertools
import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from kitd.ledger.audit import audit_ledger
from told import REGISTRY, SECRET, push, signed

LIFE = Path(__file__).with_name("webhook_life.py")
KILLS = int(os.environ.get("KITD_SOAK_WEBHOOK_KILLS", "15"))
SENDERS = 8

pytestmark = pytest.mark.timeout(60 + 5 * KILLS)


class Sender(threading.Thread):
    """Sends deliveries until its receiver is gone; one without an answer is sent to the next."""

    def __init__(self, numbers, unanswered, answers):
        super().__init__()
        self.numbers = numbers
        self.unanswered = unanswered
        """Those that a sender goes on with, because nobody answered."""
        self.answers = answers
        self.port = 0

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        draw = random.Random()
        try:
            while True:
                number = self.unanswered.pop() if self.unanswered else next(self.numbers)
                self.unanswered.append(number)
                body = push(f"team/model-{number}")
                name = {"x_name": f"d{number}"} if number % 2 else {}
                connection.request("POST", "/hooks/one", body, signed(body, **name))
                answer = connection.getresponse()
                answer.read()
                if answer.status < 300:
                    self.unanswered.remove(number)
                    self.answers.append((number, answer.status))
                    if draw.random() < 0.1:
                        # Whoever did not hear the answer sends it again.
                        self.unanswered.append(number)
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()


def test_every_delivery_that_was_answered_is_there_once(tmp_path):
    (tmp_path / "secret").write_bytes(SECRET)
    chance = random.Random(6)
    numbers = itertools.count()
    answers: list[tuple[int, int]] = []
    left: list[list[int]] = [[] for _ in range(SENDERS)]
    for _ in range(KILLS):
        with subprocess.Popen(
            [sys.executable, LIFE, tmp_path],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(LIFE.parents[1])},
        ) as life:
            port = int(life.stdout.readline())
            senders = [Sender(numbers, mine, answers) for mine in left]
            for sender in senders:
                sender.port = port
                sender.start()
            killer = threading.Timer(chance.uniform(0.02, 0.5), life.kill)
            killer.start()
            for sender in senders:
                sender.join()
            killer.join()
            life.wait()
        with closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as ledger:
            assert ledger.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            rows = ledger.execute("SELECT name, jobs FROM deliveries").fetchall()
            jobs = dict(ledger.execute("SELECT reference, id FROM jobs"))
            (asked,) = ledger.execute("SELECT count(*) FROM jobs").fetchone()
        assert asked == len(jobs), "a job was asked for twice"
        assert len(rows) == asked, "a delivery without its job, or a job without its delivery"
        assert sorted(json.loads(found) for _, found in rows) == [
            [job] for job in sorted(jobs.values())
        ]
        for number, _ in answers:
            assert f"{REGISTRY}/team/model-{number}:v1" in jobs, "an answered delivery was lost"
        assert audit_ledger(tmp_path / "ledger.sqlite3") == []
    first = Counter(number for number, status in answers if status == 202)
    assert set(first.values()) == {1}, "a delivery was new twice"
    # The test must have had something to lose, and something that came twice.
    assert len(first) > 20 * KILLS
    assert any(status == 200 for _, status in answers)
