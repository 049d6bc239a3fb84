"""What is in a file of zstd frames (RFC 8878), in pieces of bounded size.

The library is given one block at a time, and a block never holds more than 128 KiB: so a few bytes
that claim gigabytes are stopped early. And a frame that is cut short is noticed, over which the
library's own readers of streams keep silent. The client loads it here and nowhere else.
"""

import sys
from collections.abc import Iterator

from kitd.client.pieces import Pieces
from kitd.errors import KitdError

MAX_WINDOW_BYTES = 128 << 20
"""What `zstd` itself takes without being asked, and what `--long` writes."""
MAX_BLOCK_BYTES = 128 << 10
"""What a block may have, stored or plain (RFC 8878, section 3.1.1.2.4)."""

_MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPED_MAGIC = range(0x184D2A50, 0x184D2A60)
_LEAST_HEADER_BYTES = 5
_BLOCK_HEADER_BYTES = 3
_CHECKSUM_BYTES = 4
_RUN, _RESERVED = 1, 3
"""Types of blocks (RFC 8878, section 3.1.1.2.2)."""


class ZstdError(Exception):
    """The bytes are not what zstd writes, or want more memory than they are given."""


class MissingLibraryError(KitdError):
    """This Python has no library for zstd."""

    code = "missing_library"


def plain_chunks(stored: Iterator[bytes], pieces: Pieces) -> Iterator[bytes]:
    """Yield chunks of 1 to `MAX_BLOCK_BYTES` bytes.

    Raises `ZstdError`, `MissingLibraryError`, `TooManyPiecesError`, and what `stored` does.
    """
    try:
        import zstandard  # noqa: PLC0415 - only what is compressed with zstd needs it
    except ImportError as error:
        raise MissingLibraryError(
            "layers that are compressed with zstd need the library zstandard",
            hint=f"install it for this Python: {sys.executable} -m pip install zstandard",
        ) from error

    frames = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    source = _Source(stored)
    is_done = False
    try:
        while not is_done:
            pieces.begin()
            magic = source.take(len(_MAGIC))
            if int.from_bytes(magic, "little") in _SKIPPED_MAGIC:
                source.skip(int.from_bytes(source.take(4), "little"))
            elif magic == _MAGIC:
                # The byte after it says how long the header is, at most 14 bytes.
                start = magic + source.take(_LEAST_HEADER_BYTES - len(magic))
                start += source.take(zstandard.frame_header_size(start) - len(start))
                about = zstandard.get_frame_parameters(start)
                if about.dict_id:
                    raise ZstdError("a frame wants a dictionary")
                frame = frames.decompressobj(write_size=MAX_BLOCK_BYTES)
                frame.decompress(start)
                for stretch in _stretches(source, has_checksum=about.has_checksum):
                    pieces.begin()
                    if plain := frame.decompress(stretch):
                        pieces.take(len(plain))
                        yield plain
                if not frame.eof:
                    raise ZstdError("a frame is shorter than it says")
            else:
                raise ZstdError("a frame begins with other bytes")
            is_done = source.at_end()
    except zstandard.ZstdError as error:
        raise ZstdError(str(error)) from error


def _stretches(source: "_Source", *, has_checksum: bool) -> Iterator[bytes]:
    """Yield what follows a frame's header: the blocks, each with its own, and the checksum."""
    is_last = False
    while not is_last:
        header = source.take(_BLOCK_HEADER_BYTES)
        fields = int.from_bytes(header, "little")
        is_last, kind, size = bool(fields & 1), fields >> 1 & 3, fields >> 3
        if kind == _RESERVED or size > MAX_BLOCK_BYTES:
            raise ZstdError("a block is of no known kind or too large")
        yield header + source.take(1 if kind == _RUN else size)
    if has_checksum:
        yield source.take(_CHECKSUM_BYTES)


class _Source:
    """Chunks, taken by as many bytes as are wanted."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = memoryview(b"")

    def at_end(self) -> bool:
        """Whether nothing is left."""
        while not self._chunk:
            chunk = next(self._chunks, None)
            if chunk is None:
                return True
            self._chunk = memoryview(chunk)
        return False

    def take(self, size: int) -> bytes:
        """Return exactly so many bytes. Raises `ZstdError` where they end."""
        taken = self._part(size)
        while len(taken) < size:
            taken += self._part(size - len(taken))
        return taken

    def skip(self, size: int) -> None:
        """Go on behind so many bytes. Raises `ZstdError` where they end."""
        while size:
            size -= len(self._part(min(size, MAX_BLOCK_BYTES)))

    def _part(self, size: int) -> bytes:
        if size and self.at_end():
            raise ZstdError("it ends in the middle of a frame")
        part = bytes(self._chunk[:size])
        self._chunk = self._chunk[size:]
        return part
