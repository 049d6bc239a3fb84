"""GGUF: a header, key-value metadata, tensor descriptions, and the tensors, each at an alignment.

Source: ggml's docs/gguf.md, versions 2 and 3, in either byte order; block sizes from ggml-common.h.
What stands in the metadata is stepped over. Where a type is not known nothing can be told.
"""

import math
import struct
from collections.abc import Mapping

from kitd.packing.gate.format.content import Content, Format

MAX_ENTRIES = 200_000
"""Keys and tensors that are stepped over: the largest models have some ten thousand."""
MAX_STRINGS = 2_000_000
"""Strings in all arrays: the largest vocabularies and their merges are under a million."""
MAX_DIMENSIONS = 8
_WINDOW_BYTES = 1 << 18

_SCALAR_BYTES: Mapping[int, int] = {
    0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8,
}  # fmt: skip
_LEAST_PAIR_BYTES = 8 + 4 + 1
_LEAST_TENSOR_BYTES = 8 + 4 + 4 + 8
_ALIGNMENT = b"general.alignment"
_UINT32, _STRING, _ARRAY = 4, 8, 9
_BLOCKS: Mapping[int, tuple[int, int]] = {
    # F32, F16, BF16, F64, I8, I16, I32, I64
    0: (1, 4), 1: (1, 2), 30: (1, 2), 28: (1, 8), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    # Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1
    2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    # Q2_K to Q6_K, Q8_K
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    # IQ2_XXS, IQ2_XS, IQ3_XXS, IQ1_S, IQ4_NL
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    # IQ3_S, IQ2_S, IQ4_XS, IQ1_M, TQ1_0, TQ2_0, MXFP4, NVFP4, Q1_0
    21: (256, 110), 22: (256, 82), 23: (256, 136), 29: (256, 56), 34: (256, 54), 35: (256, 66),
    39: (32, 17), 40: (64, 36), 41: (128, 18),
}  # fmt: skip
"""Of each type of tensor: elements and bytes of a block."""


class _EndedError(Exception):
    """The file ends before its header does."""


class _UnknownError(Exception):
    """What the header says is not understood, or more than is looked at."""


class _Cursor:
    """Steps forward through a file, which it reads in large pieces."""

    def __init__(self, content: Content, order: str, position: int) -> None:
        self._content = content
        self._u32 = struct.Struct(f"{order}I")
        self._u64 = struct.Struct(f"{order}Q")
        self._window = b""
        self._window_start = 0
        self._strings = 0
        self.position = position

    def u32(self) -> int:
        value: int = self._u32.unpack(self.take(4))[0]
        return value

    def u64(self) -> int:
        value: int = self._u64.unpack(self.take(8))[0]
        return value

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes, which are few."""
        start = self._require_loaded(count)
        self.position += count
        return self._window[start : start + count]

    def skip(self, count: int) -> None:
        self.position += count
        if self.position > self._content.size:
            raise _EndedError

    def require(self, least_bytes: int) -> None:
        """Check that at least so much follows, before things are counted that cannot be there."""
        if least_bytes > self._content.size - self.position:
            raise _EndedError

    def skip_strings(self, count: int) -> None:
        """Step over strings, of which there may be very many."""
        self.require(count * 8)
        self._strings += count
        if self._strings > MAX_STRINGS:
            raise _UnknownError
        unpack_from = self._u64.unpack_from
        while count:
            at = self._require_loaded(8)
            window, last = self._window, len(self._window) - 8
            while count and at <= last:
                at += 8 + unpack_from(window, at)[0]
                count -= 1
            self.position = self._window_start
            self.skip(at)

    def _require_loaded(self, count: int) -> int:
        """Return where in the window the next `count` bytes are."""
        start = self.position - self._window_start
        if 0 <= start <= len(self._window) - count:
            return start
        self._window = self._content.read_at(self.position, _WINDOW_BYTES)
        self._window_start = self.position
        if len(self._window) < count:
            raise _EndedError
        return 0


def _finding(content: Content) -> str | None:
    order = "<"
    version = content.read_at(4, 4)
    if len(version) == 4 and version[3]:
        order, version = ">", version[::-1]
    if len(version) == 4 and int.from_bytes(version, "little") not in (2, 3):
        return None
    try:
        end = _data_end(_Cursor(content, order, 8))
    except _EndedError:
        return f"the file ends within its GGUF header, after {content.size} bytes"
    except _UnknownError:
        return None
    return content.shortfall("GGUF header", end)


def _data_end(cursor: _Cursor) -> int:
    """Return where the last tensor ends, in bytes from the beginning of the file."""
    tensors, pairs = cursor.u64(), cursor.u64()
    cursor.require(tensors * _LEAST_TENSOR_BYTES + pairs * _LEAST_PAIR_BYTES)
    if tensors + pairs > MAX_ENTRIES:
        raise _UnknownError
    alignment = 32
    for _ in range(pairs):
        alignment = _step_over_pair(cursor) or alignment
    ends = [_tensor_end(cursor) for _ in range(tensors)]
    if not ends:
        return cursor.position
    return cursor.position + -cursor.position % alignment + max(ends)


def _step_over_pair(cursor: _Cursor) -> int | None:
    """Step over a key and its value, and return the latter if it is the alignment."""
    length = cursor.u64()
    if length == len(_ALIGNMENT):
        key = cursor.take(length)
    else:
        key = b""
        cursor.skip(length)
    kind = cursor.u32()
    if key == _ALIGNMENT:
        alignment = cursor.u32() if kind == _UINT32 else 0
        if not alignment:
            raise _UnknownError
        return alignment
    if kind == _ARRAY:
        _step_over(cursor, cursor.u32(), cursor.u64())
    else:
        _step_over(cursor, kind, 1)
    return None


def _step_over(cursor: _Cursor, kind: int, count: int) -> None:
    if kind == _STRING:
        cursor.skip_strings(count)
    elif kind in _SCALAR_BYTES:
        cursor.skip(_SCALAR_BYTES[kind] * count)
    else:
        # Arrays of arrays are in the description and in no file.
        raise _UnknownError


def _tensor_end(cursor: _Cursor) -> int:
    """Step over a tensor's description, and return where its data ends after the header."""
    cursor.skip(cursor.u64())
    rank = cursor.u32()
    if rank > MAX_DIMENSIONS:
        raise _UnknownError
    elements = math.prod(cursor.u64() for _ in range(rank))
    block = _BLOCKS.get(cursor.u32())
    offset = cursor.u64()
    if block is None or elements % block[0]:
        raise _UnknownError
    return offset + elements // block[0] * block[1]


FORMAT = Format(
    name="GGUF",
    suffixes=frozenset({b".gguf"}),
    shared_suffixes=frozenset(),
    magics=(b"GGUF",),
    finding=_finding,
)
