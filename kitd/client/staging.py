"""The staging directory of an unpack: whose it is, and what becomes of one that was left behind.

Who uses it holds a lock on it (flock(2)), which ends with the process however that ends. So the
next unpack into the same target can tell what was left behind, and removes it. A mark in it says
that it was made by an unpack: no kit and no copy has one that is right.
"""

import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from kitd.client.placement import WriteError, os_errors
from kitd.client.tar_reader import UnsafeNameError, printable

STAGING_PREFIX = ".kitd-unpack-"
"""What the name of each begins with; sixteen hexadecimal digits follow."""

_NAME = re.compile(re.escape(STAGING_PREFIX) + "[0-9a-f]{16}")
_BACKUP = re.compile(r"old-\d+")
_MARK = "unpack"
"""A file in each, which says its name and its inode: a directory that somebody else has given such
a name, or brought along, is not taken for one."""
_UNMARKED_S = 3600.0
"""How old one has to be that was killed before it had its mark, and so is empty."""
_ATTEMPTS = 10
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def open_staging(root: int) -> Iterator[int]:
    """Make a staging directory below the open directory `root`; remove it with what is in it.

    Raises `WriteError`, also where a file that was replaced could not be put back.
    """
    name, handle = _make(root)
    try:
        yield handle
    except BaseException as error:
        if _clear(root, name, handle):
            reason = str(error) or "it was interrupted"
            raise WriteError(
                f"{reason}; files that were replaced could not be put back: they are in {name}",
                hint="move them back and remove the directory",
            ) from error
        raise
    _clear(root, name, handle)


def sweep(root: int) -> tuple[str, ...]:
    """Remove what unpacks of this user have left behind in the open directory `root`.

    Returns the names of directories that stay: files are in there that were replaced.
    """
    kept = []
    with os_errors(b"."), os.scandir(root) as entries:
        names = sorted(entry.name for entry in entries if _NAME.fullmatch(entry.name))
    for name in names:
        # It may be gone by now, or be nothing that can be opened or locked.
        with suppress(OSError):
            handle = os.open(name, _DIRECTORY, dir_fd=root)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left, info = set(os.listdir(handle)), os.fstat(handle)
                if not _is_mine(info) or not _is_left_behind(name, handle, info, left):
                    continue
                if any(map(_BACKUP.fullmatch, left)):
                    kept.append(name)
                else:
                    _remove(root, name, handle)
            finally:
                os.close(handle)
    return tuple(kept)


def is_staging_name(name: str) -> bool:
    """Whether a staging directory may have this name, which no kit that is packed takes in."""
    return _NAME.fullmatch(name) is not None


def require_other_name(name: bytes) -> None:
    """Refuse what a kit would put where staging directories are. Raises `UnsafeNameError`."""
    if is_staging_name(name.partition(b"/")[0].decode("latin-1")):
        raise UnsafeNameError(
            f"the entry '{printable(name)}' has a name that unpacks use themselves",
            hint="whoever packs it has to remove what an unpack that was killed has left there",
        )


def mark(name: str, info: os.stat_result) -> bytes:
    """Return what the mark of a staging directory says.

    It does not say the device, whose number is another after each start.
    """
    return f"{name} {info.st_ino}\n".encode()


def _is_left_behind(name: str, handle: int, info: os.stat_result, left: set[str]) -> bool:
    """Whether a directory that nobody uses was made by an unpack. Raises OSError."""
    found = b""
    if _MARK in left:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(_MARK, flags, dir_fd=handle), "rb") as file:
            found = file.read(len(mark(name, info)) + 1)
    if left <= {_MARK} and not found:
        return info.st_mtime + _UNMARKED_S < time.time()
    return found == mark(name, info)


def _make(root: int) -> tuple[str, int]:
    for _ in range(_ATTEMPTS):
        name = STAGING_PREFIX + secrets.token_hex(8)
        with os_errors(name.encode()):
            os.mkdir(name, 0o700, dir_fd=root)
            try:
                handle = os.open(name, _DIRECTORY, dir_fd=root)
            except FileNotFoundError:
                # Another unpack has taken it for one that was left behind.
                continue
        try:
            with os_errors(name.encode()):
                info = os.fstat(handle)
                _require_mine(name, info, os.listdir(handle))
                if _lock(handle) and _is_there(root, name, info):
                    _put_mark(name, handle, info)
                    return name, handle
        except BaseException:
            os.close(handle)
            with suppress(OSError):
                os.rmdir(name, dir_fd=root)
            raise
        os.close(handle)
    raise WriteError(
        "other unpacks have removed every directory that was made", hint="unpack again"
    )


def _put_mark(name: str, handle: int, info: os.stat_result) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    file = os.open(_MARK, flags, 0o600, dir_fd=handle)
    try:
        os.write(file, mark(name, info))
    except BaseException:
        # The disk may be full.
        os.unlink(_MARK, dir_fd=handle)
        raise
    finally:
        os.close(file)


def _require_mine(name: str, info: os.stat_result, found: Sequence[str]) -> None:
    """Raise `WriteError` for a directory that others can write to, or have put there."""
    if not _is_mine(info) or found:
        raise WriteError(
            f"'{name}' can be written to by others, or is not what was made",
            hint="unpack to a directory of your own, where owners and modes are kept",
        )


def _is_mine(info: os.stat_result) -> bool:
    return info.st_uid == os.geteuid() and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _lock(handle: int) -> bool:
    """Return whether nobody else has the lock."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # Where there are no locks nothing is taken for left behind either.
        return True
    return True


def _is_there(root: int, name: str, info: os.stat_result) -> bool:
    try:
        found = os.lstat(name, dir_fd=root)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (info.st_dev, info.st_ino)


def _clear(root: int, name: str, handle: int) -> bool:
    """Remove a staging directory and close it; return whether backups are left in it."""
    try:
        return _remove(root, name, handle)
    finally:
        os.close(handle)


def _remove(root: int, name: str, handle: int) -> bool:
    """Remove what nobody misses; return whether there are backups, for which the rest stays."""
    # Once it is removed, not every file system lists it any more.
    found = os.listdir(handle)
    mine = [left for left in found if left.isdigit()]
    has_backups = any(map(_BACKUP.fullmatch, found))
    if not has_backups:
        # A backup that could not be put back is the last copy of somebody's file.
        mine.append(_MARK)
    for left in mine:
        with suppress(OSError):
            os.unlink(left, dir_fd=handle)
    with suppress(OSError):
        os.rmdir(name, dir_fd=root)
    return has_backups
