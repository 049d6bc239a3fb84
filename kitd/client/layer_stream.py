"""The plain bytes of one layer, checked against everything that was promised about it.

A file is read with `pread`: a descriptor that came from the daemon shares its position with others.
What kitd does not have itself comes through a socket instead.
"""

import hashlib
import os
import re
import stat
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from kitd.client import zstd_frames
from kitd.client.layer_feed import LayerFeed
from kitd.client.pieces import Pieces
from kitd.client.record import Layer
from kitd.client.tar_reader import CHUNK_BYTES
from kitd.errors import KitdError

_MEDIA_TYPE = re.compile(
    r"application/vnd\.(?:kitops\.modelkit|c(?:ncf|nai)\.model)\.[\w.-]+\.v1\.(tar|raw)(?:\+(\w+))?"
)
_DIGEST = re.compile(r"(sha256):[0-9a-f]{64}|(sha384):[0-9a-f]{96}|(sha512):[0-9a-f]{128}")
_GZIP = 31
"""zlib's window size for a gzip wrapper, `16 + 15`."""
_ASIDE_BYTES = 1 << 16
"""A chunk from this size on is hashed by another thread: for less the way there takes too long."""
_ASIDE_LAYER_BYTES = 4 << 20
"""So does a thread to begin, for layers that are smaller than this."""
_ASIDE_CHUNKS = 4
"""So many are on their way to it at most."""


class LayerError(KitdError):
    """A layer is not what the kit says, or is of a kind that this version does not unpack."""

    code = "invalid_layer"


def layer_format(layer: Layer) -> tuple[str, str]:
    """Return the format (`tar` or `raw`) and the compression (`none`, `gzip` or `zstd`) of a layer.

    Raises `LayerError` for others.
    """
    match = _MEDIA_TYPE.fullmatch(layer.media_type)
    if match is None:
        raise LayerError(
            f"the layer {layer.digest} has the unknown type {layer.media_type[:100]!r}"
        )
    form, compression = match[1], match[2] or "none"
    if compression not in ("none", "gzip", "zstd"):
        raise LayerError(f"the layer {layer.digest} has the unknown compression {compression!r}")
    return form, compression


class LayerStream:
    """One pass over a layer; what was read is good only once `finish` has returned.

    For a `with`, after which no thread of it runs.
    """

    def __init__(self, handle: int, layer: Layer, progress: Callable[[int], None]) -> None:
        """Begin to read the file or the feed `handle`, which stays the caller's.

        Raises `LayerError`.

        `progress` is told the number of stored bytes after each chunk of them.
        """
        self._handle = handle
        self._layer = layer
        self._progress = progress
        self._offset = 0
        is_large = layer.size >= _ASIDE_LAYER_BYTES
        self._blob_hash = _AsideHash(layer.digest, is_aside=is_large)
        self._plain_hash = _AsideHash(layer.diff_id or layer.digest, is_aside=is_large)
        self._pieces = Pieces(layer.digest)
        _, self._compression = layer_format(layer)
        found = os.fstat(handle)
        self._read = self._pread
        if stat.S_ISSOCK(found.st_mode):
            self._read = LayerFeed(handle, layer.digest).read
        elif not stat.S_ISREG(found.st_mode) or found.st_size != layer.size:
            raise LayerError(
                f"the layer {layer.digest} has {found.st_size} bytes, not {layer.size}",
                hint="pull the kit again",
            )
        self._chunks = self._plain_chunks()
        self._chunk = memoryview(b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._blob_hash.close()
        finally:
            self._plain_hash.close()

    def read(self, size: int) -> bytes:
        """Return 1 to `size` plain bytes, and none at the end.

        Raises `LayerError`, `FeedError`, `MissingLibraryError`, `TooManyPiecesError`.
        """
        if not self._chunk:
            self._chunk = memoryview(next(self._chunks, b""))
        data = bytes(self._chunk[:size])
        self._chunk = self._chunk[size:]
        return data

    def finish(self) -> None:
        """Raise `LayerError` unless all was read and is what was promised."""
        if self._chunk or self._offset != self._layer.size or next(self._chunks, b""):
            raise self._too_long()
        for promised, hasher in (
            (self._layer.digest, self._blob_hash),
            (self._layer.diff_id, self._plain_hash),
        ):
            if promised is not None and (found := hasher.digest()) != promised:
                raise LayerError(
                    f"the content of the layer {promised} has the digest {found}",
                    hint="the kit is damaged: pull it again",
                )

    def _stored_chunks(self) -> Iterator[bytes]:
        while chunk := self._read():
            self._offset += len(chunk)
            if self._offset > self._layer.size:
                raise self._too_long()
            self._blob_hash.update(chunk)
            self._progress(len(chunk))
            yield chunk

    def _too_long(self) -> LayerError:
        return LayerError(f"the layer {self._layer.digest} goes on after its end")

    def _pread(self) -> bytes:
        try:
            return os.pread(self._handle, CHUNK_BYTES, self._offset)
        except OSError as error:
            raise LayerError(
                f"cannot read the layer {self._layer.digest}: {error.strerror}"
            ) from error

    def _plain_chunks(self) -> Iterator[bytes]:
        if self._compression == "none":
            if self._layer.diff_id in (None, self._layer.digest):
                # The two hashes are one: the largest layers are not hashed twice.
                self._plain_hash = self._blob_hash
                yield from self._stored_chunks()
                return
            chunks = self._stored_chunks()
        elif self._compression == "gzip":
            chunks = self._inflated_chunks()
        else:
            chunks = self._unframed_chunks()
        for chunk in chunks:
            self._plain_hash.update(chunk)
            yield chunk

    def _inflated_chunks(self) -> Iterator[bytes]:
        """Yield chunks of bounded size, however far the stored bytes expand."""
        member = zlib.decompressobj(_GZIP)
        for stored in self._stored_chunks():
            pending, chunk = stored, b""
            # A full chunk may leave more output in zlib even when all input is used up.
            while pending or (len(chunk) == CHUNK_BYTES and not member.eof):
                if member.eof:
                    # A gzip file may be several, one after another (RFC 1952, section 2.2).
                    self._pieces.begin()
                    member = zlib.decompressobj(_GZIP)
                try:
                    chunk = member.decompress(pending, CHUNK_BYTES)
                except zlib.error as error:
                    raise LayerError(
                        f"the layer {self._layer.digest} is not what gzip writes: {error}"
                    ) from error
                pending = member.unused_data if member.eof else member.unconsumed_tail
                if chunk:
                    self._pieces.take(len(chunk))
                    yield chunk
        if not member.eof:
            raise LayerError(f"the layer {self._layer.digest} ends in the middle of its gzip data")

    def _unframed_chunks(self) -> Iterator[bytes]:
        """Yield chunks of bounded size, however far the stored bytes expand."""
        try:
            yield from zstd_frames.plain_chunks(self._stored_chunks(), self._pieces)
        except zstd_frames.ZstdError as error:
            raise LayerError(
                f"the layer {self._layer.digest} is not what zstd writes: {error}"
            ) from error


class _AsideHash:
    """A hash that another thread computes, while this one reads and writes."""

    def __init__(self, digest: str, *, is_aside: bool) -> None:
        """Raise `LayerError` for what is not a digest; no thread begins if not `is_aside`."""
        match = _DIGEST.fullmatch(digest)
        if match is None:
            raise LayerError(f"{digest[:160]!r} is not a digest")
        self._algorithm: str = match[match.lastindex or 1]
        self._hash = hashlib.new(self._algorithm)
        self._is_aside = is_aside
        self._pool: ThreadPoolExecutor | None = None
        self._pending: deque[Future[None]] = deque()

    def update(self, chunk: bytes) -> None:
        """Take the next chunk."""
        if not self._is_aside or len(chunk) < _ASIDE_BYTES:
            self._wait(0)
            self._hash.update(chunk)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "hash")
        self._wait(_ASIDE_CHUNKS - 1)
        try:
            self._pending.append(self._pool.submit(self._hash.update, chunk))
        except RuntimeError:
            # There is no further thread to be had.
            self._wait(0)
            self.close()
            self._is_aside = False
            self._hash.update(chunk)

    def digest(self) -> str:
        """Return the digest of all chunks."""
        self._wait(0)
        return f"{self._algorithm}:{self._hash.hexdigest()}"

    def close(self) -> None:
        """End the thread, if there is one, and forget what it has not done."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _wait(self, most: int) -> None:
        while len(self._pending) > most:
            self._pending.popleft().result()
