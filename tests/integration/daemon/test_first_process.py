"""Process 1 of a container: no orphan stays, and signals arrive."""

import os
import signal
import subprocess
import sys

import pytest

from process_1 import alone, first_of

PROGRAM = """
import os, signal, sys, time
from kitd.daemon.first_process import run_behind_first
{life}
sys.exit(run_behind_first(life))
"""


@pytest.fixture
def container():
    """Start a program as process 1; returns it."""
    with alone() as programs:
        yield lambda life, **options: programs.start(
            [sys.executable, "-c", PROGRAM.format(life=life)], **options
        )


ORPHANS = """
def life():
    assert os.getpid() != 1
    orphans = []
    for _ in range(3):
        reader, writer = os.pipe()
        parent = os.fork()
        if parent == 0:
            orphan = os.fork()
            if orphan == 0:
                os._exit(0)
            os.write(writer, b"%d" % orphan)
            os._exit(0)
        os.waitpid(parent, 0)
        orphans.append(int(os.read(reader, 16)))
    # A zombie still takes signals; nobody who is buried does.
    while orphans:
        try:
            os.kill(orphans[-1], 0)
        except ProcessLookupError:
            orphans.pop()
    return 7
"""


def test_orphans_are_buried(container):
    """Those who lost their parent leave nothing; the exit code is that of the daemon."""
    assert container(ORPHANS).wait(timeout=30) == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_signals_are_passed_on(container, number):
    """What the engine sends to process 1 arrives where kitd lives."""
    process = container(
        "def life():\n"
        "    wanted = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT]\n"
        "    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)\n"
        "    print('up', flush=True)\n"
        "    return 100 + signal.sigwait(wanted)\n"
    )
    assert process.stdout.readline() == "up\n"
    os.kill(first_of(process), number)

    assert process.wait(timeout=30) == 100 + number


def test_an_interrupt_at_a_terminal_arrives_once(container):
    """From process 1, and not from the terminal as well: a second one ends kitd without order."""
    keyboard, terminal = os.openpty()
    process = container(
        "def life():\n"
        "    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\n"
        "    print('up', flush=True)\n"
        "    return 100 + signal.sigwaitinfo([signal.SIGINT]).si_pid\n",
        before=("setsid", "--ctty"),
        stdin=terminal,
    )
    try:
        assert process.stdout.readline() == "up\n"
        os.write(keyboard, b"\x03")

        assert process.wait(timeout=30) == 101
    finally:
        os.close(keyboard)
        os.close(terminal)


def test_a_daemon_that_is_killed_is_told_as_shells_tell_it(container):
    """128 and the signal's number."""
    process = container("def life():\n    os.kill(os.getpid(), signal.SIGKILL)\n")

    assert process.wait(timeout=30) == 128 + signal.SIGKILL


def test_elsewhere_nothing_is_forked():
    """Who is not process 1 lives in the process that it is."""
    life = "def life():\n    return int(os.getpid() != int(sys.argv[1]))\n"
    program = PROGRAM.format(life=life).replace("sys.argv[1]", "os.environ['PID']")
    shell = f'export PID=$$; exec "{sys.executable}" -c "$PROGRAM"'
    done = subprocess.run(["sh", "-c", shell], env={**os.environ, "PROGRAM": program}, check=False)

    assert done.returncode == 0
