"""What becomes of lines of the log where standard error takes them late, in part, or not at all."""

import fcntl
import json
import os
import re
import subprocess
import sys
import threading

import pytest
import structlog

from kitd.daemon.log_writer import LogWriter


@pytest.fixture(autouse=True)
def bare():
    """What the writer itself has to say is JSON."""
    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    yield
    structlog.reset_defaults()


@pytest.fixture
def pipe():
    """A pipe that takes 4 KiB before it is read from: its two ends."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    yield reader, writer
    # The writer's thread is left with whatever this number is next, and writes nothing any more.
    os.close(writer)


def lost_in(line):
    said = json.loads(line)
    assert said["event"] == "log.lines_lost"
    return said["lines"]


def change(descriptor, path):
    """Have a descriptor lead elsewhere, as if a disk had room again."""
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(opened, descriptor)
    os.close(opened)


def test_lines_come_out_in_their_order_from_many_threads(tmp_path):
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    writer = LogWriter(descriptor)

    def put(name):
        for number in range(500):
            writer.put(f"{name} {number} {'x' * (number % 300)}\n")

    threads = [threading.Thread(target=put, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.flush(10)
    os.close(descriptor)
    lines = [line.split()[:2] for line in (tmp_path / "log").read_text().splitlines()]
    for name in "abc":
        assert [int(number) for who, number in lines if who == name] == list(range(500))


def test_a_line_longer_than_a_pipe_takes_comes_out_whole(pipe):
    reader, descriptor = pipe
    writer = LogWriter(descriptor)
    writer.put("x" * 10_000 + "\n")
    with open(reader, "rb") as file:
        assert file.readline() == b"x" * 10_000 + b"\n"
    assert writer.flush(10)


def test_what_a_full_disk_does_not_take_is_counted_and_told(tmp_path):
    descriptor = os.open("/dev/full", os.O_WRONLY)
    writer = LogWriter(descriptor)
    for number in range(3):
        writer.put(f"lost {number}\n")
    assert writer.flush(10)
    change(descriptor, tmp_path / "log")
    writer.put("kept\n")
    writer.put("kept as well\n")
    assert writer.flush(10)
    os.close(descriptor)
    first, *others = (tmp_path / "log").read_text().splitlines()
    assert lost_in(first) == 3
    assert others == ["kept", "kept as well"]


def test_a_pipe_whose_reader_has_gone_ends_nothing(pipe, tmp_path):
    reader, descriptor = pipe
    writer = LogWriter(descriptor)
    os.close(reader)
    for _ in range(100):
        writer.put("lost\n")
    assert writer.flush(10)
    change(descriptor, tmp_path / "log")
    writer.put("kept\n")
    assert writer.flush(10)
    first, last = (tmp_path / "log").read_text().splitlines()
    assert (lost_in(first), last) == (100, "kept")


def test_nobody_waits_for_a_pipe_that_is_not_read_from(pipe):
    """What there is no room for is lost, and told of at its place."""
    reader, descriptor = pipe
    writer = LogWriter(descriptor, max_lines=20)
    for number in range(200):
        writer.put(f"{number:<1000}\n")
    assert not writer.flush(0.1)

    with open(reader, "rb") as file:
        lines = []
        while not lines or b"lines_lost" not in lines[-1]:
            lines.append(file.readline())
        assert writer.flush(10)
        kept = [int(line) for line in lines[:-1]]
        assert kept == list(range(len(kept)))
        assert len(kept) >= 20
        assert lost_in(lines[-1]) == 200 - len(kept)
        writer.put("after\n")
        assert file.readline() == b"after\n"


def test_what_waits_is_bounded_in_bytes(pipe):
    reader, descriptor = pipe
    writer = LogWriter(descriptor, max_bytes=100_000)
    for _ in range(50):
        writer.put("x" * 9_999 + "\n")
    with open(reader, "rb") as file:
        kept = 0
        while b"lines_lost" not in (line := file.readline()):
            kept += 1
        assert kept == 10
        assert lost_in(line) == 40
    assert writer.flush(10)


def test_what_is_lost_is_told_of_where_it_would_have_been(pipe):
    reader, descriptor = pipe
    writer = LogWriter(descriptor, max_bytes=20_000)
    for length in (10_000, 12_000, 5_000, 13_000, 14_000):
        writer.put("x" * (length - 1) + "\n")
    with open(reader, "rb") as file:
        assert len(file.readline()) == 10_000
        assert lost_in(file.readline()) == 1
        assert len(file.readline()) == 5_000
        assert lost_in(file.readline()) == 2
    assert writer.flush(10)


def test_a_pipe_that_others_made_not_to_wait_is_waited_for(pipe):
    reader, descriptor = pipe
    os.set_blocking(descriptor, False)
    writer = LogWriter(descriptor)
    for number in range(100):
        writer.put(f"{number:<1000}\n")
    with open(reader, "rb") as file:
        assert [int(file.readline()) for _ in range(100)] == list(range(100))
    assert writer.flush(10)


TORN = """
import os, resource
from kitd.daemon.log_writer import LogWriter
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (25, hard))
writer = LogWriter(1)
for number in range(4):
    writer.put(f"number {number}\\n")
assert writer.flush(10)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
writer.put("whole\\n")
assert writer.flush(10)
"""


def test_a_line_that_came_out_in_part_does_not_spoil_the_next(tmp_path):
    with (tmp_path / "log").open("wb") as file:
        subprocess.run([sys.executable, "-c", TORN], stdout=file, check=True, timeout=30)
    *before, torn, told, last = (tmp_path / "log").read_text().splitlines()
    assert (before, torn, last) == (["number 0", "number 1"], "number ", "whole")
    assert re.search(r"log\.lines_lost.*lines.*\b2\b", re.sub(r"\x1b\[\d*m", "", told))
