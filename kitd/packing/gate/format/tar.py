"""Tar archives, which end with two blocks of zeros.

Source: POSIX.1-2017 pax, "ustar Interchange Format". Most readers do without.
"""

from kitd.modelkit.tar import BLOCK, TRAILER
from kitd.packing.gate.format.content import Content, Format


def _finding(content: Content) -> str | None:
    end = content.read_at(max(0, content.size - len(TRAILER)), len(TRAILER))
    if content.size >= BLOCK + len(TRAILER) and end == TRAILER:
        return None
    return "the blocks of zeros that end a tar archive are missing"


FORMAT = Format(
    name="tar",
    suffixes=frozenset(),
    shared_suffixes=frozenset({b".tar"}),
    magics=(b"ustar",),
    finding=_finding,
    magic_offset=257,
    is_lasting=False,
)
