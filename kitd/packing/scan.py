"""One walk over a project: which entries its layers take, and what state they are in.

The walk descends by directory file descriptors and never follows a link, so that nothing outside
of the project is ever looked at, whatever is swapped meanwhile. Names are bytes; directories are
listed in byte order, each descended into right after its own entry, which is `kit`'s order.

`glance` is the same walk for those who only ask whether anything is different: it takes in more
than the layers do, all that lies in the directories it enters, and decides nothing for it.
"""

import errno
import hashlib
import marshal
import os
import stat
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from kitd.caller import Caller
from kitd.errors import Disposition, KitdError, printable
from kitd.modelkit.plan import LayerPlan, Selection
from kitd.packing.order import ANYBODY, Project
from kitd.packing.private_group import is_private_group
from kitd.set_id import lends_rights

MAX_ENTRIES = 5_000_000
SECOND_NS = 1_000_000_000
GRANULE_NS = 50_000_000
"""The longest step of a file system's clock, with a margin: jiffies, up to ten milliseconds."""
COARSE_GRANULE_NS = 2_000_000_000
"""The same where times are whole seconds."""
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""How a file is opened that was seen before: no link that took its place is followed, and should a
fifo have taken it, opening does not wait for a writer."""
MAX_DEPTH = 512
MAX_PATH_BYTES = 4095
"""What the kernel opens in one call (PATH_MAX, without the NUL that ends it)."""
_MOVED = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ESTALE}
)
_STATE = struct.Struct("<QQQQqqI")
_GLANCE_MODULUS = 1 << 256

Watch = Callable[[int], None]
"""Is given the descriptor of each directory before it is listed, so that nothing that happens to it
later goes unnoticed."""


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


class SetIdInputError(InputError):
    """A file of the project runs with the rights of its owner or its group, whoever runs it."""

    code = "set_id"


class UnprovenRootError(InputError):
    """The project's directory is not the one that was shown by whoever asked for it."""

    code = "denied"


class UnreadableByCallerError(InputError):
    """Whoever asked for the kit could not read this himself, so kitd does not do it for him."""

    code = "unreadable_by_caller"


class Entry(NamedTuple):
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
            status.st_ino == self.inode
            and status.st_ctime_ns == self.ctime_ns
            and status.st_size == self.size
            and status.st_mtime_ns == self.mtime_ns
            and status.st_mode == self.mode
            and status.st_dev == self.device
        )


def racy_until(ctime_ns: int) -> int:
    """Return from when on a file that changed at `ctime_ns` changes no more without a sign.

    A change within the same step of the file system's clock leaves the times as they are (git calls
    an entry for which that is possible racily clean).
    """
    return ctime_ns + (GRANULE_NS if ctime_ns % SECOND_NS else COARSE_GRANULE_NS)


@dataclass(frozen=True, slots=True)
class Sight:
    """What a glance takes in: every entry of the directories entered, and the newest change."""

    digest: str
    entries: int
    racy_until_ns: int
    """When the last change that was seen is so long ago that another one would show; see
    `racy_until`. 0 without files."""


@dataclass(frozen=True, slots=True)
class Tree:
    """What a walk saw, in pack order. `links` are symbolic links that stay out of every layer."""

    entries: tuple[Entry, ...]
    links: tuple[bytes, ...]
    sight: Sight


def has_moved(error: OSError) -> bool:
    """Whether something else stands where the walk saw a file or a directory."""
    return error.errno in _MOVED


def open_root(path: str, reader: Caller | None = None) -> int:
    """Return a descriptor of a project's directory.

    Raises `MissingInputError`, `InputError`, and where it is read on behalf of somebody
    `UnprovenRootError`, `UnreadableByCallerError`.
    """
    try:
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        if reader is not None:
            raise _unproven(path, reader) from error
        raise MissingInputError(
            f"the project directory {printable(path)} does not exist",
            hint="create it, or correct the project's path",
        ) from error
    except OSError as error:
        if reader is not None:
            raise _unproven(path, reader) from error
        raise InputError(f"cannot open {printable(path)}: {error.strerror}") from error
    try:
        _require_proven(root, path, reader)
        require_readable(root, path, reader)
    except BaseException:
        os.close(root)
        raise
    return root


def _require_proven(root: int, path: str, reader: Caller | None) -> None:
    if reader is not None and not reader.may_begin_in(os.fstat(root)):
        raise _unproven(path, reader)


def _unproven(path: str, reader: Caller) -> UnprovenRootError:
    """Return the same for all that may be there: a caller must not learn what kitd can see."""
    shown = "none"
    if reader.root is not None:
        shown = "device {}, inode {}".format(*reader.root)
    return UnprovenRootError(
        f"{printable(path)} is neither a directory of user {reader.uid}"
        f" nor the one that he showed ({shown})",
        hint="ask again if it was replaced: kitctl shows kitd the directory that is there",
    )


def require_readable(file: int, path: bytes | str, reader: Caller | None) -> None:
    """Check that an open file or directory is one that the reader could read himself.

    Access control lists are not evaluated: a mode does not tell what one takes away, so that with
    a list only the owner is let in. Raises `UnreadableByCallerError`.
    """
    if reader is None:
        return
    status = os.fstat(file)
    is_listed = reader.uid != status.st_uid and _has_access_list(file)
    if reader.may_read(status) and not is_listed:
        return
    right = "read and search" if stat.S_ISDIR(status.st_mode) else "read"
    reason = f"mode {stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid}:{status.st_gid}"
    if is_listed:
        reason += ", an access control list"
    raise UnreadableByCallerError(
        f"user {reader.uid}, who asked for the kit, has no right to {right} {printable(path)}"
        f" ({reason})",
        hint="give it with chmod, or leave it out in .kitignore",
    )


def _has_access_list(file: int) -> bool:
    """Whether a file has an access control list (acl(5)); what cannot be told counts as one."""
    if sys.platform != "linux":
        return False
    try:
        os.getxattr(file, "system.posix_acl_access")
    except OSError as error:
        return error.errno not in (errno.ENODATA, errno.EOPNOTSUPP)
    return True


def read_beneath(root: int, path: str, max_bytes: int, reader: Caller | None) -> bytes:
    """Return at most `max_bytes` of a regular file; no element of a relative path may be a link.

    An absolute path is read as it is: whether somebody may name one is decided where they ask.
    Raises `OSError`; `..` and links give ELOOP, what is no file EINVAL. Raises
    `UnreadableByCallerError` for what the reader could not read.
    """
    return read_authored(root, path, max_bytes, reader).content


@dataclass(frozen=True, slots=True)
class Authored:
    """What a file holds, and who may have written that, as in `kitd.packing.order.Referred`."""

    content: bytes
    authors: frozenset[int]


def read_authored(root: int, path: str, max_bytes: int, reader: Caller | None) -> Authored:
    """Return what `read_beneath` does, and raise it, with the owners of what was opened for it."""
    if path.startswith("/"):
        above = {os.fstat(root).st_uid}
        file = os.open(path, FILE_FLAGS & ~os.O_NOFOLLOW)
        return _read_file(file, path, max_bytes, reader, above)
    with parent_beneath(root, path, reader) as (directory, name):
        above = {os.fstat(root).st_uid, os.fstat(directory).st_uid}
        file = os.open(name, FILE_FLAGS, dir_fd=directory)
        return _read_file(file, path, max_bytes, reader, above)


def is_beneath(root: int, path: str, reader: Caller | None) -> bool:
    """Whether something of this relative path exists, reached without following a link.

    Raises as `read_beneath` does.
    """
    with parent_beneath(root, path, reader) as (directory, name):
        try:
            os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True


def _read_file(
    file: int, path: str, max_bytes: int, reader: Caller | None, above: set[int]
) -> Authored:
    try:
        require_readable(file, path, reader)
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a file")
        authors = above | {status.st_uid}
        if _may_others_write(file, status):
            authors.add(ANYBODY)
        with os.fdopen(file, "rb", closefd=False) as content:
            return Authored(content.read(max_bytes), frozenset(authors))
    finally:
        os.close(file)


def _may_others_write(file: int, status: os.stat_result) -> bool:
    """Whether anybody but the owner may; where that cannot be told, somebody may."""
    if status.st_mode & stat.S_IWOTH:
        return True
    # With an access control list the bit is its mask, without which nobody whom it names may write.
    return bool(status.st_mode & stat.S_IWGRP) and (
        _has_access_list(file) or not is_private_group(status.st_uid, status.st_gid)
    )


@contextmanager
def parent_beneath(root: int, path: str, reader: Caller | None) -> Iterator[tuple[int, str]]:
    """Open the directory that holds what a relative path names, and tell its name there.

    Raises as `read_beneath` does.
    """
    *directories, name = path.split("/")
    if path.startswith("/") or ".." in (*directories, name):
        raise OSError(errno.ELOOP, "the path leads out of the project")
    opened = [os.dup(root)]
    try:
        for directory in directories:
            flags = FILE_FLAGS | os.O_DIRECTORY
            opened.append(os.open(directory or ".", flags, dir_fd=opened[-1]))
            require_readable(opened[-1], directory, reader)
        yield opened[-1], name
    finally:
        for handle in opened:
            os.close(handle)


def require_paths(root: int, plans: Iterable[LayerPlan], reader: Caller | None) -> None:
    """Check that every path of the Kitfile is there and is a file or a directory itself.

    A path that is a link, or leads through one, would give an empty layer: the walk follows none.
    Nor does it enter what is left out, so that the reader's rights are asked for here too. Raises
    `MissingInputError`, `InputError`, `UnreadableByCallerError`.
    """
    for plan in plans:
        parts = [part for part in plan.path.split(b"/") if part != b"."]
        _require_path(root, plan, parts, reader)


def _require_path(
    root: int, plan: LayerPlan, parts: Sequence[bytes], reader: Caller | None
) -> None:
    directory = os.dup(root)
    try:
        for depth, name in enumerate(parts, start=1):
            path = b"/".join(parts[:depth])
            try:
                mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
            except FileNotFoundError as error:
                raise _missing(plan) from error
            except OSError as error:
                raise InputError(f"cannot look at {printable(path)}: {error.strerror}") from error
            if stat.S_ISLNK(mode):
                raise InputError(
                    f"{printable(path)} is a symbolic link, and links are not packed",
                    hint="name the file or directory itself in the Kitfile",
                )
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise InputError(f"{printable(path)} is neither a file nor a directory")
            if depth < len(parts):
                if not stat.S_ISDIR(mode):
                    raise _missing(plan)
                above, directory = directory, _descend(directory, name, path)
                os.close(above)
                require_readable(directory, path, reader)
    finally:
        os.close(directory)


def _missing(plan: LayerPlan) -> MissingInputError:
    return MissingInputError(
        f"the path {printable(plan.path)} of the Kitfile does not exist",
        hint="create it, or correct the Kitfile",
    )


def scan(
    root: int, selection: Selection, *, watch: Watch | None = None, reader: Caller | None = None
) -> Tree:
    """Walk below an open directory and return what the selection's layers take.

    Raises `MissingInputError`, `InputError`, `InputChangedError`, and with a reader
    `UnreadableByCallerError` for directories that he could not list.
    """
    walk = _Walk(selection, watch, reader)
    walk.enter(root, b"", depth=0)
    return Tree(tuple(walk.entries), tuple(walk.links), walk.sums.sight())


def glance(
    root: int,
    selection: Selection,
    *,
    part: int = 0,
    parts: int = 1,
    watch: Watch | None = None,
    reader: Caller | None = None,
) -> "Sums":
    """Walk as `scan` does and return what it would take in: its sums' `sight` is the tree's.

    Of `parts` processes that walk the same tree, each takes in its share of the directories.
    Raises what `scan` does.
    """
    walk = _Glance(selection, watch, reader, part, parts)
    walk.enter(root, b"", depth=0)
    return walk.sums


@dataclass(slots=True)
class Sums:
    """A sight in the making. Does not depend on the order or the grouping of what is added."""

    total: int = 0
    entries: int = 0
    racy_until_ns: int = 0

    def add(self, prefix: bytes, found: "Sequence[tuple[bytes, os.stat_result]]") -> None:
        """Add a directory's entries. Of directories only the mode counts, as in a layer's key."""
        records: list[tuple[object, ...]] = []
        newest_ns = newest_second_ns = 0
        # What a clock that ran ahead has stamped, a change of today would not leave as it is.
        horizon_ns = time.time_ns() + COARSE_GRANULE_NS
        for name, status in found:
            mode = status.st_mode
            if stat.S_ISDIR(mode):
                records.append((name, mode))
                continue
            ctime_ns = status.st_ctime_ns
            if newest_ns < ctime_ns < horizon_ns:
                newest_ns = ctime_ns
            if ctime_ns % SECOND_NS == 0 and newest_second_ns < ctime_ns < horizon_ns:
                newest_second_ns = ctime_ns
            records.append(
                (
                    name,
                    mode,
                    status.st_dev,
                    status.st_ino,
                    status.st_size,
                    status.st_mtime_ns,
                    ctime_ns,
                )
            )
        if newest_ns:
            racy_ns = max(racy_until(newest_ns), racy_until(newest_second_ns))
            self.racy_until_ns = max(self.racy_until_ns, racy_ns)
        self.entries += len(records)
        # Version 2: later ones encode equal values in more than one way.
        content = b"%d:%s%s" % (len(prefix), prefix, marshal.dumps(records, 2))
        self.total += int.from_bytes(hashlib.sha256(content).digest(), "little")

    def merge(self, other: "Sums") -> None:
        """Add what another process took in."""
        self.total += other.total
        self.entries += other.entries
        self.racy_until_ns = max(self.racy_until_ns, other.racy_until_ns)

    def sight(self) -> Sight:
        """Return what was taken in."""
        total = self.total % _GLANCE_MODULUS
        return Sight(f"{total:064x}", self.entries, self.racy_until_ns)


class _Glance:
    """One glance: the statuses of every so many directories, and the names of all."""

    def __init__(
        self,
        selection: Selection,
        watch: Watch | None,
        reader: Caller | None,
        part: int,
        parts: int,
    ) -> None:
        self._selection = selection
        self._watch = watch
        self._reader = reader
        self._part = part
        self._parts = parts
        self._turn = 0
        self.sums = Sums()

    def enter(self, directory: int, prefix: bytes, depth: int) -> None:
        _require_depth(prefix, depth)
        require_readable(directory, prefix or b".", self._reader)
        mine = self._turn % self._parts == self._part
        self._turn += 1
        if mine:
            if self._watch is not None:
                self._watch(directory)
            found = _look(directory, prefix)
            self.sums.add(prefix, found)
            _require_bounded(self.sums.entries)
            children: Sequence[bytes] = [
                name for name, status in found if stat.S_ISDIR(status.st_mode)
            ]
        else:
            children = _directories(directory, prefix)
        for name in children:
            path = prefix + name
            if self._selection.enter(path):
                child = _descend(directory, name, path)
                try:
                    self.enter(child, path + b"/", depth + 1)
                finally:
                    os.close(child)


class _Walk:
    """One walk. What it has found so far is in `entries` and `links`."""

    def __init__(self, selection: Selection, watch: Watch | None, reader: Caller | None) -> None:
        self._selection = selection
        self._watch = watch
        self._reader = reader
        self.entries: list[Entry] = []
        self.links: list[bytes] = []
        self.sums = Sums()

    def enter(self, directory: int, prefix: bytes, depth: int) -> None:
        _require_depth(prefix, depth)
        require_readable(directory, prefix or b".", self._reader)
        if self._watch is not None:
            self._watch(directory)
        layers_of, entries = self._selection.layers_of, self.entries
        found = _look(directory, prefix)
        self.sums.add(prefix, found)
        _require_bounded(self.sums.entries)
        for name, status in found:
            path = prefix + name
            mode = status.st_mode
            if stat.S_ISREG(mode):
                layers = layers_of(path, is_dir=False)
                if layers:
                    entries.append(_entry(path, status, layers, is_dir=False))
            elif stat.S_ISDIR(mode):
                layers = layers_of(path, is_dir=True)
                if layers:
                    entries.append(_entry(path, status, layers, is_dir=True))
                if self._selection.enter(path):
                    child = _descend(directory, name, path)
                    try:
                        self.enter(child, path + b"/", depth + 1)
                    finally:
                        os.close(child)
            elif stat.S_ISLNK(mode) and layers_of(path, is_dir=False):
                self.links.append(path)


def _require_depth(prefix: bytes, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InputError(f"{printable(prefix)} is nested deeper than {MAX_DEPTH} directories")


def _require_bounded(entries: int) -> None:
    if entries > MAX_ENTRIES:
        raise InputError(
            f"the project has more than {MAX_ENTRIES} files and directories",
            hint="leave out what is no part of the kit in .kitignore",
        )


def _look(directory: int, prefix: bytes) -> Sequence[tuple[bytes, os.stat_result]]:
    """Return a directory's entries in byte order."""
    names = _names(directory, prefix)
    look = os.stat
    try:
        return [(name, look(name, dir_fd=directory, follow_symlinks=False)) for name in names]
    except OSError:
        # Once more with care: the usual case has no time for a call of our own for each entry.
        found = [(name, _status(directory, name, prefix)) for name in names]
    return [(name, status) for name, status in found if status is not None]


def _directories(directory: int, prefix: bytes) -> Sequence[bytes]:
    """Return the names of a directory's directories in byte order."""
    try:
        with os.scandir(directory) as found:
            names = [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        raise _cannot_list(prefix, error) from error
    return _in_byte_order(names)


def _names(directory: int, prefix: bytes) -> Sequence[bytes]:
    try:
        names = os.listdir(directory)
    except OSError as error:
        raise _cannot_list(prefix, error) from error
    return _in_byte_order(names)


def _in_byte_order(names: Sequence[str]) -> Sequence[bytes]:
    # All at once, because encoding each takes as long as looking at it.
    return sorted(os.fsencode("\0".join(names)).split(b"\0")) if names else ()


def _cannot_list(prefix: bytes, error: OSError) -> InputError:
    return InputError(f"cannot list {printable(prefix) or '.'}: {error.strerror}")


def _status(directory: int, name: bytes, prefix: bytes) -> os.stat_result | None:
    """Return an entry's status, or None if it is gone: a later listing would not have had it."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot look at {printable(prefix + name)}: {error.strerror}") from error


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


def _entry(path: bytes, status: os.stat_result, layers: tuple[int, ...], *, is_dir: bool) -> Entry:
    if len(path) > MAX_PATH_BYTES:
        raise InputError(f"{printable(path)[:200]}… is a path of more than {MAX_PATH_BYTES} bytes")
    if not is_dir and lends_rights(status.st_mode):
        raise SetIdInputError(
            f"{printable(path)} is setuid or setgid (mode {stat.S_IMODE(status.st_mode):04o}), and"
            " kits with such files are not unpacked",
            hint="take the bit away (chmod ug-s), or leave the file out in .kitignore",
        )
    return Entry(
        path,
        is_dir,
        status.st_mode,
        status.st_dev,
        status.st_ino,
        0 if is_dir else status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        layers,
    )


def layer_key(plan: LayerPlan, compression: str, entries: Iterable[Entry]) -> str:
    """Return all that a layer is built from in one word.

    Covers the plan and each entry's path, kind, mode, device, inode, size and times; of
    directories only path and mode, because their times change with entries that no layer takes.
    """
    hasher = hashlib.sha256()
    annotations = repr(sorted(plan.annotations.items()))
    for part in (plan.path, str(plan.type).encode(), compression.encode(), annotations.encode()):
        hasher.update(b"%d:%s" % (len(part), part))
    pack = _STATE.pack
    for path, is_dir, mode, device, inode, size, mtime_ns, ctime_ns, _ in entries:
        if is_dir:
            state = pack(len(path), 0, 0, 0, 0, 0, mode)
        else:
            state = pack(len(path), device, inode, size, mtime_ns, ctime_ns, mode)
        hasher.update(state + path)
    return hasher.hexdigest()


def fingerprint(project: Project, kitfile: bytes, layers: Iterable[str]) -> str:
    """Return the state of a project's inputs in one word.

    Covers how it is packed, the Kitfile's bytes and the layers' keys.
    """
    hasher = hashlib.sha256()
    for part in (project.root, project.dialect, project.layer_format, project.compression):
        hasher.update(part.encode("utf-8") + b"\0")
    hasher.update(hashlib.sha256(kitfile).digest())
    for key in layers:
        hasher.update(key.encode())
    return hasher.hexdigest()
