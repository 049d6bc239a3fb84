"""What becomes of a process whose event loop answers to signals, and of one whose loop does not."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "watched_process.py"


class Watched:
    """The process, its output line by line."""

    def __init__(self, what, errors):
        self.errors = errors
        with errors.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, PROGRAM, what], stdout=subprocess.PIPE, stderr=file, text=True
            )

    def hear(self):
        return self.process.stdout.readline().strip()

    def child(self):
        """Return the process that it started; it is ready after that."""
        child = int(self.hear())
        assert self.hear() == "ready"
        return child

    def end(self, number):
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=20)


@pytest.fixture
def watched(tmp_path):
    begun = []

    def begin(what):
        begun.append(Watched(what, tmp_path / "stderr"))
        return begun[-1]

    yield begin
    for each in begun:
        each.process.kill()
        each.process.wait()
        each.process.stdout.close()


def eventually(happened):
    """Whether something happens, within a moment."""
    end_s = time.monotonic() + 10
    while not (answer := happened()) and time.monotonic() < end_s:
        time.sleep(0.02)
    return answer


def gone(pid):
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_reaches_the_loop(watched, number):
    process = watched("obeys")
    process.child()
    assert process.end(number) == 0
    assert process.hear() == "stopping"


def test_a_stop_before_it_is_ready_cancels_the_start(watched):
    process = watched("start")
    assert process.hear() == "ready"
    assert process.end(signal.SIGTERM) == 70


def test_a_hangup_reaches_the_loop_and_ends_nothing(watched):
    process = watched("obeys")
    process.child()
    process.process.send_signal(signal.SIGHUP)
    assert process.hear() == "reload"
    assert process.end(signal.SIGTERM) == 0


def test_a_loop_that_does_not_answer_to_a_stop_is_killed_and_that_is_said(watched):
    """With its children, and with the line in the log that shows what it hangs in."""
    process = watched("blocks")
    child = process.child()
    assert process.end(signal.SIGTERM) == 75
    said = process.errors.read_text()
    assert eventually(lambda: gone(child))
    assert "has not answered" in said
    assert "watched_process.py" in said, "the stacks"
    assert "in daemon" in said


def test_a_stop_that_takes_too_long_is_cut_short(watched):
    process = watched("never")
    child = process.child()
    assert process.end(signal.SIGTERM) == 75
    assert eventually(lambda: gone(child))
    assert "the stop takes longer than 2 s" in process.errors.read_text()


def test_a_second_signal_ends_it_at_once(watched):
    process = watched("lingers")
    child = process.child()
    process.process.send_signal(signal.SIGTERM)
    assert process.hear() == "stopping"
    assert process.end(signal.SIGTERM) == 128 + signal.SIGTERM
    assert eventually(lambda: gone(child))


def test_a_thread_that_hangs_does_not_keep_the_process(watched):
    """The daemon has ended in good order: the exit code says so."""
    process = watched("thread")
    process.child()
    assert process.end(signal.SIGTERM) == 0
    assert "daemon.left_behind" in process.errors.read_text()


def test_a_loop_that_stalls_is_reported_with_its_stacks(watched):
    process = watched("stalls")
    process.child()
    assert process.hear() == "back"
    assert eventually(lambda: "daemon.loop_answers_again" in process.errors.read_text())
    said = [json.loads(line) for line in process.errors.read_text().splitlines()]
    assert [line for line in said if line["event"] == "daemon.loop_stalled"]
    stacks = {line["thread"]: line["stack"] for line in said if line["event"] == "daemon.stack"}
    assert re.match(r"\S+/watched_process\.py:\d+ in daemon\n", stacks["kitd-loop"])


@pytest.mark.parametrize(("what", "code"), [("obeys", 0), ("blocks", 75), ("never", 75)])
def test_a_log_that_nobody_reads_keeps_nothing_from_ending(watched, tmp_path, what, code):
    """The pipe is full before the first line of kitd's."""
    os.mkfifo(tmp_path / "stderr")
    pipe = os.open(tmp_path / "stderr", os.O_RDWR | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe, b"x")
    process = watched(what)
    process.child()
    assert process.end(signal.SIGTERM) == code
    os.close(pipe)
