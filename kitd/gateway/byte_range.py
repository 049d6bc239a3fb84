"""Byte ranges: `Range` of downloads (RFC 9110, section 14) and `Content-Range` of chunks. Pure."""

import re
from dataclasses import dataclass

from kitd.errors import KitdError

_RANGE = re.compile(r"bytes=\s*([0-9]{0,19})-([0-9]{0,19})\s*", re.ASCII | re.IGNORECASE)
_CHUNK = re.compile(r"([0-9]{1,19})-([0-9]{1,19})", re.ASCII)


class UnsatisfiableRangeError(KitdError):
    """No byte of the range that was asked for exists."""

    code = "unsatisfiable_range"


class InvalidRangeError(KitdError):
    """The header is not a range of bytes."""

    code = "invalid_range"


@dataclass(frozen=True, slots=True)
class ByteRange:
    """`length_bytes` bytes from `start` on."""

    start: int
    length_bytes: int

    @property
    def end(self) -> int:
        """The position after the last byte."""
        return self.start + self.length_bytes


def parse_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """Return the part of `size_bytes` that `Range` asks for, or None for the whole.

    Other units, several ranges and what cannot be read ask for the whole, as RFC 9110 allows.
    Raises `UnsatisfiableRangeError`.
    """
    match = None if header is None else _RANGE.fullmatch(header)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first == "":
        start, end = max(0, size_bytes - int(last)), size_bytes
    else:
        start = int(first)
        end = min(int(last) + 1, size_bytes) if last else size_bytes
        if last and int(last) < start:
            return None
    if start >= end:
        raise UnsatisfiableRangeError(f"the range {header!r} lies outside of {size_bytes} bytes")
    return ByteRange(start, end - start)


def parse_content_range(header: str | None) -> ByteRange | None:
    """Return where a chunk belongs, or None where the request does not say.

    The specification has `<start>-<end>`, both inclusive, without a unit; `bytes ` before it and
    `/<total>` after it, which some clients send, are refused like everything else.
    Raises `InvalidRangeError`.
    """
    if header is None:
        return None
    match = _CHUNK.fullmatch(header)
    if match is None:
        raise InvalidRangeError(
            f"the Content-Range {header[:80]!r} is not <start>-<end>", hint="count from 0"
        )
    start, last = int(match[1]), int(match[2])
    if last < start:
        raise InvalidRangeError(f"the Content-Range {header[:80]!r} ends before it begins")
    return ByteRange(start, last + 1 - start)
