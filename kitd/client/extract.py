"""Unpacking a kit with the caller's own rights: all of it, verified, or nothing.

Every layer is read once from a descriptor, checked, and written to numbered files in a staging
directory inside the target. Only when all layers are what was promised and nothing is in the way
do the files get their names. Nothing outside the target is ever written.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from kitd.client.held_signals import HeldSignals
from kitd.client.layer_stream import LayerStream, layer_format
from kitd.client.placement import (
    ConflictError,
    Existing,
    NoSpaceError,
    os_errors,
    place,
    plan_placement,
)
from kitd.client.record import Layer
from kitd.client.staging import open_staging, require_other_name, sweep
from kitd.client.tar_reader import (
    CHUNK_BYTES,
    MAX_ENTRIES,
    TarReader,
    clean_name,
    printable,
    require_no_set_id,
)
from kitd.client.tree import StagedFile, Tree

KITFILE = b"Kitfile"
RAW_MODE = 0o644
"""Of a file of which the kit does not say what it may."""
FREE_BYTES = 64 << 20
"""What an unpack leaves free on the disk."""
FREE_INODES = 100
"""So many files and directories more may then be made there."""


class OpenLayer(NamedTuple):
    """A layer and a read-only descriptor of its blob, which stays the caller's."""

    layer: Layer
    handle: int


class LooseFile(NamedTuple):
    """A file that is in no layer: its name beneath the target, its size, and what it holds."""

    path: str
    size: int
    chunks: Iterable[bytes]


class Extraction(NamedTuple):
    """What was written: files that were kept are not counted.

    `backups` are directories in the target in which an unpack that was killed has left the files
    that it had replaced.
    """

    files: int
    bytes: int
    backups: tuple[str, ...] = ()


class _Disk(NamedTuple):
    """What an unpack may take of a disk."""

    free_bytes: int
    free_inodes: int
    block_bytes: int


class _Staging:
    """The open staging directory: files by number, in the order they came."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self._count = 0

    def write(self, name: bytes, mode: int, chunks: Iterable[bytes]) -> StagedFile:
        """Write one file; the umask applies to `mode`. Raises `WriteError`, `NoSpaceError`."""
        self._count += 1
        number = self._count
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os_errors(name):
            file = os.open(str(number), flags, mode, dir_fd=self.handle)
        try:
            size = 0
            for chunk in chunks:
                self.check_space(name, len(chunk))
                size += len(chunk)
                view = memoryview(chunk)
                with os_errors(name):
                    while view:
                        view = view[os.write(file, view) :]
            return StagedFile(number, os.fstat(file).st_ino, size)
        finally:
            os.close(file)

    def check_space(self, name: bytes, size: int) -> None:
        """Raise `NoSpaceError` before bytes are written that the disk cannot hold."""
        free = self._disk(name).free_bytes
        if size > free:
            raise NoSpaceError(
                f"no space for {size} bytes of '{printable(name)}': the disk has {free}",
                hint="free disk space, or unpack to a larger disk",
            )

    def check_directories(self, count: int) -> None:
        """Raise `NoSpaceError` before directories are made that the disk cannot hold."""
        disk = self._disk(b".")
        # Most file systems take a block for each.
        most = min(disk.free_inodes, disk.free_bytes // disk.block_bytes)
        if count > most:
            raise NoSpaceError(
                f"no space for {count} directories: the disk has some for {most}",
                hint="free disk space, or unpack to a larger disk",
            )

    def _disk(self, name: bytes) -> _Disk:
        with os_errors(name):
            disk = os.fstatvfs(self.handle)
        # Some file systems do not count files, and say so by a total of none.
        inodes = disk.f_favail - FREE_INODES if disk.f_files else MAX_ENTRIES
        free_bytes = disk.f_bavail * disk.f_frsize - FREE_BYTES
        return _Disk(max(free_bytes, 0), max(inodes, 0), disk.f_frsize)


def extract(
    target: Path,
    layers: Iterable[OpenLayer],
    *,
    kitfile: str | None,
    files: Iterable[LooseFile] = (),
    existing: Existing = Existing.REFUSE,
    progress: Callable[[int], None],
) -> Extraction:
    """Unpack layers and further files, and the text of a Kitfile if there is one, into a directory.

    `layers` is consumed one by one; a descriptor is not used after the next layer was asked for.
    So are `files`, after them.
    `progress` is told the number of stored bytes after each chunk. A missing target is created. An
    existing Kitfile with the same content is never in the way.
    Raises `LayerError`, `TarError`, `ConflictError`, `WriteError`, `NoSpaceError`; whatever it
    raises, the target is as it was, but for what unpacks that were killed have left there: that is
    removed. A signal that comes when all files have their names raises what it raises once
    everything is tidy, and then they keep them.
    """
    with HeldSignals() as signals, _directory(target) as root, open_staging(root) as staged:
        staging, tree = _Staging(staged), Tree()
        with signals.let_through():
            backups = sweep(root)
            if kitfile is not None:
                _stage_kitfile(
                    root, staging, tree, kitfile.encode("utf-8", "surrogatepass"), existing
                )
            for layer, handle in layers:
                with LayerStream(handle, layer, progress) as stream:
                    _stage_layer(staging, tree, layer, stream)
                    stream.finish()
            for path, size, chunks in files:
                name = clean_name(path.encode("utf-8", "surrogatepass"))
                require_other_name(name)
                tree.check_file(name)
                staging.check_space(name, size)
                tree.add_file(name, staging.write(name, 0o644, chunks))
            placement = plan_placement(root, tree, existing)
            staging.check_directories(len(placement.directories))
        place(root, staged, placement, signals.deliver)
    written = [*placement.created.values(), *(item.file for item in placement.replaced.values())]
    return Extraction(len(written), sum(file.size for file in written), backups)


def _stage_layer(staging: _Staging, tree: Tree, layer: Layer, stream: LayerStream) -> None:
    form, _ = layer_format(layer)
    if form == "raw":
        name = _beneath(layer, clean_name(layer.path.encode("utf-8", "surrogatepass")))
        mode = RAW_MODE if layer.mode is None else layer.mode & 0o777
        require_no_set_id(name, layer.mode or 0)
        tree.check_file(name)
        tree.add_file(name, staging.write(name, mode, iter(lambda: stream.read(CHUNK_BYTES), b"")))
        return
    prefix = b""
    if layer.prefix != ".":
        prefix = clean_name(layer.prefix.encode("utf-8", "surrogatepass")) + b"/"
    archive = TarReader(stream.read, max_entries=tree.remaining_entries)
    for entry in archive.entries():
        name = _beneath(layer, prefix + entry.name)
        if entry.is_directory:
            tree.add_directory(name, entry.mode)
        else:
            tree.check_file(name)
            staging.check_space(name, entry.size)
            tree.add_file(name, staging.write(name, entry.mode, archive.content()))


def _beneath(layer: Layer, name: bytes) -> bytes:
    """Return where an entry of a layer goes. Raises `TarError`."""
    if layer.directory:
        name = clean_name(layer.directory.encode("utf-8", "surrogatepass") + b"/" + name)
    require_other_name(name)
    return name


def _stage_kitfile(
    root: int, staging: _Staging, tree: Tree, content: bytes, existing: Existing
) -> None:
    if existing is Existing.REFUSE:
        with os_errors(KITFILE), suppress(FileNotFoundError):
            found = os.lstat(KITFILE, dir_fd=root)
            if stat.S_ISREG(found.st_mode) and _has_content(root, KITFILE, content):
                return
            raise ConflictError(
                "there is another Kitfile already",
                hint="--overwrite replaces it, --ignore-existing keeps it",
            )
    tree.check_file(KITFILE)
    tree.add_file(KITFILE, staging.write(KITFILE, 0o644, (content,)))


def _has_content(root: int, name: bytes, content: bytes) -> bool:
    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=root)
    with os.fdopen(handle, "rb") as file:
        return file.read(len(content) + 1) == content


@contextmanager
def _directory(target: Path) -> Iterator[int]:
    """Open the target; directories that had to be created for it go again after a failure."""
    missing: list[Path] = []
    path = target.absolute()
    name = os.fsencode(path)
    with os_errors(name):
        while not path.exists():
            missing.append(path)
            path = path.parent
    created: list[Path] = []
    try:
        with os_errors(name):
            for path in reversed(missing):
                path.mkdir(mode=0o755)
                created.append(path)
            root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield root
        finally:
            os.close(root)
    except BaseException:
        for path in reversed(created):
            with suppress(OSError):
                path.rmdir()
        raise
