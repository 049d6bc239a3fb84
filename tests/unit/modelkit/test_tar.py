"""Tar headers, beyond what the golden kits cover."""

import hashlib
import io
import tarfile

import pytest

from kitd.modelkit.tar import BLOCK, TRAILER, header, padding


def read(path: bytes, mode: int = 0o644, size: int = 0, *, is_dir: bool = False) -> tarfile.TarInfo:
    archive = header(path, mode, size, is_dir=is_dir) + TRAILER
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        member = tar.next()
    assert member is not None
    return member


def test_a_short_name_is_one_block_with_everything_normalised():
    member = read(b"a/b", 0o100755, 7)
    assert (member.name, member.mode, member.size, member.type) == (
        "a/b",
        0o755,
        7,
        tarfile.REGTYPE,
    )
    assert (member.uid, member.gid, member.mtime, member.uname) == (1000, 0, 0, "")
    assert len(header(b"a/b", 0o644, 7, is_dir=False)) == BLOCK


@pytest.mark.parametrize(("size", "blocks"), [(8**11 - 1, 1), (8**11, 3), (2**40, 3)])
def test_eight_gibibytes_need_an_extended_header(size, blocks):
    assert len(header(b"big", 0o644, size, is_dir=False)) == blocks * BLOCK
    assert read(b"big", size=size).size == size


@pytest.mark.parametrize(
    ("path", "mode", "size", "is_dir", "digest"),
    [
        (b"d/" + b"a" * 98, 0o644, 4, False, "39fd6fb7d77b412c"),
        (b"x" * 60 + b"/" + b"y" * 60, 0o755, 0, True, "94b383c7cc6249b2"),
        ("é/ü.txt".encode(), 0o644, 4, False, "504048fa0331b996"),
        (b"caf\xe9/" + b"n" * 120, 0o600, 8**11, False, "265c5f90136be8a8"),
        (b"n" * 99 + b"/" + b"m" * 101, 0o1777, 0, True, "0d735366ec11402b"),
        (b"\xff\xfe", 0o4755, 1, False, "f94b42bac663221d"),
    ],
)
def test_the_bytes_are_those_of_gos_archive_tar(path, mode, size, is_dir, digest):
    block = header(path, mode, size, is_dir=is_dir)
    assert hashlib.sha256(block).hexdigest()[:16] == digest


@pytest.mark.parametrize("path", [b"caf\xe9", b"\xff" * 120, b"d/\x80\xfe/x"])
def test_names_that_are_not_utf8_come_back(path):
    assert read(path).name.encode("utf-8", "surrogateescape") == path


@pytest.mark.parametrize(("size", "length"), [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511)])
def test_padding_fills_the_last_block(size, length):
    assert padding(size) == bytes(length)
