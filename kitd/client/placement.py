"""From the staging directory to the final names: all of it, or nothing.

Every conflict is looked for before the first name changes, and a failure after that is undone step
by step, newest first. What is left to chance is a `kill -9` between two renames.
"""

import enum
import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from kitd.client.tar_reader import printable
from kitd.client.tree import StagedFile, Tree, parent_of
from kitd.client.walker import Walker
from kitd.errors import KitdError

_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)
_SHOWN_CONFLICTS = 5


class ConflictError(KitdError):
    """Files stand where the kit's files belong."""

    code = "conflict"


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

    Raises `ConflictError` naming every file in the way, `WriteError`.
    """
    directories: dict[bytes, int] = {}
    created: dict[bytes, StagedFile] = {}
    replaced: dict[bytes, Replacement] = {}
    conflicts: list[bytes] = []

    def mode_of(walker: Walker, name: bytes) -> int | None:
        parent = parent_of(name)
        if parent in directories:
            return None
        with os_errors(name), suppress(FileNotFoundError):
            handle = walker.open(parent)
            return os.lstat(name.rpartition(b"/")[2], dir_fd=handle).st_mode
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


def _what(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if stat.S_ISDIR(mode):
        return "a directory"
    return "a file" if stat.S_ISREG(mode) else "a special file"


def place(root: int, staging: int, placement: Placement) -> None:
    """Give the files of the open directory `staging` their names below `root`.

    Raises `ConflictError`, `WriteError`, `NoSpaceError`; whatever it raises, KeyboardInterrupt
    included, everything below `root` is as it was before.
    """
    with Walker(root) as walker, ExitStack() as undo:
        narrowed: list[tuple[bytes, int]] = []
        for name, mode in placement.directories.items():
            with os_errors(name):
                _make_directory(walker, name, mode, narrowed)
            undo.callback(_remove_directory, walker, name)
        for name, file in placement.created.items():
            undo.callback(_remove_file, walker, name, file)
            with os_errors(name):
                _create(walker, staging, name, file)
        for name, replacement in placement.replaced.items():
            undo.callback(_restore, walker, staging, name, replacement.file)
            with os_errors(name):
                _replace(walker, staging, name, replacement)
        for name, mode in reversed(narrowed):
            with os_errors(name):
                os.fchmod(walker.open(name), mode)
        undo.pop_all()
    for replacement in placement.replaced.values():
        with suppress(OSError):
            os.unlink(_backup(replacement.file), dir_fd=staging)


def _make_directory(
    walker: Walker, name: bytes, mode: int, narrowed: list[tuple[bytes, int]]
) -> None:
    """Create a directory that this user can fill; note the mode it gets once it is full."""
    parent, _, last = name.rpartition(b"/")
    os.mkdir(last, mode | 0o700, dir_fd=walker.open(parent))
    if mode & 0o700 != 0o700:
        # What the umask left of the mode is known only now.
        made = stat.S_IMODE(os.fstat(walker.open(name)).st_mode)
        narrowed.append((name, made & ~(0o700 & ~mode)))


def _create(walker: Walker, staging: int, name: bytes, file: StagedFile) -> None:
    parent, _, last = name.rpartition(b"/")
    handle = walker.open(parent)
    try:
        _link(str(file.number).encode(), staging, last, handle)
    except FileExistsError:
        raise ConflictError(
            f"'{printable(name)}' appeared while the kit was unpacked", hint="unpack again"
        ) from None


def _link(source: bytes, source_directory: int, target: bytes, target_directory: int) -> None:
    """Give a file a second name that must be free, or move it where links are not possible."""
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
        os.rename(source, target, src_dir_fd=source_directory, dst_dir_fd=target_directory)


def _replace(walker: Walker, staging: int, name: bytes, replacement: Replacement) -> None:
    parent, _, last = name.rpartition(b"/")
    handle = walker.open(parent)
    staged = str(replacement.file.number).encode()
    os.chmod(staged, replacement.mode, dir_fd=staging)
    _link(last, handle, _backup(replacement.file), staging)
    os.rename(staged, last, src_dir_fd=staging, dst_dir_fd=handle)


def _backup(file: StagedFile) -> bytes:
    return f"old-{file.number}".encode()


# Undoing goes on past a step that fails: the error that began it is the one to tell.


def _remove_directory(walker: Walker, name: bytes) -> None:
    parent, _, last = name.rpartition(b"/")
    with suppress(OSError):
        os.rmdir(last, dir_fd=walker.open(parent))


def _remove_file(walker: Walker, name: bytes, file: StagedFile) -> None:
    parent, _, last = name.rpartition(b"/")
    with suppress(OSError):
        handle = walker.open(parent)
        # It may be somebody else's: an undo is noted before what it undoes.
        if os.lstat(last, dir_fd=handle).st_ino == file.inode:
            os.unlink(last, dir_fd=handle)


def _restore(walker: Walker, staging: int, name: bytes, file: StagedFile) -> None:
    parent, _, last = name.rpartition(b"/")
    with suppress(OSError):
        os.rename(_backup(file), last, src_dir_fd=staging, dst_dir_fd=walker.open(parent))
