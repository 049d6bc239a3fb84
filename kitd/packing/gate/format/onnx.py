"""ONNX: a protocol buffer whose fields fill the file exactly, one of them the graph.

Source: onnx.proto, message ModelProto, and the protocol buffers' encoding. Only the outermost
fields are stepped over. A file is taken for a model if it begins with the field ir_version.
"""

from kitd.packing.gate.format.content import Content, Format

MAX_FIELDS = 100_000
_GRAPH = 7
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


def _finding(content: Content) -> str | None:
    position, has_graph = 0, False
    for _ in range(MAX_FIELDS):
        if position >= content.size:
            break
        head = content.read_at(position, 2 * _MAX_VARINT_BYTES)
        tag, used = _varint(head, 0)
        kind = tag & 7
        if kind in (_VARINT, _BYTES):
            value, used = _varint(head, used)
        else:
            value = {_FIXED64: 8, _FIXED32: 4}.get(kind, 0)
        if used == 0:
            # A number that goes on after the end of the file, or after the longest there may be.
            cut = len(head) < 2 * _MAX_VARINT_BYTES
            return "the file ends within a field of the ONNX model" if cut else None
        if tag >> 3 == 0 or kind not in (_VARINT, _FIXED64, _BYTES, _FIXED32):
            return None
        has_graph = has_graph or tag >> 3 == _GRAPH
        position += used + (0 if kind == _VARINT else value)
    else:
        return None
    if not has_graph:
        return "the graph of the ONNX model is missing"
    return content.shortfall("ONNX model", position)


def _varint(data: bytes, start: int) -> tuple[int, int]:
    """Return a number and where it ends, which is 0 if it does not."""
    value = 0
    for index, byte in enumerate(data[start : start + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, start + index + 1
    return value, 0


FORMAT = Format(
    name="ONNX",
    suffixes=frozenset(),
    shared_suffixes=frozenset({b".onnx"}),
    magics=(b"\x08",),
    finding=_finding,
)
