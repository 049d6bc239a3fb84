"""One walk over a project: which entries its layers take, and what state they are in.

The walk descends by directory file descriptors and never follows a link, so that nothing outside
of the project is ever looked at, whatever is swapped meanwhile. Names are bytes; directories are
listed in byte order, each descended into right after its own entry, which is `kit`'s order.
"""

import errno
import hashlib
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from kitd.errors import Disposition, KitdError
from kitd.modelkit.plan import LayerPlan, Selection
from kitd.packing.order import Project

MAX_ENTRIES = 5_000_000
MAX_DEPTH = 512
MAX_PATH_BYTES = 4095
"""What the kernel opens in one call (PATH_MAX, without the NUL that ends it)."""
_MOVED = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ESTALE}
)
_STATE = struct.Struct("<QQQqqI?")


class InputError(KitdError):
    """A file of the project cannot be packed as it is."""

    code = "unreadable_input"


class MissingInputError(InputError):
    """A path that the Kitfile names, or the project itself, is not there."""

    code = "missing_input"


class InputChangedError(InputError):
    """A file or the tree moved while it was read: nothing is published, try again at rest."""

    code = "input_changed"
    disposition: ClassVar[Disposition] = Disposition.SNOOZE


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or directory that at least one layer takes. `path` is relative to the root."""

    path: bytes
    is_dir: bool
    mode: int
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    layers: tuple[int, ...]

    def same_file(self, status: os.stat_result) -> bool:
        """Whether a file's status is still the one that the walk saw."""
        return (
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_mode,
        ) == (self.device, self.inode, self.size, self.mtime_ns, self.ctime_ns, self.mode)


@dataclass(frozen=True, slots=True)
class Tree:
    """What a walk saw, in pack order. `links` are symbolic links that stay out of every layer."""

    entries: tuple[Entry, ...]
    links: tuple[bytes, ...]

    @property
    def size_bytes(self) -> int:
        """Content of all files, counted once for every layer that takes it."""
        return sum(entry.size * len(entry.layers) for entry in self.entries if not entry.is_dir)


def printable(path: bytes | str) -> str:
    """Return a path for a message: undecodable bytes and control characters escaped."""
    text = path.decode("utf-8", "backslashreplace") if isinstance(path, bytes) else path
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def has_moved(error: OSError) -> bool:
    """Whether something else stands where the walk saw a file or a directory."""
    return error.errno in _MOVED


def open_root(root: str) -> int:
    """Return a descriptor of the project's directory. Raises `MissingInputError`, `InputError`."""
    try:
        return os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise MissingInputError(
            f"the project directory {printable(root)} does not exist",
            hint="create it, or correct the project's path",
        ) from error
    except OSError as error:
        raise InputError(f"cannot open {printable(root)}: {error.strerror}") from error


def read_beneath(root: int, path: str, max_bytes: int) -> bytes:
    """Return at most `max_bytes` of a regular file; no element of a relative path may be a link.

    An absolute path is read as it is: whether somebody may name one is decided where they ask.
    Raises `OSError`; `..` and links give ELOOP, what is no file EINVAL.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    opened = [os.dup(root)]
    try:
        if not path.startswith("/"):
            flags |= os.O_NOFOLLOW
            *directories, path = path.split("/")
            if ".." in (*directories, path):
                raise OSError(errno.ELOOP, "the path leads out of the project")
            for directory in directories:
                opened.append(os.open(directory or ".", flags | os.O_DIRECTORY, dir_fd=opened[-1]))
        opened.append(os.open(path, flags, dir_fd=opened[-1]))
        if not stat.S_ISREG(os.fstat(opened[-1]).st_mode):
            raise OSError(errno.EINVAL, "not a file")
        with os.fdopen(opened.pop(), "rb") as file:
            return file.read(max_bytes)
    finally:
        for handle in opened:
            os.close(handle)


def require_paths(root: int, plans: Iterable[LayerPlan]) -> None:
    """Check that every path of the Kitfile is there and is a file or a directory itself.

    A path that is a link, or leads through one, would give an empty layer: the walk follows none.
    Raises `MissingInputError`, `InputError`.
    """
    for plan in plans:
        parts = [part for part in plan.path.split(b"/") if part != b"."]
        for depth in range(1, len(parts) + 1):
            path = b"/".join(parts[:depth])
            try:
                mode = os.stat(path, dir_fd=root, follow_symlinks=False).st_mode
            except (FileNotFoundError, NotADirectoryError) as error:
                raise MissingInputError(
                    f"the path {printable(plan.path)} of the Kitfile does not exist",
                    hint="create it, or correct the Kitfile",
                ) from error
            except OSError as error:
                raise InputError(f"cannot look at {printable(path)}: {error.strerror}") from error
            if stat.S_ISLNK(mode):
                raise InputError(
                    f"{printable(path)} is a symbolic link, and links are not packed",
                    hint="name the file or directory itself in the Kitfile",
                )
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise InputError(f"{printable(path)} is neither a file nor a directory")


def scan(root: int, selection: Selection) -> Tree:
    """Walk below an open directory and return what the selection's layers take.

    Raises `MissingInputError`, `InputError`, `InputChangedError`.
    """
    links: list[bytes] = []
    entries = tuple(islice(_walk(root, b"", selection, links, depth=0), MAX_ENTRIES + 1))
    if len(entries) > MAX_ENTRIES or len(links) > MAX_ENTRIES:
        raise InputError(
            f"the project has more than {MAX_ENTRIES} files and directories",
            hint="leave out what is no part of the kit in .kitignore",
        )
    return Tree(entries, tuple(links))


def _walk(
    directory: int, prefix: bytes, selection: Selection, links: list[bytes], depth: int
) -> Iterator[Entry]:
    if depth > MAX_DEPTH:
        raise InputError(f"{printable(prefix)} is nested deeper than {MAX_DEPTH} directories")
    for name in sorted(os.fsencode(name) for name in _names(directory, prefix)):
        path = prefix + name
        status = _status(directory, name, path)
        if stat.S_ISREG(status.st_mode):
            layers = selection.layers_of(path, is_dir=False)
            if layers:
                yield _entry(path, status, layers)
        elif stat.S_ISDIR(status.st_mode):
            layers = selection.layers_of(path, is_dir=True)
            if layers:
                yield _entry(path, status, layers)
            if selection.enter(path):
                child = _descend(directory, name, path)
                try:
                    yield from _walk(child, path + b"/", selection, links, depth + 1)
                finally:
                    os.close(child)
        elif stat.S_ISLNK(status.st_mode) and selection.layers_of(path, is_dir=False):
            links.append(path)


def _names(directory: int, prefix: bytes) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError as error:
        raise InputError(f"cannot list {printable(prefix) or '.'}: {error.strerror}") from error


def _status(directory: int, name: bytes, path: bytes) -> os.stat_result:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError as error:
        raise InputChangedError(f"{printable(path)} vanished while it was looked at") from error
    except OSError as error:
        raise InputError(f"cannot look at {printable(path)}: {error.strerror}") from error


def _descend(directory: int, name: bytes, path: bytes) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=directory)
    except OSError as error:
        if has_moved(error):
            raise InputChangedError(f"{printable(path)} changed while it was looked at") from error
        raise InputError(
            f"cannot open the directory {printable(path)}: {error.strerror}",
            hint="let kitd's user read it, or leave it out in .kitignore",
        ) from error


def _entry(path: bytes, status: os.stat_result, layers: tuple[int, ...]) -> Entry:
    is_dir = stat.S_ISDIR(status.st_mode)
    if len(path) > MAX_PATH_BYTES:
        raise InputError(f"{printable(path)[:200]}… is a path of more than {MAX_PATH_BYTES} bytes")
    return Entry(
        path=path,
        is_dir=is_dir,
        mode=status.st_mode,
        device=status.st_dev,
        inode=status.st_ino,
        size=0 if is_dir else status.st_size,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        layers=layers,
    )


def fingerprint(project: Project, kitfile: bytes, tree: Tree) -> str:
    """Return the state of a project's inputs in one word.

    Covers how it is packed, the Kitfile's bytes, and each entry's path, layers, kind, mode, inode,
    size and times; of directories only path, layers and mode, because their times change with
    entries that no layer takes.
    """
    hasher = hashlib.sha256()
    for part in (project.root, project.dialect, project.layer_format, project.compression):
        hasher.update(part.encode("utf-8") + b"\0")
    hasher.update(hashlib.sha256(kitfile).digest())
    for entry in tree.entries:
        times = (0, 0, 0) if entry.is_dir else (entry.inode, entry.mtime_ns, entry.ctime_ns)
        inode, mtime_ns, ctime_ns = times
        hasher.update(
            b"%d\0%s\0%s"
            % (
                len(entry.path),
                entry.path,
                _STATE.pack(
                    0 if entry.is_dir else entry.device,
                    inode,
                    entry.size,
                    mtime_ns,
                    ctime_ns,
                    entry.mode,
                    entry.is_dir,
                ),
            )
        )
        hasher.update(repr(entry.layers).encode())
    return hasher.hexdigest()
