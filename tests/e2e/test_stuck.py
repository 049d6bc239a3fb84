"""Stopping while something hangs that nobody can wake: within half a minute, whatever it is."""

import ctypes
import json
import os
import select
import signal
import sqlite3
import struct
import sys
import threading
import time
from pathlib import Path

import pytest

STOP_S = 30.0
BLOCKING = Path(__file__).parent / "blocking_kitd.py"
FUSE_INIT, FUSE_GETATTR = 26, 3
ROOT_INODE = 1


def state_of(pid):
    """Return a process's state as the kernel has it; Z if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def stop(daemon):
    """Ask once; return the exit code and how long it took."""
    began_s = time.monotonic()
    daemon.process.send_signal(signal.SIGTERM)
    return daemon.process.wait(timeout=STOP_S + 5), time.monotonic() - began_s


class DeadMount:
    """A file system whose server has taken every question and answers none (fuse(4))."""

    def __init__(self, place):
        self.place = place
        self.asked = threading.Event()
        """Somebody waits for an answer that will not come."""
        self.dead = False
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_NONBLOCK)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other"
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"dead", bytes(place), b"fuse", 0, options.encode()) != 0:
            os.close(self._device)
            raise OSError(ctypes.get_errno(), "mount")
        self._closing, self._closed = os.pipe()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while True:
            ready, _, _ = select.select([self._device, self._closing], [], [])
            if self._closing in ready:
                return
            question = os.read(self._device, 1 << 20)
            _, code, unique, _ = struct.unpack_from("<IIQQ", question)
            if code == FUSE_INIT:
                limits = struct.pack("<IIIIHHIIHHI", 7, 31, 0, 0, 16, 12, 1 << 16, 1, 16, 0, 0)
                self._answer(unique, limits.ljust(64, b"\0"))
            elif code == FUSE_GETATTR and not self.dead:
                status = struct.pack("<6Q3I4I3I", *[0] * 6, 0, 0, 0, 0o40755, 2, 0, 0, 0, 512, 0)
                status = struct.pack("<6Q", ROOT_INODE, 0, 0, 0, 0, 0) + status[48:]
                self._answer(unique, struct.pack("<QII", 0, 0, 0) + status)
            else:
                self.asked.set()

    def _answer(self, unique, body):
        os.write(self._device, struct.pack("<IiQ", 16 + len(body), 0, unique) + body)

    def end(self):
        os.write(self._closed, b"x")
        self._thread.join()
        # Closing the device ends the connection: whoever waited gets an error.
        for descriptor in (self._device, self._closing, self._closed):
            os.close(descriptor)
        ctypes.CDLL(None).umount2(bytes(self.place), 2)


@pytest.fixture
def dead_mount(tmp_path):
    place = tmp_path / "dead"
    place.mkdir()
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("mounting takes root and /dev/fuse")
    mount = DeadMount(place)
    yield mount
    mount.end()


def test_a_loop_that_hangs_is_killed_and_the_next_start_recovers(
    kitd, watched, project, eventually
):
    """The exit code is that of passing circumstances, and the log shows the line that hung."""
    daemon = kitd(watched("demo", push=False))
    daemon.start_command = (sys.executable, str(BLOCKING), str(daemon.place / "kitd.yaml"))
    daemon.start()
    eventually("the first pack", lambda: daemon.project()["last_digest"])
    workers = daemon.children()
    (project / "model.bin").write_bytes(b"changed")
    eventually("the loop to hang", lambda: "blocked" in daemon.log.read_text())

    code, _ = stop(daemon)

    assert code == 75
    assert all(state_of(worker) == "Z" for worker in workers)
    said = daemon.log.read_text()
    assert '"daemon.killed"' in said
    assert "has not answered" in said
    assert "blocking_kitd.py" in said
    daemon.start_command = ()
    daemon.start()
    assert daemon.quiet()["last_digest"]


def test_a_stop_does_not_wait_for_a_worker_that_is_stopped(kitd, watched, project, eventually):
    """A process that does not run does not hear of a signal either, except of the last one."""
    os.truncate(project / "model.bin", 16 << 30)
    # Of what is compressed, no room on the disk is demanded in advance.
    daemon = kitd(watched("demo", push=False) | {"modelkit": {"compression": "gzip"}}).start()
    eventually("the pack", lambda: [j for j in daemon.jobs("pack") if j["progress"]])
    workers = daemon.children()
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)

    code, took_s = stop(daemon)

    assert code == 0
    assert took_s < 10
    assert all(state_of(worker) == "Z" for worker in workers)


def test_a_stop_does_not_wait_for_a_dead_file_system(kitd, dead_mount, watched, eventually):
    """Neither a worker nor a thread that waits in there can be killed. The ledger is closed."""
    config = watched("demo", push=False)
    config["projects"]["demo"]["path"] = str(dead_mount.place)
    daemon = kitd(config).start()
    assert dead_mount.asked.wait(20)
    dead_mount.dead = True

    code, took_s = stop(daemon)

    assert code == 0, daemon.log.read_text()
    assert took_s < STOP_S
    said = [json.loads(line) for line in daemon.log.read_text().splitlines()]
    assert said[-1]["event"] != "daemon.killed"
    ledger = sqlite3.connect(daemon.place / "state" / "ledger.sqlite3")
    (stopped,) = ledger.execute("SELECT stopped_us FROM epochs ORDER BY epoch DESC").fetchone()
    ledger.close()
    assert stopped is not None
    assert not (daemon.place / "state" / "ledger.sqlite3-wal").exists()
