"""ZIP archives, which PyTorch's checkpoints, NumPy's .npz, Keras's models and MCP bundles are too.

An archive ends with a record that says where its directory is (APPNOTE 4.3.16; of large archives,
4.3.14 and 4.3.15), and the directory ends where the record begins. An archive within the archive
does not pass for its end, because its own offsets begin elsewhere.
"""

import struct

from kitd.packing.gate.format.content import Content, Format

_END = struct.Struct("<4s4H2LH")
_END_MAGIC = b"PK\x05\x06"
_LOCATOR = struct.Struct("<4sLQL")
_LOCATOR_MAGIC = b"PK\x06\x07"
_END64 = struct.Struct("<4sQ2H2L4Q")
_END64_MAGIC = b"PK\x06\x06"
MAX_COMMENT_BYTES = 0xFFFF
MAX_CANDIDATES = 64
"""Places that look like the end of an archive; files with more are not judged."""


def _finding(content: Content) -> str | None:
    start = max(0, content.size - _END.size - MAX_COMMENT_BYTES)
    tail = content.read_at(start, content.size - start)
    position = len(tail)
    for _ in range(MAX_CANDIDATES):
        position = tail.rfind(_END_MAGIC, 0, position)
        if position < 0:
            return "the directory at the end of the ZIP archive is missing"
        if _is_end(content, start + position, tail[position:]):
            return None
    return None


def _is_end(content: Content, position: int, record: bytes) -> bool:
    """Whether the record at a position ends the archive that begins with the file."""
    if len(record) < _END.size:
        return False
    *_, size, offset, comment_bytes = _END.unpack_from(record)
    if _END.size + comment_bytes > len(record):
        return False
    if position >= _LOCATOR.size:
        locator = content.read_at(position - _LOCATOR.size, _LOCATOR.size)
        if locator.startswith(_LOCATOR_MAGIC) and len(locator) == _LOCATOR.size:
            position = _LOCATOR.unpack(locator)[2]
            record = content.read_at(position, _END64.size) if position < content.size else b""
            if not record.startswith(_END64_MAGIC) or len(record) < _END64.size:
                return False
            *_, size, offset = _END64.unpack(record)
    return bool(offset + size == position)


_MAGICS = (b"PK\x03\x04",)
CHECKPOINT = Format(
    name="ZIP",
    suffixes=frozenset({b".npz", b".keras"}),
    shared_suffixes=frozenset({b".pt", b".pth", b".ckpt", b".bin"}),
    magics=_MAGICS,
    finding=_finding,
)
ARCHIVE = Format(
    name="ZIP",
    suffixes=frozenset(),
    shared_suffixes=frozenset({b".zip", b".mcpb"}),
    magics=_MAGICS,
    finding=_finding,
    # Some readers find the directory of an archive that was put behind other bytes.
    is_lasting=False,
)
