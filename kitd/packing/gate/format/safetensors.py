"""safetensors: the length of a JSON header, the header, and tensors that fill the rest exactly.

Source: the format's description in huggingface/safetensors, and its reader, which takes headers of
at most 100 MB that begin with a brace, and no bytes that no tensor owns. There is no magic number:
what has no such header is not taken for one of these files.
"""

from typing import Any

import msgspec

from kitd.packing.gate.format.content import Content, Format

MAX_HEADER_BYTES = 100_000_000
_LENGTH_BYTES = 8


class _Tensor(msgspec.Struct, frozen=True):
    data_offsets: tuple[int, int]


_HEADER = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TENSOR = msgspec.json.Decoder(_Tensor)


def _finding(content: Content) -> str | None:
    opening = content.read_at(0, _LENGTH_BYTES + 1)
    length = int.from_bytes(opening[:_LENGTH_BYTES], "little")
    brace = opening[_LENGTH_BYTES:]
    if length > MAX_HEADER_BYTES or brace not in (b"", b"{", b"\0"):
        return None
    if len(opening) <= _LENGTH_BYTES:
        return "the file ends before its safetensors header"
    if brace == b"\0":
        return "zeros stand where its safetensors header has to be"
    if short := content.shortfall("length of the safetensors header", _LENGTH_BYTES + length):
        return short
    try:
        end = _data_end(content.read_at(_LENGTH_BYTES, length))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "its safetensors header is not valid"
    promised = _LENGTH_BYTES + length + end
    if promised == content.size:
        return None
    return content.mismatch("safetensors header", promised)


def _data_end(header: bytes) -> int:
    """Return where the last tensor ends. Raises what decoding does."""
    tensors: dict[str, Any] = _HEADER.decode(header)
    tensors.pop("__metadata__", None)
    return max((_TENSOR.decode(tensor).data_offsets[1] for tensor in tensors.values()), default=0)


FORMAT = Format(
    name="safetensors",
    suffixes=frozenset({b".safetensors"}),
    shared_suffixes=frozenset(),
    magics=(b"",),
    finding=_finding,
)
