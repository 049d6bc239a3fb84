"""HDF5: the superblock says where the file ends.

Source: HDF5 File Format Specification 3.0, II.A "Format Signature and Superblock". Judged only
where that means this one file: where it begins with the superblock, and where none of the drivers
that spread a file over several is named (the block of version 0 and 1, the extension since).
"""

from kitd.packing.gate.format.content import Content, Format

_MAX_SUPERBLOCK_BYTES = 96
_ADDRESSES = {0: (13, 24, 4), 1: (13, 28, 4), 2: (9, 12, 3), 3: (9, 12, 3)}
"""Of each version: where the width of addresses stands, where the addresses begin, and how many
there are to look at."""


def _finding(content: Content) -> str | None:
    block = content.read_at(0, _MAX_SUPERBLOCK_BYTES)
    places = _ADDRESSES.get(block[8] if len(block) > 8 else 0)
    if places is None:
        return None
    width_at, start, count = places
    width = block[width_at] if len(block) > width_at else 8
    if width not in (4, 8):
        return None
    raw = [block[start + index * width :][:width] for index in range(count)]
    if len(raw[-1]) < width:
        return "the file ends within its HDF5 superblock"
    undefined = b"\xff" * width
    base, end = raw[0], raw[2]
    driver = raw[3] if count == 4 else raw[1]
    if any(base) or end == undefined or driver != undefined:
        return None
    return content.shortfall("HDF5 superblock", int.from_bytes(end, "little"))


FORMAT = Format(
    name="HDF5",
    suffixes=frozenset(),
    shared_suffixes=frozenset({b".h5", b".hdf5", b".nc"}),
    magics=(b"\x89HDF\r\n\x1a\n",),
    finding=_finding,
)
