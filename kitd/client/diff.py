"""What two kits have in other files, read from their layers by whoever compares them.

Layers that both have hold the same files; of the others every file is hashed. It is done here and
not in the daemon: archives come from anywhere, and this process has only the caller's rights.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from kitd.client.client import Client
from kitd.client.connection import close_all
from kitd.client.extract import RAW_MODE
from kitd.client.layer_stream import LayerStream, layer_format
from kitd.client.record import DiffLayer, KitDiff, Layer
from kitd.client.tar_reader import CHUNK_BYTES, TarReader
from kitd.errors import KitdError, printable

MAX_FILES = 200_000
"""Of the layers that only one kit has."""


class TooManyFilesError(KitdError):
    """The kits hold more files than are compared."""

    code = "too_large"


class File(NamedTuple):
    """A file of a kit: its permission bits, and the SHA-256 of its content."""

    path: str
    size: int
    mode: int
    sha256: str


class ChangedFile(NamedTuple):
    """A file that is in both kits, and not the same in its content or its mode."""

    a: File
    b: File


class FileDiff(NamedTuple):
    """Files of the layers that only one kit has; `unchanged` counts those that are equal there."""

    added: tuple[File, ...]
    removed: tuple[File, ...]
    changed: tuple[ChangedFile, ...]
    unchanged: int


def layers_elsewhere(diff: KitDiff) -> Sequence[DiffLayer]:
    """Return the layers without which files cannot be compared: the cache does not have them."""
    return [layer for layer in (*diff.only_a, *diff.only_b) if not layer.here]


def compare_files(client: Client, diff: KitDiff, progress: Callable[[int], None]) -> FileDiff:
    """Compare the files of the layers that only one kit has, all of which the cache has.

    `progress` is told the number of stored bytes after each chunk. Raises `TooManyFilesError`, what
    `Client.open_layers` raises, and `LayerError` and `TarError` for layers that are damaged.
    """
    before = _files(client, diff.a.digest, diff.only_a, progress)
    after = _files(client, diff.b.digest, diff.only_b, progress)
    both = sorted(before.keys() & after.keys())
    changed = [ChangedFile(before[path], after[path]) for path in both]
    return FileDiff(
        added=tuple(after[path] for path in sorted(after.keys() - before.keys())),
        removed=tuple(before[path] for path in sorted(before.keys() - after.keys())),
        changed=tuple(pair for pair in changed if pair.a != pair.b),
        unchanged=sum(pair.a == pair.b for pair in changed),
    )


def _files(
    client: Client, kit: str, layers: Sequence[DiffLayer], progress: Callable[[int], None]
) -> Mapping[str, File]:
    found: dict[str, File] = {}
    for each in layers:
        handles = client.open_layers(kit, [each.layer.digest])
        try:
            with LayerStream(handles[0], each.layer, progress) as stream:
                for file in _read(stream, each.layer):
                    found[file.path] = file
                    if len(found) > MAX_FILES:
                        raise TooManyFilesError(
                            f"{kit} has more than {MAX_FILES} files that the other has not",
                            hint="compare their layers only: --layers",
                        )
                stream.finish()
        finally:
            close_all(handles)
    return found


def _read(stream: LayerStream, layer: Layer) -> Iterator[File]:
    form, _ = layer_format(layer)
    if form == "raw":
        mode = RAW_MODE if layer.mode is None else layer.mode & 0o777
        yield _hashed(printable(layer.path), mode, iter(lambda: stream.read(CHUNK_BYTES), b""))
        return
    prefix = "" if layer.prefix == "." else printable(f"{layer.prefix}/")
    archive = TarReader(stream.read)
    for entry in archive.entries():
        if not entry.is_directory:
            yield _hashed(prefix + printable(entry.name), entry.mode, archive.content())


def _hashed(path: str, mode: int, chunks: Iterator[bytes]) -> File:
    hasher, size = hashlib.sha256(), 0
    for chunk in chunks:
        hasher.update(chunk)
        size += len(chunk)
    return File(path, size, mode, hasher.hexdigest())
