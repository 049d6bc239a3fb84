"""Building one layer: each file read once, every byte hashed once and written once.

A file is opened, its status compared with what the walk saw, read to exactly its size, and its
status compared again. Because the walk never follows links and a file is known by device and inode,
a directory that is swapped for a link in between cannot smuggle anything in.
"""

import hashlib
import os
import posixpath
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from kitd.modelkit.manifest import file_metadata
from kitd.modelkit.media_type import Compression, LayerFormat, LayerKind
from kitd.modelkit.plan import FILE_METADATA, LayerPlan
from kitd.modelkit.tar import TRAILER, header, padding
from kitd.oci.digest import Digest, from_hash
from kitd.packing.gate.writer import has_writer
from kitd.packing.mcp_bundle import bundle_problem
from kitd.packing.scan import Entry, InputChangedError, InputError, has_moved, printable
from kitd.store.blob_store import BlobStore, Committed
from kitd.store.buffer_ring import BufferRing
from kitd.store.direct_ingest import DirectIngest

STEP_BYTES = 1 << 18
"""How much is read at least between two reports of progress."""
_GZIP_LEVELS = {"gzip": 6, "gzip-fastest": 1}
MEDIA_COMPRESSION: Mapping[str, Compression] = {
    "none": Compression.NONE,
    "gzip": Compression.GZIP,
    "gzip-fastest": Compression.GZIP,
}
"""What each setting that layers can be built with is called in a media type."""


class _Encoder(Protocol):
    """What is done to a tar's bytes on their way into the blob."""

    ring: BufferRing
    """Takes the tar's bytes."""

    def finish(self) -> Digest | None:
        """End the blob; return the digest of the bytes before encoding where it differs."""
        ...


class _Plain:
    """The blob is the tar."""

    def __init__(self, blob: BufferRing) -> None:
        self.ring = blob

    def finish(self) -> Digest | None:
        return None


class _Gzip:
    """RFC 1952 with the header that `kit` writes: no name, no time, unknown system.

    Deflates in a thread, which then is the one that fills the blob's ring.
    """

    def __init__(self, blob: BufferRing, level: int) -> None:
        self._blob = blob
        self._deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._plain = hashlib.sha256()
        self._crc = 0
        self._size = 0
        self.ring = BufferRing(self._plain.update, self._encode)
        fastest = 4 if level == 1 else 0
        blob.write(bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, fastest, 255)))

    def finish(self) -> Digest | None:
        self.ring.drain()
        self._blob.write(self._deflate.flush())
        self._blob.write(self._crc.to_bytes(4, "little"))
        self._blob.write((self._size % 2**32).to_bytes(4, "little"))
        return from_hash(self._plain)

    def _encode(self, data: memoryview) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        self._blob.write(self._deflate.compress(data))


@contextmanager
def _encoder(compression: str, blob: BufferRing) -> Iterator[_Encoder]:
    if compression == "none":
        yield _Plain(blob)
    else:
        encoder = _Gzip(blob, _GZIP_LEVELS[compression])
        with encoder.ring:
            yield encoder


@dataclass(frozen=True, slots=True)
class BuiltLayer:
    """A durable layer: the blob, the digest before compression, the descriptor's annotations.

    `written` says whether a program had one of its files open for writing when kitd began to read
    that file; None where nobody can tell.
    """

    blob: Committed
    diff_id: Digest
    annotations: Mapping[str, str]
    written: bool | None


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
    raw = _only_file(plan, entries) if plan.type.format is LayerFormat.RAW else None
    if raw is not None and plan.type.kind is LayerKind.MCP_BUNDLE:
        _require_bundle(root, raw)
    if raw is not None and annotations:
        name = posixpath.basename(plan.path).decode()
        annotations[FILE_METADATA] = file_metadata(name, raw.mode, raw.size)
    if chosen == "none":
        store.require_space(sum(entry.size for entry in entries))
    with DirectIngest(store) as ingest, _encoder(chosen, ingest.ring) as encoder:
        layer = _LayerWriter(root, encoder.ring, advanced)
        if raw is not None:
            layer.add_content(raw)
        else:
            layer.add_tar(entries)
        layer.tell()
        diff_id = encoder.finish()
        blob = ingest.commit()
    return BuiltLayer(blob, diff_id or blob.digest, annotations, layer.written)


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


class _LayerWriter:
    """Reads entries into a ring and tells how far it has come."""

    def __init__(self, root: int, ring: BufferRing, advanced: Callable[[int], None]) -> None:
        self._root = root
        self._ring = ring
        self._advanced = advanced
        self._untold = 0
        self.written: bool | None = False

    def add_tar(self, entries: Iterable[Entry]) -> None:
        """Add a whole tar."""
        write, gap = self._ring.write, b""
        for entry in entries:
            write(gap + header(entry.path, entry.mode, entry.size, is_dir=entry.is_dir))
            if not entry.is_dir:
                self.add_content(entry)
            gap = padding(entry.size)
        write(gap + TRAILER)

    def add_content(self, entry: Entry) -> None:
        """Add a file's content."""
        file = _open(self._root, entry)
        try:
            _check(file, entry)
            # Before reading: what a mapping that exists already changes need not show in the file's
            # times, while every later writer has to dirty a page first, which does.
            self._look_for_writer(file)
            left = entry.size
            while left:
                count = _read(file, entry, self._ring.room()[:left])
                self._ring.fill(count)
                left -= count
                self._untold += count
                if self._untold >= STEP_BYTES:
                    self.tell()
            _check(file, entry)
        finally:
            os.close(file)

    def _look_for_writer(self, file: int) -> None:
        written = has_writer(file)
        # One file with a writer outweighs those of which nobody can tell, and these all others.
        if written or (written is None and not self.written):
            self.written = written

    def tell(self) -> None:
        """Report what was read and not yet reported."""
        self._advanced(self._untold)
        self._untold = 0


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


def _read(file: int, entry: Entry, target: memoryview) -> int:
    try:
        count = os.readv(file, (target,))
    except OSError as error:
        raise InputError(f"cannot read {printable(entry.path)}: {error.strerror}") from error
    if count == 0:
        raise InputChangedError(f"{printable(entry.path)} became shorter while it was read")
    return count
