"""Compressing a blob on its way: blocks of a fixed size, each by itself, many at once, in order.

What comes out depends on the bytes alone, not on how many threads there are or on what machine:
the size of the blocks is fixed, no block knows another, and both libraries are pinned and give the
same bytes on every processor that they were tried on (docs/adr/0023). Neither is loaded before the
first block: most kits are packed without.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from kitd.oci.digest import Digest, from_hash
from kitd.packing.cores import cores
from kitd.store.buffer_ring import BufferRing

MAX_THREADS = 8
"""More would wait for the one that hashes what they compress."""

_SAMPLE_BYTES = 16 << 10
_RUNS_PERCENT = 101
"""Repetitions are looked for where leaving them out makes a sample larger than this."""
_GZIP_LEVELS = {"gzip": 6, "gzip-fastest": 2}
"""zlib-ng's first level knows fixed codes only: it makes weights larger than they are."""
_GZIP_FLAGS = {"gzip": 0, "gzip-fastest": 4}
_GZIP_END = b"\3\0"
"""A last block with nothing in it (RFC 1951, section 3.2.3)."""
_MEMORY_LEVEL = 9
_ZSTD_LEVEL = 3
_ZSTD_SOURCE_BYTES = 1 << 20
"""Parameters are chosen for blocks of this size, the last and shorter one included: for windows of
up to 128 KiB zstd may choose differently on processors without vector instructions."""


def block_threads() -> ThreadPoolExecutor:
    """Return the threads that compress the blocks of all layers of a kit; none is started yet."""
    return ThreadPoolExecutor(min(MAX_THREADS, cores()))


class _Gzip:
    """One member of RFC 1952 with the header that `kit` writes: no name, no time, unknown system.

    Each block ends on a byte (a sync flush), so that they can be put one after another.
    """

    def __init__(self, compression: str) -> None:
        from zlib_ng import zlib_ng  # noqa: PLC0415 - see the top of this module

        self._zlib = zlib_ng
        self._level = _GZIP_LEVELS[compression]
        self._crc = 0
        self._size = 0
        self.head = bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, _GZIP_FLAGS[compression], 255))

    def took(self, data: memoryview) -> None:
        """Take account of a block, in the order of the blocks."""
        self._crc = self._zlib.crc32(data, self._crc)
        self._size += len(data)

    def compress(self, block: bytes) -> bytes:
        """Return a block compressed. Safe to call from several threads."""
        if self._has_runs_only(block):
            return self._deflate(block, 1, self._zlib.Z_RLE)
        return self._deflate(block, self._level, self._zlib.Z_DEFAULT_STRATEGY)

    def tail(self) -> bytes:
        """Return what comes after the last block."""
        return b"".join(
            (_GZIP_END, self._crc.to_bytes(4, "little"), (self._size % 2**32).to_bytes(4, "little"))
        )

    def _has_runs_only(self, block: bytes) -> bool:
        """Whether a search for repetitions would find none but runs of one byte.

        So it is with weights: some bytes are more frequent than others, and that is all.
        """
        found = runs = 0
        for quarter in (1, 3):
            begin = quarter * len(block) // 4
            sample = block[begin : begin + _SAMPLE_BYTES]
            found += len(self._deflate(sample, 2, self._zlib.Z_DEFAULT_STRATEGY))
            runs += len(self._deflate(sample, 1, self._zlib.Z_RLE))
        return runs * 100 <= found * _RUNS_PERCENT

    def _deflate(self, data: bytes, level: int, strategy: int) -> bytes:
        # A new one for each block: one that is reset may give other bytes.
        zlib = self._zlib
        deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, _MEMORY_LEVEL, strategy)
        return b"".join((deflate.compress(data), deflate.flush(zlib.Z_SYNC_FLUSH)))


class _Zstd:
    """A frame of RFC 8878 for each block, with its size and without a checksum of its own."""

    head = b""

    def __init__(self) -> None:
        import zstandard  # noqa: PLC0415 - see the top of this module

        self._compressor = zstandard.ZstdCompressor
        self._parameters = zstandard.ZstdCompressionParameters.from_level(
            _ZSTD_LEVEL, source_size=_ZSTD_SOURCE_BYTES, write_content_size=True
        )
        self._is_empty = True

    def took(self, data: memoryview) -> None:  # noqa: ARG002 - what a `_Format` has
        """Take account of a block."""
        self._is_empty = False

    def compress(self, block: bytes) -> bytes:
        """Return a frame. Safe to call from several threads."""
        return self._compressor(compression_params=self._parameters).compress(block)

    def tail(self) -> bytes:
        """Return what comes after the last frame: an empty one if there is no other."""
        return self.compress(b"") if self._is_empty else b""


_FORMATS: Mapping[str, Callable[[], _Gzip | _Zstd]] = {
    "gzip": lambda: _Gzip("gzip"),
    "gzip-fastest": lambda: _Gzip("gzip-fastest"),
    "zstd": _Zstd,
}


class Compressor:
    """Hashes what is filled into `ring` and puts it into the blob's, compressed.

    The blob's ring is filled by a thread of this one's. At most as many blocks as there are threads
    wait for their turn, each with what became of it. The ring raises what the blob's does.
    """

    def __init__(self, compression: str, blob: BufferRing, threads: ThreadPoolExecutor) -> None:
        self._format = _FORMATS[compression]()
        self._blob = blob
        self._threads = threads
        self._plain = hashlib.sha256()
        self._blocks: deque[Future[bytes]] = deque()
        self.ring = BufferRing(self._plain.update, self._take)
        blob.write(self._format.head)

    def finish(self) -> Digest:
        """End the blob; return the digest of what was filled in."""
        self.ring.drain()
        while self._blocks:
            self._put_first()
        self._blob.write(self._format.tail())
        return from_hash(self._plain)

    def close(self) -> None:
        """Let go of what nobody waits for any more. The ring has ended by then."""
        for block in self._blocks:
            block.cancel()

    def _take(self, data: memoryview) -> None:
        if not data:
            return
        self._format.took(data)
        if len(self._blocks) >= min(MAX_THREADS, cores()):
            self._put_first()
        # A copy: the buffer is filled again while the block waits.
        self._blocks.append(self._threads.submit(self._format.compress, bytes(data)))

    def _put_first(self) -> None:
        self._blob.write(self._blocks.popleft().result())


Compress = Callable[[BufferRing], AbstractContextManager[Compressor]]
"""Gives what compresses into a blob's ring; leaving it ends its threads."""


def compressing(compression: str, threads: ThreadPoolExecutor) -> Compress | None:
    """Return what compresses so, in these threads; None where bytes stay as they are."""
    return None if compression == "none" else partial(_compressor, compression, threads)


@contextmanager
def _compressor(
    compression: str, threads: ThreadPoolExecutor, blob: BufferRing
) -> Iterator[Compressor]:
    made = Compressor(compression, blob, threads)
    try:
        with made.ring:
            yield made
    finally:
        made.close()
