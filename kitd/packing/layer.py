"""Building one layer: each file read once, every byte hashed once and written once.

Where the bytes go is the caller's choice: into the blob store, or through a pipe to whoever sends
them on.
"""

import os
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from kitd.errors import printable
from kitd.modelkit.manifest import file_metadata
from kitd.modelkit.media_type import Compression, LayerFormat, LayerKind
from kitd.modelkit.plan import FILE_METADATA, LayerPlan
from kitd.oci.digest import Digest
from kitd.packing.compress import Compress
from kitd.packing.gate.lease import Leases
from kitd.packing.mcp_bundle import bundle_problem
from kitd.packing.reader import LayerReader, Writers, open_checked
from kitd.packing.scan import Entry, InputError
from kitd.store.blob_store import BlobStore, Committed
from kitd.store.buffer_ring import BufferRing
from kitd.store.direct_ingest import DirectIngest


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


@contextmanager
def _encoder(compress: Compress | None, blob: BufferRing) -> Iterator[_Encoder]:
    if compress is None:
        yield _Plain(blob)
    else:
        with compress(blob) as encoder:
            yield encoder


@dataclass(frozen=True, slots=True)
class BuiltLayer:
    """A layer that was written: the blob, the digest before compression, its annotations."""

    blob: Committed
    diff_id: Digest
    annotations: Mapping[str, str]
    writers: Writers


class Outlet(Protocol):
    """Where the bytes of a blob go."""

    ring: BufferRing
    """Takes them."""

    def commit(self) -> Committed:
        """Say what they were, once all of them are there."""
        ...


def build_layer(
    root: int,
    plan: LayerPlan,
    entries: Sequence[Entry],
    store: BlobStore,
    *,
    compress: Compress | None,
    advanced: Callable[[int], None],
    leases: Leases = Leases.TELL,
    may_leave: bool = False,
) -> BuiltLayer:
    """Write the layer of `entries` into the store; `advanced` is told the bytes of each step.

    A layer that is one file as it is shares the file's blocks where the file system can, and needs
    no room then; one that `may_leave` instead is given none that would be scarce. Raises
    `InputError`, `InputChangedError`, `StoreError`; then nothing stays behind.
    """
    is_plain = _compress(plan, compress) is None
    with DirectIngest(store) as ingest:
        if is_plain and plan.type.format is LayerFormat.RAW:
            raw, annotations = _read_raw(root, plan, entries)
            reader = LayerReader(root, ingest.ring, advanced, leases)
            if reader.share(raw, lambda file: ingest.clone(file, advanced)):
                blob = ingest.commit()
                return BuiltLayer(blob, blob.digest, annotations, reader.writers)
        if is_plain or may_leave:
            size = sum(entry.size for entry in entries)
            store.require_space(size, may_leave=may_leave)
        return write_layer(
            root,
            plan,
            entries,
            ingest,
            compress=compress,
            advanced=advanced,
            leases=leases,
        )


def write_layer(
    root: int,
    plan: LayerPlan,
    entries: Sequence[Entry],
    outlet: Outlet,
    *,
    compress: Compress | None,
    advanced: Callable[[int], None],
    leases: Leases,
) -> BuiltLayer:
    """Write the layer of `entries` to wherever the outlet leads.

    Raises `InputError`, `InputChangedError`, and what the outlet does.
    """
    with _encoder(_compress(plan, compress), outlet.ring) as encoder:
        reader = LayerReader(root, encoder.ring, advanced, leases)
        if plan.type.format is LayerFormat.RAW:
            raw, annotations = _read_raw(root, plan, entries)
            reader.add_content(raw)
        else:
            annotations = dict(plan.annotations)
            reader.add_tar(entries)
        reader.tell()
        diff_id = encoder.finish()
        blob = outlet.commit()
    return BuiltLayer(blob, diff_id or blob.digest, annotations, reader.writers)


def _read_raw(
    root: int, plan: LayerPlan, entries: Sequence[Entry]
) -> tuple[Entry, Mapping[str, str]]:
    """Return the file of a raw layer, and the layer's annotations. Raises `InputError`."""
    raw = _only_file(plan, entries)
    if plan.type.kind is LayerKind.MCP_BUNDLE:
        _require_bundle(root, raw)
    annotations = dict(plan.annotations)
    if annotations:
        name = posixpath.basename(plan.path).decode()
        annotations[FILE_METADATA] = file_metadata(name, raw.mode, raw.size)
    return raw, annotations


def _compress(plan: LayerPlan, compress: Compress | None) -> Compress | None:
    # MCP bundles are stored as they are, whatever the kit's compression.
    return None if plan.type.compression is Compression.NONE else compress


def _only_file(plan: LayerPlan, entries: Sequence[Entry]) -> Entry:
    files = [entry for entry in entries if not entry.is_dir]
    if len(files) != 1 or files[0].path != plan.path:
        raise InputError(
            f"{printable(plan.path)} is not a file, and raw layers hold one file each",
            hint="set modelkit.layer_format to tar, or name the files one by one",
        )
    return files[0]


def _require_bundle(root: int, entry: Entry) -> None:
    # The reading that follows meets the same file, or none: it makes the same check.
    file = open_checked(root, entry)
    try:
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
