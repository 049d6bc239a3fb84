"""A log that cannot be written costs the log, and nothing else."""

import contextlib
import fcntl
import json
import os
import signal
import time

import pytest

STOP_S = 10.0


def pack(daemon, project):
    """Have something done that is logged."""
    answer = daemon.kitctl("pack", project, "-t", "localhost/demo:v1")
    assert answer.code == 0, answer


def test_a_disk_that_is_full_for_the_log_keeps_nothing_from_working(kitd, project, tmp_path):
    daemon = kitd()
    daemon.log.symlink_to("/dev/full")
    daemon.start()
    pack(daemon, project)
    assert daemon.stop() == 0


def test_why_kitd_does_not_start_is_in_the_exit_code_where_the_log_takes_nothing(kitd):
    daemon = kitd({"unknown": 1})
    daemon.log.symlink_to("/dev/full")
    daemon.start(ready=False)
    assert daemon.process.wait(timeout=20) == 78


def test_a_reader_of_the_log_that_has_gone_ends_nothing(kitd, project):
    daemon = kitd()
    os.mkfifo(daemon.log)
    reader = os.open(daemon.log, os.O_RDONLY | os.O_NONBLOCK)
    daemon.start()
    os.close(reader)
    pack(daemon, project)
    assert daemon.stop() == 0


def test_a_log_that_nobody_reads_neither_stops_kitd_nor_its_stop(kitd, project):
    daemon = kitd()
    os.mkfifo(daemon.log)
    pipe = os.open(daemon.log, os.O_RDWR | os.O_NONBLOCK)
    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe, b"x")
    daemon.start()
    pack(daemon, project)
    began_s = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began_s < STOP_S
    os.close(pipe)


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_a_file_of_kitds_does_not_become_standard_error(kitd, project, closed):
    """Whoever closes it has the next file that is opened take its number."""
    daemon = kitd()
    daemon.start_command = ("/bin/sh", "-c", f'exec "$@" {closed}', "sh")
    daemon.start()
    assert os.readlink(f"/proc/{daemon.process.pid}/fd/2") == "/dev/null"
    pack(daemon, project)
    assert daemon.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_last_lines_come_out(kitd, number):
    daemon = kitd().start()
    daemon.process.send_signal(number)
    assert daemon.process.wait(timeout=20) == 0
    lines = [json.loads(line) for line in daemon.log.read_text().splitlines()]
    assert [line["event"] for line in lines][-2:] == ["daemon.stopping", "daemon.stopped"]
