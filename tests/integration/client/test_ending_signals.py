"""Commands that are told to end: in a process of their own, which ends by the signal."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from process_1 import alone, first_of

BEGIN = """
import os, signal
from kitd.ctl import ending_signals
from kitd.ctl.ending_signals import TakenBackBySignals
def end(number=signal.SIGTERM):
    os.kill(os.getpid(), number)
"""


def run(script: str, given: str = "") -> tuple[int, str, str]:
    command = [sys.executable, "-c", BEGIN + script]
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=30, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_what_was_begun_is_taken_back_first(name):
    script = f"""
with TakenBackBySignals():
    try:
        end(signal.{name})
        print("goes on")
    finally:
        print("taken back", flush=True)
"""
    assert run(script) == (-getattr(signal, name), "taken back\n", "")


def test_it_may_come_at_any_line():
    """Also before and after the body: nowhere does it escape as a traceback."""
    script = """
import contextlib, sys
left = int(input())
places = (contextlib.__file__, ending_signals.__file__)
def trace(frame, event, _):
    global left
    if frame.f_code.co_filename not in places:
        return None
    if event in ("call", "line"):
        left -= 1
        if left == 0:
            end()
    return trace
sys.settrace(trace)
with TakenBackBySignals():
    pass
sys.settrace(None)
print("done" if left > 0 else "goes on")
"""
    for line in range(1, 100):
        code, said, error = run(script, f"{line}\n")
        assert error == ""
        if said == "done\n":
            break
        assert (code, said) == (-signal.SIGTERM, "")
    assert line > 10


def test_one_that_python_drops_is_not_the_last():
    script = """
class Dropped:
    def __del__(self):
        end()
with TakenBackBySignals():
    Dropped()
    print("goes on", flush=True)
    end()
    print("still goes on", flush=True)
"""
    code, said, _ = run(script)
    assert (code, said) == (-signal.SIGTERM, "goes on\n")


def test_one_that_was_dropped_counts_at_the_end():
    script = """
class Dropped:
    def __del__(self):
        end()
with TakenBackBySignals():
    Dropped()
print("goes on", flush=True)
"""
    assert run(script)[:2] == (-signal.SIGTERM, "")


def test_an_error_of_taking_back_is_told():
    script = """
try:
    with TakenBackBySignals():
        try:
            end()
        finally:
            raise OSError("it is in the way")
except OSError as error:
    print(error, flush=True)
end()
"""
    assert run(script) == (-signal.SIGTERM, "it is in the way\n", "")


def test_one_that_is_ignored_stays_so():
    script = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with TakenBackBySignals():
    end(signal.SIGHUP)
end(signal.SIGHUP)
print("goes on")
"""
    assert run(script) == (0, "goes on\n", "")


@pytest.fixture
def as_first():
    """Start a script as process 1; returns the process."""
    with alone() as programs:
        yield lambda script, **environment: programs.start(
            [sys.executable, "-c", script],
            env={**os.environ, **environment},
            stderr=subprocess.STDOUT,
        )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_process_1_ends_as_well(as_first, tmp_path, number):
    """A command that waits for its daemon, where the kernel would let it wait on."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        program = "import sys; sys.argv[1:] = ['status']\nfrom kitd.ctl.main import run\nrun()"
        process = as_first(program, KITD_SOCKET=str(tmp_path / "socket"))
        connection, _ = listener.accept()
        with connection:
            os.kill(first_of(process), number)

            assert process.wait(timeout=30) == 128 + number
    assert process.stdout.read() == ""


def test_process_1_takes_back_first(as_first):
    """Also with the handler that process 1 has of the beginning."""
    script = """
ending_signals.end_as_first()
for _ in range(2):
    with TakenBackBySignals():
        pass
with TakenBackBySignals():
    try:
        end()
        print("goes on")
    finally:
        print("taken back", flush=True)
"""
    process = as_first(BEGIN + script)

    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert process.stdout.read() == "taken back\n"
