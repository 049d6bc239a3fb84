"""Stopping in the middle of something: at once, with exit code 0, and nothing is left or lost."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
STOP_S = 10.0
"""What a service manager should never have to wait for longer."""
HUGE = 16 << 30
"""Bytes of a file without content: far more than is packed before the stop."""
COMPRESSED = {"modelkit": {"compression": "gzip"}}
"""Hardly anything is written of that file then, and no room is demanded for all of it."""


def alive(pid):
    """Whether a process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def job_states(daemon):
    """Return the states of all jobs, from the ledger of a daemon that has ended."""
    ledger = sqlite3.connect(daemon.place / "state" / "ledger.sqlite3")
    try:
        return dict(ledger.execute("SELECT kind, state FROM jobs ORDER BY id").fetchall())
    finally:
        ledger.close()


def stop(daemon, number=signal.SIGTERM):
    """Stop the daemon and look that nothing of it is left."""
    workers = daemon.children()
    began_s = time.monotonic()
    daemon.process.send_signal(number)
    code = daemon.process.wait(timeout=30)
    took_s = time.monotonic() - began_s

    log = daemon.log.read_text()
    assert code == 0, log
    assert took_s < STOP_S
    assert "Traceback" not in log
    assert '"exception"' not in log
    assert not any(map(alive, workers))
    assert not daemon.socket.exists()
    assert list((daemon.cache / "ingest").iterdir()) == []


@pytest.fixture
def endless(project):
    """A project that is not packed before somebody ends it."""
    os.truncate(project / "model.bin", HUGE)
    return project


@pytest.fixture
def deaf_host():
    """The address of a registry that takes every connection and says nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    taken = []

    def accept():
        while True:
            try:
                taken.append(listener.accept()[0])
            except OSError:
                return

    thread = threading.Thread(target=accept)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()
    for sock in taken:
        sock.close()


def connections(daemon):
    """Return how many clients the daemon serves."""
    sockets = Path("/proc/net/unix").read_text().splitlines()
    # The one that listens has the same path.
    return sum(line.endswith(f" {daemon.socket}") for line in sockets) - 1


def said(daemon, event):
    """Return the line of the log that tells of an event."""
    lines = map(json.loads, daemon.log.read_text().splitlines())
    return next(line for line in lines if line["event"] == event)


def running(daemon, kind):
    """Return the job of a kind that runs, if one does."""
    return next((job for job in daemon.jobs(kind) if job["state"] == "running"), None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_puts_the_pack_of_a_project_back(kitd, watched, endless, eventually, number):
    """The worker is killed, its file removed, and the job is ready for the next start."""
    daemon = kitd(watched("demo", push=False) | COMPRESSED).start()
    eventually(
        "the pack to write",
        lambda: (job := running(daemon, "pack")) and job["progress"] and job["progress"]["bytes"],
    )

    stop(daemon, number)

    assert job_states(daemon) == {"pack": "ready"}


@pytest.mark.parametrize("kind", ["push", "pull"])
def test_a_stop_does_not_wait_for_a_registry(kitd, project, deaf_host, eventually, kind):
    """One that is silent holds up its own job and not the stop."""
    daemon = kitd().start()
    assert daemon.kitctl("pack", project, "-t", f"{deaf_host}/team/demo:v1").code == 0
    assert daemon.kitctl(kind, f"{deaf_host}/team/demo:v1", "--detach").code == 0
    eventually(f"the {kind} to run", lambda: running(daemon, kind))

    stop(daemon)

    assert job_states(daemon) == {"pack": "succeeded", kind: "ready"}


def test_a_stop_keeps_the_upload_of_a_client_that_hangs(kitd, eventually):
    """What arrived in kitd's own registry is there after a restart; the rest is not waited for."""
    daemon = kitd({"registry": {"listen": "127.0.0.1:0"}}).start()
    eventually("the log", lambda: '"daemon.ready"' in daemon.log.read_text())
    host, _, port = said(daemon, "daemon.ready")["registry"].rpartition(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = client.recv(65536).decode()
        location = re.search(r"(?i)^location: (\S+)", answer, re.MULTILINE)[1]
        head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {HUGE}\r\n\r\n"
        client.sendall(head.encode() + bytes(1 << 20))
        (upload,) = (daemon.cache / "uploads").glob("*")
        eventually("the bytes", lambda: upload.stat().st_size == 1 << 20)

        stop(daemon)

    assert upload.stat().st_size == 1 << 20


def test_those_who_follow_go_on_after_the_next_start(kitd, endless, eventually):
    """They are told in one line, and miss nothing."""
    daemon = kitd(COMPRESSED).start()
    job = daemon.kitctl("pack", endless, "-t", "demo:v1", "--detach").out.strip()
    following = subprocess.Popen(
        [BIN / "kitctl", "--socket", daemon.socket, "--json", "events", "-f"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with following, ThreadPoolExecutor() as people:
        log = people.submit(daemon.kitctl, "--json", "jobs", "log", job, "-f")
        eventually("both to wait", lambda: connections(daemon) == 2)
        stop(daemon)
        daemon.start()
        assert daemon.kitctl("jobs", "cancel", job).code == 0
        seen = []
        while not seen or seen[-1]["type"] != "job.cancelled":
            seen.append(json.loads(following.stdout.readline()))
        following.send_signal(signal.SIGINT)
        _, said = following.communicate(timeout=30)
    assert [each["seq"] for each in seen] == list(range(seen[0]["seq"], seen[-1]["seq"] + 1))
    assert "daemon.started" in {each["type"] for each in seen}
    assert said.splitlines() == ["kitd is away, waiting for it", "kitd is back"]
    assert log.result().code == 0, log.result().err
    assert json.loads(log.result().out.splitlines()[-1])["type"] == "job.cancelled"
