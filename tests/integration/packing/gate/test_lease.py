"""What a lease tells about a file, on file systems that can be believed and on others."""

import os
import signal

import pytest

from kitd.packing.gate.lease import Leases, has_writer, keep_writers_out


@pytest.fixture(autouse=True)
def _deaf_to_sigio():
    """As a worker is: the kernel says with that signal that somebody wants to write."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGIO, before)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_text("content")
    handle = os.open(path, os.O_RDONLY)
    yield path, handle
    os.close(handle)


@pytest.mark.parametrize(
    ("leases", "alone", "written"),
    [
        (Leases.TELL, False, True),
        (Leases.REFUSALS_TELL, None, True),
        (Leases.NOTHING, None, None),
    ],
)
def test_what_is_told_of_a_file_with_and_without_a_writer(file, leases, alone, written):
    path, handle = file
    assert has_writer(handle, leases) is alone
    with path.open("ab"):
        assert has_writer(handle, leases) is written
    assert has_writer(handle, leases) is alone


@pytest.mark.parametrize("leases", Leases)
def test_a_look_keeps_nobody_from_writing_afterwards(file, leases):
    path, handle = file
    has_writer(handle, leases)
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


@pytest.mark.parametrize("leases", [Leases.REFUSALS_TELL, Leases.NOTHING])
def test_nobody_waits_for_a_lease_that_says_nothing(file, leases):
    path, handle = file
    assert keep_writers_out(handle, leases) is None
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


def test_writers_wait_until_the_file_is_closed(tmp_path):
    path = tmp_path / "file"
    path.write_text("content")
    handle = os.open(path, os.O_RDONLY)
    assert keep_writers_out(handle) is False
    with pytest.raises(BlockingIOError):
        os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    os.close(handle)
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
