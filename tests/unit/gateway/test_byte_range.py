"""Range and Content-Range."""

import pytest

from kitd.gateway.byte_range import (
    ByteRange,
    InvalidRangeError,
    UnsatisfiableRangeError,
    parse_content_range,
    parse_range,
)


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-99", (0, 100)),
        ("bytes=10-19", (10, 10)),
        ("bytes=10-", (10, 90)),
        ("bytes=90-1000", (90, 10)),
        ("bytes=-10", (90, 10)),
        ("bytes=-1000", (0, 100)),
        ("Bytes=99-", (99, 1)),
    ],
)
def test_a_range_is_cut_to_the_file(header, part):
    assert parse_range(header, 100) == ByteRange(*part)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-1",
        "bytes=0-1,3-4",
        "lines=0-1",
        "bytes=٠-٩",
        "bytes=0-99999999999999999999999",
    ],
)
def test_what_is_not_one_range_of_bytes_asks_for_the_whole(header):
    assert parse_range(header, 100) is None


@pytest.mark.parametrize(
    ("header", "size_bytes"),
    [("bytes=100-", 100), ("bytes=100-200", 100), ("bytes=-0", 100), ("bytes=0-", 0)],
)
def test_a_range_without_a_byte_is_unsatisfiable(header, size_bytes):
    with pytest.raises(UnsatisfiableRangeError):
        parse_range(header, size_bytes)


@pytest.mark.parametrize(
    ("header", "chunk"), [("0-0", (0, 1)), ("0-1023", (0, 1024)), ("1024-2047", (1024, 1024))]
)
def test_a_chunk_is_placed_by_both_its_ends(header, chunk):
    parsed = parse_content_range(header)
    assert parsed == ByteRange(*chunk)
    assert parsed.end == sum(chunk)


def test_a_chunk_without_a_place_has_none():
    assert parse_content_range(None) is None


@pytest.mark.parametrize(
    "header",
    ["", "5-4", "bytes 0-1", "0-1/2", "0-1/*", "-1", "1-", "a-b", "0 - 1", "0-" + "9" * 20],
)
def test_a_chunk_with_an_unreadable_place_is_refused(header):
    with pytest.raises(InvalidRangeError):
        parse_content_range(header)
