"""Arrow's IPC file format and Feather, which both have their magic number at both ends.

Source: Apache Arrow, "IPC File Format". Streams, which may have the same suffix, begin with another
number and have no end by which to know one.
"""

from kitd.packing.gate.format.content import Content, Format

_ARROW = b"ARROW1"
_FEATHER_1 = b"FEA1"
_LENGTH_BYTES = 4


def _finding(content: Content) -> str | None:
    magic = _ARROW if content.read_at(0, len(_ARROW)) == _ARROW else _FEATHER_1
    head_bytes, tail_bytes = 8, _LENGTH_BYTES + len(magic)
    tail = content.read_at(max(0, content.size - tail_bytes), tail_bytes)
    if content.size < head_bytes + tail_bytes or tail[_LENGTH_BYTES:] != magic:
        return "the footer of the Arrow file is missing"
    footer_bytes = int.from_bytes(tail[:_LENGTH_BYTES], "little")
    return content.shortfall("Arrow footer", footer_bytes + tail_bytes)


FORMAT = Format(
    name="Arrow",
    suffixes=frozenset({b".feather"}),
    shared_suffixes=frozenset({b".arrow"}),
    magics=(_ARROW, _FEATHER_1),
    finding=_finding,
)
