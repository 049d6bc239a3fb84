"""What becomes of a process whose event loop answers to signals, and of one whose loop does not."""

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

    def end(self, *signals):
        """Send signals and return the exit code and how long it took."""
        began_s = time.monotonic()
        for number in signals:
            self.process.send_signal(number)
            time.sleep(0.1 if len(signals) > 1 else 0)
        code = self.process.wait(timeout=20)
        return code, time.monotonic() - began_s


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


def gone(pid):
    """Whether a process has ended, within a moment."""
    end_s = time.monotonic() + 5
    stat = Path(f"/proc/{pid}/stat")
    while time.monotonic() < end_s:
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_reaches_the_loop(watched, number):
    process = watched("obeys")
    process.child()
    assert process.end(number)[0] == 0
    assert process.hear() == "stopping"


def test_a_stop_before_it_is_ready_cancels_the_start(watched):
    process = watched("start")
    assert process.hear() == "ready"
    code, took_s = process.end(signal.SIGTERM)
    assert code != 0
    assert took_s < 5


def test_a_hangup_reaches_the_loop_and_ends_nothing(watched):
    process = watched("obeys")
    process.child()
    process.process.send_signal(signal.SIGHUP)
    assert process.hear() == "reload"
    assert process.end(signal.SIGTERM)[0] == 0


def test_a_loop_that_does_not_answer_to_a_stop_is_killed_and_that_is_said(watched):
    """With its children, and with the line in the log that shows what it hangs in."""
    process = watched("blocks")
    child = process.child()
    code, took_s = process.end(signal.SIGTERM)
    said = process.errors.read_text()
    assert code == 75
    assert took_s < 5
    assert gone(child)
    assert "has not answered" in said
    assert "watched_process.py" in said, "the stacks"
    assert "in daemon" in said


def test_a_stop_that_takes_too_long_is_cut_short(watched):
    process = watched("never")
    child = process.child()
    code, took_s = process.end(signal.SIGTERM)
    assert code == 75
    assert 1.5 < took_s < 8
    assert gone(child)
    assert "the stop takes longer than 2 s" in process.errors.read_text()


def test_a_second_signal_ends_it_at_once(watched):
    process = watched("never")
    child = process.child()
    code, took_s = process.end(signal.SIGTERM, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert took_s < 1.5
    assert gone(child)


def test_a_thread_that_hangs_does_not_keep_the_process(watched):
    """The daemon has ended in good order: the exit code says so."""
    process = watched("thread")
    process.child()
    code, took_s = process.end(signal.SIGTERM)
    assert code == 0
    assert took_s < 5
    assert "daemon.left_behind" in process.errors.read_text()


def test_a_loop_that_stalls_is_reported_with_its_stacks(watched):
    process = watched("stalls")
    process.child()
    assert process.hear() == "back"
    assert process.end(signal.SIGTERM)[0] == 0
    said = process.errors.read_text()
    assert said.count("daemon.loop_stalled") == 1
    assert "in daemon" in said
    assert "daemon.loop_answers_again" in said
