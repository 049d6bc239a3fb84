"""Files of secrets: what is one, and that nothing hangs, leaks or is repeated."""

import os
import stat

import pytest

from kitd.secret_file import MAX_BYTES, read_secret, read_whole


@pytest.fixture
def path(tmp_path):
    return tmp_path / "secret"


def refused(path, at_least_bytes=1):
    """Return why a file is refused."""
    with pytest.raises(ValueError, match=r"(be|is|has|holds) ") as caught:
        read_secret(path, at_least_bytes=at_least_bytes)
    assert "hunter" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "content", [b"hunter2", b"hunter2\n", b" \thunter2\r\n\n", b"\n" * (MAX_BYTES - 7) + b"hunter2"]
)
def test_a_secret_is_what_stands_between_the_white_space(path, content):
    path.write_bytes(content)
    assert read_secret(path) == b"hunter2"
    assert read_secret(path, at_least_bytes=7) == b"hunter2"
    assert refused(path, 8) == "holds a secret of fewer than 8 bytes"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b" \r\n", "is empty"),
        (b"hunter2" * MAX_BYTES, f"has more than {MAX_BYTES} bytes"),
    ],
)
def test_what_is_no_secret(path, content, why):
    path.write_bytes(content)
    assert refused(path) == why


def test_what_is_no_file_is_neither_waited_for_nor_kept_open(path, tmp_path):
    os.mkfifo(path)
    held = os.listdir("/proc/self/fd")
    assert refused(path) == "is not a file"
    assert refused(tmp_path) == "cannot be read: Is a directory"
    assert refused(tmp_path / "none") == "cannot be read: No such file or directory"
    assert len(os.listdir("/proc/self/fd")) == len(held)


def test_a_file_is_read_to_its_bound_with_its_mode(path):
    path.write_bytes(b"12345")
    path.chmod(0o640)
    content, mode = read_whole(path, max_bytes=5)
    assert (content, stat.S_IMODE(mode)) == (b"12345", 0o640)
    with pytest.raises(ValueError, match="more than 4 bytes"):
        read_whole(path, max_bytes=4)
