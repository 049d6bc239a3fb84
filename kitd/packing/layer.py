"""Building one layer: each file read once, every byte hashed once and written once.

A file is opened, its status compared with what the walk saw, read to exactly its size, and its
status compared again. Because the walk never follows links and a file is known by device and inode,
a directory that is swapped for a link in between cannot smuggle anything in.
"""

import hashlib
import os
import posixpath
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from kitd.content.store import Chunk
from kitd.modelkit.manifest import file_metadata
from kitd.modelkit.media_type import Compression, LayerFormat, LayerKind
from kitd.modelkit.plan import FILE_METADATA, LayerPlan
from kitd.modelkit.tar import TRAILER, header, padding
from kitd.oci.digest import Digest, from_hash
from kitd.packing.mcp_bundle import bundle_problem
from kitd.packing.scan import Entry, InputChangedError, InputError, has_moved, printable
from kitd.store.blob_store import BlobStore, Committed, Ingest

BATCH_BYTES = 1 << 20
_SMALL_BYTES = 1 << 16


class _Encoder(Protocol):
    """What is done to a tar's bytes on their way into the blob."""

    def write(self, data: Chunk) -> None:
        """Take the next bytes; they may be overwritten once this returns."""
        ...

    def finish(self) -> Digest | None:
        """End the blob; return the digest of the bytes before encoding where it differs."""
        ...


class _Plain:
    """The blob is the tar."""

    def __init__(self, ingest: Ingest) -> None:
        self.write = ingest.write

    def finish(self) -> Digest | None:
        return None


class _Gzip:
    """RFC 1952 with the header that `kit` writes: no name, no time, unknown system."""

    def __init__(self, ingest: Ingest, level: int) -> None:
        self._ingest = ingest
        self._deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._plain = hashlib.sha256()
        self._crc = 0
        self._size = 0
        fastest = 4 if level == 1 else 0
        ingest.write(bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, fastest, 255)))

    def write(self, data: Chunk) -> None:
        self._plain.update(data)
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        self._ingest.write(self._deflate.compress(data))

    def finish(self) -> Digest | None:
        self._ingest.write(self._deflate.flush())
        self._ingest.write(self._crc.to_bytes(4, "little"))
        self._ingest.write((self._size % 2**32).to_bytes(4, "little"))
        return from_hash(self._plain)


_ENCODERS: Mapping[str, Callable[[Ingest], _Encoder]] = {
    "none": _Plain,
    "gzip": lambda ingest: _Gzip(ingest, 6),
    "gzip-fastest": lambda ingest: _Gzip(ingest, 1),
}
MEDIA_COMPRESSION: Mapping[str, Compression] = {
    "none": Compression.NONE,
    "gzip": Compression.GZIP,
    "gzip-fastest": Compression.GZIP,
}
"""What each setting that layers can be built with is called in a media type."""


@dataclass(frozen=True, slots=True)
class BuiltLayer:
    """A durable layer: the blob, the digest before compression, the descriptor's annotations."""

    blob: Committed
    diff_id: Digest
    annotations: Mapping[str, str]


def build_layer(
    root: int,
    plan: LayerPlan,
    entries: Sequence[Entry],
    store: BlobStore,
    *,
    compression: str,
    advanced: Callable[[int], None],
) -> BuiltLayer:
    """Write the layer of `entries` into the store; `advanced` is told the bytes of each step.

    Raises `InputError`, `InputChangedError`, `StoreError`; then nothing stays behind.
    """
    # MCP bundles are stored as they are, whatever the kit's compression.
    chosen = "none" if plan.type.compression is Compression.NONE else compression
    annotations = dict(plan.annotations)
    with store.ingest() as ingest:
        encoder = _ENCODERS[chosen](ingest)
        if plan.type.format is LayerFormat.RAW:
            entry = _only_file(plan, entries)
            if plan.type.kind is LayerKind.MCP_BUNDLE:
                _require_bundle(root, entry)
            if annotations:
                name = posixpath.basename(plan.path).decode()
                annotations[FILE_METADATA] = file_metadata(name, entry.mode, entry.size)
            _write_raw(root, entry, encoder, advanced)
        else:
            _write_tar(root, entries, encoder, advanced)
        diff_id = encoder.finish()
        blob = ingest.commit()
    return BuiltLayer(blob, diff_id or blob.digest, annotations)


def _only_file(plan: LayerPlan, entries: Sequence[Entry]) -> Entry:
    files = [entry for entry in entries if not entry.is_dir]
    if len(files) != 1 or files[0].path != plan.path:
        raise InputError(
            f"{printable(plan.path)} is not a file, and raw layers hold one file each",
            hint="set modelkit.layer_format to tar, or name the files one by one",
        )
    return files[0]


def _require_bundle(root: int, entry: Entry) -> None:
    file = _open(root, entry)
    try:
        # The reading that follows meets the same file, or none: it makes the same check.
        _check(file, entry)
        problem = bundle_problem(file)
    except OSError as error:
        raise InputError(f"cannot read {printable(entry.path)}: {error.strerror}") from error
    finally:
        os.close(file)
    if problem is not None:
        raise InputError(
            f"{printable(entry.path)} is not an MCP bundle: {problem}",
            hint="build it with the MCPB tools, or correct the Kitfile's mcpServers",
        )


def _write_raw(root: int, entry: Entry, encoder: _Encoder, advanced: Callable[[int], None]) -> None:
    batch = bytearray()
    _append(root, entry, batch, encoder, advanced)
    encoder.write(batch)


def _write_tar(
    root: int, entries: Iterable[Entry], encoder: _Encoder, advanced: Callable[[int], None]
) -> None:
    # Small pieces are gathered: a system call and a hash call for each header would cost more than
    # the bytes.
    batch = bytearray()
    for entry in entries:
        batch += header(entry.path, entry.mode, entry.size, is_dir=entry.is_dir)
        if not entry.is_dir:
            _append(root, entry, batch, encoder, advanced)
            batch += padding(entry.size)
        if len(batch) >= BATCH_BYTES:
            encoder.write(batch)
            batch.clear()
    encoder.write(batch + TRAILER)


def _append(
    root: int, entry: Entry, batch: bytearray, encoder: _Encoder, advanced: Callable[[int], None]
) -> None:
    """Add a file's content: to the batch if it is small, else straight to the encoder."""
    file = _open(root, entry)
    try:
        _check(file, entry)
        if entry.size <= _SMALL_BYTES:
            content = _read(file, entry, entry.size)
            batch += content
            advanced(len(content))
        else:
            encoder.write(batch)
            batch.clear()
            _stream(file, entry, encoder, advanced)
        _check(file, entry)
    finally:
        os.close(file)


def _open(root: int, entry: Entry) -> int:
    # Should a fifo have taken the file's place, opening it must not wait for a writer.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(entry.path, flags, dir_fd=root)
    except OSError as error:
        if has_moved(error):
            raise InputChangedError(
                f"{printable(entry.path)} is not what it was: {error.strerror}"
            ) from error
        raise InputError(
            f"cannot read {printable(entry.path)}: {error.strerror}",
            hint="let kitd's user read it, or leave it out in .kitignore",
        ) from error


def _check(file: int, entry: Entry) -> None:
    if not entry.same_file(os.fstat(file)):
        raise InputChangedError(f"{printable(entry.path)} changed while the kit was packed")


def _read(file: int, entry: Entry, size: int) -> bytes:
    """Read exactly `size` bytes, at most `BATCH_BYTES`."""
    try:
        content = os.read(file, size)
        while len(content) < size and (more := os.read(file, size - len(content))):
            content += more
    except OSError as error:
        raise InputError(f"cannot read {printable(entry.path)}: {error.strerror}") from error
    if len(content) != size:
        raise InputChangedError(f"{printable(entry.path)} became shorter while it was read")
    return content


def _stream(file: int, entry: Entry, encoder: _Encoder, advanced: Callable[[int], None]) -> None:
    buffer = bytearray(BATCH_BYTES)
    view = memoryview(buffer)
    left = entry.size
    while left:
        try:
            count = os.readv(file, [view[: min(left, BATCH_BYTES)]])
        except OSError as error:
            raise InputError(f"cannot read {printable(entry.path)}: {error.strerror}") from error
        if count == 0:
            raise InputChangedError(f"{printable(entry.path)} became shorter while it was read")
        encoder.write(view[:count])
        left -= count
        advanced(count)
