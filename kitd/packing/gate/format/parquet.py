"""Parquet: the magic number at both ends, and before the second one the length of the footer.

Source: apache/parquet-format, "File format"; PARE where the footer is encrypted.
"""

from kitd.packing.gate.format.content import Content, Format

_MAGIC_BYTES = 4
_TAIL_BYTES = 8


def _finding(content: Content) -> str | None:
    tail = content.read_at(max(0, content.size - _TAIL_BYTES), _TAIL_BYTES)
    if content.size < _MAGIC_BYTES + _TAIL_BYTES or tail[4:] != content.read_at(0, _MAGIC_BYTES):
        return "the footer of the Parquet file is missing"
    footer_bytes = int.from_bytes(tail[:4], "little")
    return content.shortfall("Parquet footer", _MAGIC_BYTES + footer_bytes + _TAIL_BYTES)


FORMAT = Format(
    name="Parquet",
    suffixes=frozenset({b".parquet"}),
    shared_suffixes=frozenset(),
    magics=(b"PAR1", b"PARE"),
    finding=_finding,
)
