"""The bytes that inotify gives, and its calls."""

import errno
import os
import struct
from pathlib import Path

import pytest

from kitd.inotify import (
    CREATE,
    DELETE_SELF,
    IGNORED,
    MODIFY,
    Q_OVERFLOW,
    Event,
    add_watch,
    open_inotify,
    parse_events,
    remove_watch,
)


def encode(wd: int, mask: int, name: bytes = b"") -> bytes:
    return struct.pack("iIII", wd, mask, 0, len(name)) + name


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (encode(1, DELETE_SELF), [Event(1, DELETE_SELF, b"")]),
        (encode(1, CREATE, b"a\0\0\0"), [Event(1, CREATE, b"a")]),
        (encode(1, CREATE, b"\xff\n \0"), [Event(1, CREATE, b"\xff\n ")]),
        (encode(-1, Q_OVERFLOW), [Event(-1, Q_OVERFLOW, b"")]),
        (
            encode(1, MODIFY, b"a" * 16) + encode(2, IGNORED),
            [Event(1, MODIFY, b"a" * 16), Event(2, IGNORED, b"")],
        ),
        (encode(1, IGNORED) + encode(2, CREATE, b"name\0\0\0\0")[:-1], [Event(1, IGNORED, b"")]),
        (encode(1, IGNORED)[:-1], []),
    ],
)
def test_events_are_parsed(data: bytes, expected: list[Event]):
    assert list(parse_events(data)) == expected


@pytest.fixture
def inotify():
    descriptor = open_inotify()
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def directory(tmp_path: Path):
    (tmp_path / "watched").mkdir()
    descriptor = os.open(tmp_path / "watched", os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_an_instance_does_not_block_and_is_not_inherited(inotify: int):
    assert not os.get_blocking(inotify)
    assert not os.get_inheritable(inotify)
    with pytest.raises(BlockingIOError):
        os.read(inotify, 4096)


def test_the_open_directory_is_watched_wherever_it_is_by_now(
    inotify: int, directory: int, tmp_path: Path
):
    (tmp_path / "watched").rename(tmp_path / "moved")
    (tmp_path / "watched").mkdir()
    wd = add_watch(inotify, directory)
    (tmp_path / "watched" / "stranger").mkdir()
    (tmp_path / "moved" / "entry").mkdir()
    (event,) = parse_events(os.read(inotify, 4096))
    assert (event.wd, event.name) == (wd, b"entry")
    assert event.mask & CREATE


def test_a_directory_that_is_watched_again_has_one_watch(inotify: int, directory: int):
    assert add_watch(inotify, directory) == add_watch(inotify, directory)


def test_a_directory_that_was_deleted_can_be_watched_until_it_is_closed(
    inotify: int, tmp_path: Path
):
    (tmp_path / "gone").mkdir()
    directory = os.open(tmp_path / "gone", os.O_RDONLY)
    (tmp_path / "gone").rmdir()
    wd = add_watch(inotify, directory)
    os.close(directory)
    events = list(parse_events(os.read(inotify, 4096)))
    assert events == [Event(wd, DELETE_SELF, b""), Event(wd, IGNORED, b"")]


def test_writes_to_a_file_without_a_name_are_not_told(inotify: int, directory: int, tmp_path: Path):
    with (tmp_path / "watched" / "scratch").open("wb", buffering=0) as scratch:
        (tmp_path / "watched" / "scratch").unlink()
        add_watch(inotify, directory)
        scratch.write(b"x")
    with pytest.raises(BlockingIOError):
        os.read(inotify, 4096)


def test_a_removed_watch_says_so_and_can_be_removed_again(inotify: int, directory: int):
    wd = add_watch(inotify, directory)
    remove_watch(inotify, wd)
    remove_watch(inotify, wd)
    assert list(parse_events(os.read(inotify, 4096))) == [Event(wd, IGNORED, b"")]


def test_failures_carry_the_kernels_reason(inotify: int, tmp_path: Path):
    with (tmp_path / "file").open("wb") as file:
        with pytest.raises(NotADirectoryError):
            add_watch(inotify, file.fileno())
        with pytest.raises(OSError, match="Bad file") as caught:
            remove_watch(1 << 20, 1)
    assert caught.value.errno == errno.EBADF
