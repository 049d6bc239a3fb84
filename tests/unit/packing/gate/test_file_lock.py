"""The kernel's list of locks, as proc(5) describes it."""

import os

import pytest

from kitd.packing.gate.file_lock import locked_files


@pytest.mark.parametrize(
    ("line", "locked"),
    [
        (b"1: FLOCK  ADVISORY  WRITE 4711 fd:01:131 0 EOF", {(os.makedev(0xFD, 1), 131)}),
        (b"12: POSIX  ADVISORY  WRITE 3568 08:0a:9 100 200", {(os.makedev(8, 10), 9)}),
        (b"2: OFDLCK ADVISORY  WRITE -1 00:1f:5 0 EOF", {(os.makedev(0, 31), 5)}),
        (b"2: FLOCK  ADVISORY  READ 4711 fd:01:131 0 EOF", set()),
        (b"3: LEASE  ACTIVE    READ 4711 fd:01:131 0 EOF", set()),
        (b"1: -> FLOCK  ADVISORY  WRITE 4712 fd:01:131 0 EOF", set()),
        (b"1: FLOCK", set()),
        (b"\xff\0", set()),
        (b"", set()),
    ],
)
def test_the_files_that_are_locked_for_writing(line, locked):
    assert locked_files(line + b"\n") == locked


def test_every_line_counts():
    lines = b"".join(
        b"%d: FLOCK  ADVISORY  WRITE 1 08:01:%d 0 EOF\n" % (number, number) for number in range(9)
    )
    assert {inode for _, inode in locked_files(lines)} == set(range(9))
