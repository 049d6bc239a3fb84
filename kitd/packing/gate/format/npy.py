"""NumPy's .npy: a header that is a Python literal with the type and the shape, and the array.

Source: numpy.lib.format, versions 1 to 3. More arrays may follow the first. Arrays of objects and
of records are not judged: how many bytes they take is not in the header, or not easily found.
"""

import math
import re

from kitd.packing.gate.format.content import Content, Format

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {1: 2, 2: 4, 3: 4}
MAX_HEADER_BYTES = 1 << 16
_TYPE = re.compile(rb"'descr':\s*'[<>|=]([biufcSUVmM])(\d{1,9})(?:\[[^\]]{0,20}\])?'")
_SHAPE = re.compile(rb"'shape':\s*\(([\d, L]*)\)")
_MAX_DIGITS = 19


def _finding(content: Content) -> str | None:
    preamble = content.read_at(0, 12)
    length_bytes = _LENGTH_BYTES.get(preamble[6] if len(preamble) > 6 else 1)
    if length_bytes is None:
        return None
    start = 8 + length_bytes
    if len(preamble) < start:
        return "the file ends within its NumPy header"
    header_bytes = int.from_bytes(preamble[8:start], "little")
    if header_bytes > MAX_HEADER_BYTES:
        return None
    if short := content.shortfall("length of the NumPy header", start + header_bytes):
        return short
    array_bytes = _array_bytes(content.read_at(start, header_bytes))
    if array_bytes is None:
        return None
    return content.shortfall("NumPy header", start + header_bytes + array_bytes)


def _array_bytes(header: bytes) -> int | None:
    """Return how many bytes an array takes, None if that is not simply said."""
    kind, shape = _TYPE.search(header), _SHAPE.search(header)
    if kind is None or shape is None:
        return None
    dimensions = [text.strip().removesuffix(b"L") for text in shape.group(1).split(b",")]
    if dimensions[-1] == b"":
        dimensions.pop()
    if not all(text.isdigit() and len(text) <= _MAX_DIGITS for text in dimensions):
        return None
    item_bytes = int(kind.group(2))
    if kind.group(1) == b"U":
        item_bytes *= 4
    elif kind.group(1) in b"mM":
        item_bytes = 8
    return item_bytes * math.prod(map(int, dimensions))


FORMAT = Format(
    name="NumPy",
    suffixes=frozenset({b".npy"}),
    shared_suffixes=frozenset(),
    magics=(_MAGIC,),
    finding=_finding,
)
