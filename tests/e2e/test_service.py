"""kitd under a service manager: notifications, the watchdog, socket activation, the sandbox."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

REFUSE = """
import ctypes, os, sys
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
if ctypes.CDLL(None).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) != 0:
    sys.exit(99)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Asks the kernel for what MemoryDenyWriteExecute= does (prctl(2)); it lasts across execve."""

PASS_ON = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "rpc"}
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Passes a listening socket on as the service manager does (sd_listen_fds(3))."""


@pytest.fixture
def manager(tmp_path):
    """A socket such as systemd listens on; `hear(word)` returns what was said up to that word."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(tmp_path / "notify"))
    sock.settimeout(20)
    heard = []

    def hear(word):
        while True:
            message = sock.recv(4096).decode()
            heard.extend(message.splitlines())
            if word in message:
                return message.splitlines()

    hear.heard = heard
    hear.address = str(tmp_path / "notify")
    yield hear
    sock.close()


def test_the_service_manager_hears_of_every_turn_in_order(kitd, manager):
    """READY, a status, the watchdog, RELOADING with the time, READY again, STOPPING."""
    daemon = kitd(NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="600000").start(ready=False)
    manager("READY=1")
    assert "STATUS=0 running, 0 ready, 0 blocked" in manager("WATCHDOG=1")
    manager("WATCHDOG=1")

    daemon.process.send_signal(signal.SIGHUP)
    before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    (_, began) = manager("RELOADING=1")
    assert abs(int(began.removeprefix("MONOTONIC_USEC=")) - before_us) < 20_000_000
    manager("READY=1")

    assert daemon.stop() == 0
    manager("STOPPING=1")
    turns = [word for word in manager.heard if word in ("READY=1", "RELOADING=1", "STOPPING=1")]
    assert turns == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]


def test_the_watchdog_of_another_process_is_not_answered(kitd, manager):
    daemon = kitd(NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="600000", WATCHDOG_PID="1").start(
        ready=False
    )
    manager("STATUS=")
    assert daemon.stop() == 0


def test_a_ledger_that_was_locked_is_found_to_be_well_by_the_pulse(kitd, manager, eventually):
    """Nobody else writes anything, and nobody asks whether kitd is ready."""
    daemon = kitd(NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="600000").start()
    path = daemon.place / "state" / "ledger.sqlite3"

    def is_told():
        return any("is locked" in reason for reason in daemon.json("status")["degraded"])

    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        eventually("the trouble to be told", is_told)
        answer = daemon.kitctl("doctor")
        assert answer.code == 1
        assert f"fuser -v {path}" in answer.out
    eventually("the end of the trouble", lambda: not is_told())
    assert '"ledger.written_again"' in daemon.log.read_text()


def test_what_the_service_manager_said_is_not_passed_on(kitd, manager):
    """A worker that could notify could keep a dead kitd alive."""
    daemon = kitd(NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="60000000").start()
    children = daemon.children()
    assert children
    for child in children:
        environ = Path(f"/proc/{child}/environ").read_text()
        assert "NOTIFY_SOCKET" not in environ
        assert "WATCHDOG" not in environ


def test_nothing_of_its_memory_is_written_to_a_core_file(kitd):
    """One byte is less than any core has, and the limit that also counts for piped cores."""
    daemon = kitd().start()
    limits = Path(f"/proc/{daemon.process.pid}/limits").read_text()
    (line,) = (each for each in limits.splitlines() if each.startswith("Max core file size"))
    assert line.split()[4:6] in (["1", "1"], ["0", "0"])


@pytest.fixture
def activated(kitd, manager):
    """Start a daemon by systemd-socket-activate, which listens before there is one."""
    program = shutil.which("systemd-socket-activate")
    if program is None:
        pytest.skip("systemd-socket-activate is not installed")
    daemon = kitd()
    daemon.start_command = (
        program,
        f"--listen={daemon.socket}",
        "--fdname=rpc",
        "-E",
        f"NOTIFY_SOCKET={manager.address}",
    )
    return daemon


def test_a_client_that_comes_before_the_daemon_is_answered(activated, eventually):
    """The listener is systemd's: the first call starts kitd, and its file outlives kitd."""
    daemon = activated
    daemon.start(ready=False)
    eventually("the socket", daemon.socket.exists)
    assert daemon.kitctl("status").code == 0
    assert daemon.stop() == 0
    assert daemon.socket.exists()


def test_clients_wait_while_kitd_is_restarted(kitd, manager):
    """Whoever connects to a socket that the service manager holds is answered by the next kitd."""
    daemon = kitd(NOTIFY_SOCKET=manager.address)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(daemon.socket))
        listener.listen(16)
        daemon.start_command = (sys.executable, "-c", PASS_ON, str(listener.fileno()))
        daemon.pass_fds = (listener.fileno(),)
        daemon.start(ready=False)
        manager("READY=1")
        assert daemon.stop() == 0

        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(daemon.socket))
            client.sendall(b'{"jsonrpc":"2.0","id":1,"method":"system.ping"}\n')
            daemon.start(ready=False)
            assert b'"result"' in client.recv(4096)
        assert daemon.stop() == 0


def test_kitd_works_without_memory_that_is_written_and_executed(kitd, project):
    """MemoryDenyWriteExecute=: packs and unpacks."""
    refuse = (sys.executable, "-c", REFUSE)
    if subprocess.run([*refuse, "/bin/true"], check=False).returncode != 0:
        pytest.skip("this kernel does not have PR_SET_MDWE")
    daemon = kitd({"registry": {"listen": "127.0.0.1:0"}})
    daemon.start_command = refuse
    daemon.start()
    assert daemon.kitctl("pack", project, "-t", "demo:v1").code == 0
    assert daemon.kitctl("unpack", "demo:v1", "-d", daemon.place / "out").code == 0
    assert daemon.stop() == 0


def allowed_calls(unit):
    """Return the names of the system calls that a unit's SystemCallFilter= lets through."""

    def members(group):
        lines = subprocess.run(
            ["systemd-analyze", "syscall-filter", group],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split("\n")
        names = [line.strip() for line in lines[1:]]
        for name in names:
            if name.startswith("@"):
                yield from members(name)
            elif name and not name.startswith("#"):
                yield name

    allowed = set()
    for line in unit.read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "SystemCallFilter" and value.startswith("~"):
            allowed -= set(members(value[1:]))
        elif key == "SystemCallFilter":
            allowed |= set(members(value))
    return allowed


@pytest.mark.slow
def test_kitd_makes_no_system_call_that_its_unit_forbids(kitd, project, tmp_path, eventually):
    """Starts, watches, packs, checks its cache, stops; as strace sees it, children included."""
    for program in ("strace", "systemd-analyze"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    trace = tmp_path / "trace"
    daemon = kitd(
        {
            "projects": {
                "demo": {
                    "path": str(project),
                    "reference": "demo",
                    "push": False,
                    "settle": {"quiet": "200ms"},
                }
            },
            "registry": {"listen": "127.0.0.1:0"},
        }
    )
    daemon.start_command = ("strace", "-f", "-qq", "-c", "-S", "name", "-o", str(trace))
    daemon.start()
    eventually("a kit", lambda: daemon.project()["last_digest"])
    assert daemon.kitctl("cache", "verify").code == 0
    assert daemon.kitctl("unpack", "demo:latest", "-d", tmp_path / "out").code == 0
    # The one that is traced, and not the one that traces.
    (pid,) = daemon.children()
    os.kill(pid, signal.SIGTERM)
    assert daemon.process.wait(timeout=30) == 0

    rows = [line.split() for line in trace.read_text().splitlines()[2:]]
    # As root SQLite gives its files to the owner of the database; kitd's user is not root.
    used = {row[-1] for row in rows if row[-1].isidentifier()} - {"total", "fchown"}
    assert {"inotify_add_watch", "fdatasync", "sched_setscheduler"} <= used
    unit = Path(__file__).parents[2] / "systemd" / "kitd.service"
    assert used - allowed_calls(unit) == set()
