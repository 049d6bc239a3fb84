"""From the staging directory to the final names: all of it, or nothing.

Every conflict is looked for before the first name changes, and a failure after that is undone step
by step, newest first. What is left to chance is a `kill -9` between two renames: the files that
were replaced are then still in the staging directory.
"""

import enum
import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple

from kitd.client.rename import rename_to_free
from kitd.client.tar_reader import printable
from kitd.client.tree import StagedFile, Tree, parent_of
from kitd.client.walker import Walker
from kitd.errors import KitdError

_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)
_SHOWN_CONFLICTS = 5


class ConflictError(KitdError):
    """Files stand where the kit's files belong."""

    code = "conflict"


class CaseClashError(ConflictError):
    """Two names of a kit are one where it is unpacked: the file system ignores case or spelling."""

    code = "case_clash"

    def __init__(self, first: bytes, second: bytes) -> None:
        super().__init__(
            f"'{printable(first)}' and '{printable(second)}' of the kit are the same file for the"
            " file system it is unpacked to",
            hint="unpack where names are told apart by their case and spelling, or one of the two"
            " with --filter",
        )


class WriteError(KitdError):
    """The file system did not do what was asked."""

    code = "unpack_io"


class NoSpaceError(WriteError):
    """The disk is full, or the kit is larger than what is free."""

    code = "no_space"


class Existing(enum.Enum):
    """What to do about a file that stands where one of the kit belongs."""

    REFUSE = "refuse"
    OVERWRITE = "overwrite"
    KEEP = "keep"


class Replacement(NamedTuple):
    """A file that takes the place of another and keeps its permissions."""

    file: StagedFile
    mode: int


class Placement(NamedTuple):
    """What is to be done, parents before children."""

    directories: Mapping[bytes, int]
    created: Mapping[bytes, StagedFile]
    replaced: Mapping[bytes, Replacement]


@contextmanager
def os_errors(name: bytes) -> Iterator[None]:
    """Map operating system errors to this module's, naming the file."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(
                f"cannot write '{printable(name)}': {reason}", hint="free disk space"
            ) from error
        hint = None
        if error.errno == errno.EXDEV:
            hint = "unpack where everything is on one file system"
        raise WriteError(f"cannot write '{printable(name)}': {reason}", hint=hint) from error


def plan_placement(root: int, tree: Tree, existing: Existing) -> Placement:
    """Compare a tree with what is below the open directory `root`, and decide. Changes nothing.

    Raises `ConflictError` naming every file in the way, `CaseClashError`, `WriteError`.
    """
    directories: dict[bytes, int] = {}
    created: dict[bytes, StagedFile] = {}
    replaced: dict[bytes, Replacement] = {}
    conflicts: list[bytes] = []

    known: dict[tuple[int, int], bytes] = {}

    def mode_of(walker: Walker, name: bytes) -> int | None:
        if parent_of(name) in directories:
            return None
        with os_errors(name), suppress(FileNotFoundError):
            found = _look(walker, name)
            other = known.setdefault((found.st_dev, found.st_ino), name)
            if other != name and not _are_two(walker, other, name):
                raise CaseClashError(other, name)
            return found.st_mode
        return None

    with Walker(root) as walker:
        # Sorted, a directory comes before what it holds, and that is all in one place.
        for name in sorted(tree.directories):
            mode = mode_of(walker, name)
            if mode is None:
                directories[name] = tree.directories[name]
            elif not stat.S_ISDIR(mode):
                raise ConflictError(
                    f"'{printable(name)}' is {_what(mode)}, and the kit has a directory there",
                    hint="unpack into another directory",
                )
        for name in sorted(tree.files):
            mode = mode_of(walker, name)
            if mode is None:
                created[name] = tree.files[name]
            elif existing is Existing.REFUSE:
                conflicts.append(name)
            elif existing is Existing.OVERWRITE:
                if not stat.S_ISREG(mode):
                    raise ConflictError(
                        f"'{printable(name)}' is {_what(mode)}, and the kit has a file there",
                        hint="unpack into another directory",
                    )
                replaced[name] = Replacement(tree.files[name], mode & 0o777)
    if conflicts:
        shown = ", ".join(printable(name) for name in conflicts[:_SHOWN_CONFLICTS])
        more = len(conflicts) - _SHOWN_CONFLICTS
        raise ConflictError(
            f"already there: {shown}" + (f" and {more} more" if more > 0 else ""),
            hint="--overwrite replaces them, --ignore-existing keeps them",
        )
    return Placement(directories, created, replaced)


def _look(walker: Walker, name: bytes) -> os.stat_result:
    handle = walker.open(parent_of(name))
    return os.lstat(name.rpartition(b"/")[2], dir_fd=handle)


def _are_two(walker: Walker, first: bytes, second: bytes) -> bool:
    """Whether two names of one file are hard links of it, and not one name in two spellings."""

    def is_listed(name: bytes) -> bool:
        return os.fsdecode(name.rpartition(b"/")[2]) in os.listdir(walker.open(parent_of(name)))

    return is_listed(first) and is_listed(second)


def _occupied(walker: Walker, name: bytes, placed: Iterable[bytes]) -> ConflictError:
    """Return the error that says what has a name already: another of the kit, or somebody's."""
    found = _look(walker, name)
    for other in placed:
        seen = _look(walker, other)
        if (seen.st_dev, seen.st_ino) == (found.st_dev, found.st_ino):
            return CaseClashError(other, name)
    return ConflictError(
        f"'{printable(name)}' appeared while the kit was unpacked", hint="unpack again"
    )


def _what(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if stat.S_ISDIR(mode):
        return "a directory"
    return "a file" if stat.S_ISREG(mode) else "a special file"


def place(
    root: int,
    staging: int,
    placement: Placement,
    between_steps: Callable[[], None] = lambda: None,
) -> None:
    """Give the files of the open directory `staging` their names below `root`.

    Raises `ConflictError`, `CaseClashError`, `WriteError`, `NoSpaceError`, and what `between_steps`
    does; whatever it raises, everything below `root` is as it was before. Who calls it in the main
    thread has to hold signals back: `HeldSignals`.
    """
    made: list[bytes] = []
    created: list[bytes] = []
    replaced: list[bytes] = []
    narrowed: list[tuple[bytes, int]] = []
    with Walker(root) as walker:
        staged = _Staged(staging)
        try:
            for name, mode in placement.directories.items():
                between_steps()
                with os_errors(name):
                    try:
                        _make_directory(walker, name, mode, made, narrowed)
                    except FileExistsError:
                        raise _occupied(walker, name, made) from None
            for name, file in placement.created.items():
                between_steps()
                created.append(name)
                with os_errors(name):
                    try:
                        _create(walker, staged, name, file)
                    except FileExistsError:
                        raise _occupied(walker, name, (*made, *created[:-1])) from None
            for name, replacement in placement.replaced.items():
                between_steps()
                replaced.append(name)
                with os_errors(name):
                    _replace(walker, staged, name, replacement)
            for name, mode in reversed(narrowed):
                with os_errors(name):
                    os.fchmod(walker.open(name), mode)
            between_steps()
        except BaseException:
            for name in reversed(replaced):
                _restore(walker, staged, name, placement.replaced[name].file)
            for name in reversed(created):
                _remove_file(walker, staged, name, placement.created[name])
            for name in reversed(made):
                _remove_directory(walker, name)
            raise
    for replacement in placement.replaced.values():
        with suppress(OSError):
            os.unlink(_backup(replacement.file), dir_fd=staging)


class _Staged:
    """The staging directory, and which file is which."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self._device = os.fstat(handle).st_dev

    def is_same(self, found: os.stat_result, file: StagedFile) -> bool:
        """Whether what was found is what was staged."""
        return (found.st_dev, found.st_ino) == (self._device, file.inode)

    def require_same(self, found: os.stat_result, name: bytes, file: StagedFile) -> None:
        """Raise `WriteError` where somebody put another file in the place of the staged one."""
        if not self.is_same(found, file):
            raise WriteError(
                f"'{printable(name)}' was exchanged while the kit was unpacked",
                hint="unpack where only you can write",
            )


def _make_directory(
    walker: Walker,
    name: bytes,
    mode: int,
    made: list[bytes],
    narrowed: list[tuple[bytes, int]],
) -> None:
    """Create a directory that this user can fill; note the mode it gets once it is full."""
    parent, _, last = name.rpartition(b"/")
    handle = walker.open(parent)
    made.append(name)
    try:
        os.mkdir(last, mode | 0o700, dir_fd=handle)
    except OSError:
        made.pop()
        raise
    if mode & 0o700 != 0o700:
        # What the umask left of the mode is known only now.
        found = stat.S_IMODE(os.fstat(walker.open(name)).st_mode)
        narrowed.append((name, found & ~(0o700 & ~mode)))


def _create(walker: Walker, staged: _Staged, name: bytes, file: StagedFile) -> None:
    parent, _, last = name.rpartition(b"/")
    handle = walker.open(parent)
    is_link = _link(str(file.number).encode(), staged.handle, last, handle)
    # Where there are no links, a file's number need not stay the same.
    if is_link:
        try:
            staged.require_same(os.lstat(last, dir_fd=handle), name, file)
        except WriteError:
            os.unlink(last, dir_fd=handle)
            raise


def _link(source: bytes, source_directory: int, target: bytes, target_directory: int) -> bool:
    """Give a file a second name that must be free, or move it where links are not possible.

    Returns whether it has both names now.
    """
    try:
        os.link(
            source,
            target,
            src_dir_fd=source_directory,
            dst_dir_fd=target_directory,
            follow_symlinks=False,
        )
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        rename_to_free(source, source_directory, target, target_directory)
        return False
    return True


def _replace(walker: Walker, staged: _Staged, name: bytes, replacement: Replacement) -> None:
    parent, _, last = name.rpartition(b"/")
    handle = walker.open(parent)
    source = str(replacement.file.number).encode()
    is_link = _link(last, handle, _backup(replacement.file), staged.handle)
    # Some files may not be opened even by their owner, and chmod follows links: a descriptor that
    # can do nothing else stands for the file itself.
    opened = os.open(source, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=staged.handle)
    try:
        found = os.fstat(opened)
        if is_link or not stat.S_ISREG(found.st_mode):
            staged.require_same(found, name, replacement.file)
        os.chmod(f"/proc/self/fd/{opened}", replacement.mode)
    finally:
        os.close(opened)
    os.rename(source, last, src_dir_fd=staged.handle, dst_dir_fd=handle)


def _backup(file: StagedFile) -> bytes:
    return f"old-{file.number}".encode()


# Undoing goes on past a step that fails: the error that began it is the one to tell.


def _remove_directory(walker: Walker, name: bytes) -> None:
    parent, _, last = name.rpartition(b"/")
    with suppress(OSError):
        os.rmdir(last, dir_fd=walker.open(parent))


def _remove_file(walker: Walker, staged: _Staged, name: bytes, file: StagedFile) -> None:
    parent, _, last = name.rpartition(b"/")
    with suppress(OSError):
        handle = walker.open(parent)
        # It may be somebody else's: an undo is noted before what it undoes.
        if staged.is_same(os.lstat(last, dir_fd=handle), file):
            os.unlink(last, dir_fd=handle)


def _restore(walker: Walker, staged: _Staged, name: bytes, file: StagedFile) -> None:
    parent, _, last = name.rpartition(b"/")
    with suppress(OSError):
        handle = walker.open(parent)
        kept = os.lstat(_backup(file), dir_fd=staged.handle)
        with suppress(FileNotFoundError):
            found = os.lstat(last, dir_fd=handle)
            if (found.st_dev, found.st_ino) == (kept.st_dev, kept.st_ino):
                # rename(2) leaves two names of one file as they are.
                os.unlink(_backup(file), dir_fd=staged.handle)
                return
        os.rename(_backup(file), last, src_dir_fd=staged.handle, dst_dir_fd=handle)
