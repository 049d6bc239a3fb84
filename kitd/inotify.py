"""inotify(7), the kernel's notifications of changes in directories: four calls and their answers.

The standard library has no binding. Who is told what, and when it is read, is for `kitd.watch`; a
packing process only adds watches, to the instance it inherited.
"""

import ctypes
import errno
import functools
import os
import struct
import sys
from collections.abc import Iterator
from typing import NamedTuple

MODIFY = 0x0000_0002
ATTRIB = 0x0000_0004
CLOSE_WRITE = 0x0000_0008
MOVED_FROM = 0x0000_0040
MOVED_TO = 0x0000_0080
CREATE = 0x0000_0100
DELETE = 0x0000_0200
DELETE_SELF = 0x0000_0400
MOVE_SELF = 0x0000_0800
Q_OVERFLOW = 0x0000_4000
"""Events were dropped because nobody read the queue; its `wd` is -1."""
IGNORED = 0x0000_8000
"""The watch is gone: removed, or with its directory. Nothing more comes of it."""
ONLYDIR = 0x0100_0000
EXCL_UNLINK = 0x0400_0000

MASK = (
    MODIFY
    | ATTRIB
    | CLOSE_WRITE
    | MOVED_FROM
    | MOVED_TO
    | CREATE
    | DELETE
    | DELETE_SELF
    | MOVE_SELF
    | ONLYDIR
    # A file that was removed while a program has it open is no part of the tree any more: without
    # this, a scratch file of that kind keeps a project from ever being quiet.
    | EXCL_UNLINK
)
"""What a directory is watched for: whatever changes what a scan would see of it. Adding a watch
again with the same mask changes nothing and gives the same descriptor."""

_HEADER = struct.Struct("iIII")


class Event(NamedTuple):
    """Something happened to the directory of a watch, or to the entry `name` in it."""

    wd: int
    mask: int
    name: bytes


def open_inotify() -> int:
    """Return the descriptor of a new instance that never blocks and that no child inherits.

    Raises `OSError`: EMFILE at `fs.inotify.max_user_instances` or the limit of open files, ENOSYS
    on systems without inotify.
    """
    return _checked(_libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))


def add_watch(inotify: int, directory: int) -> int:
    """Watch an open directory, whatever stands at its path by now, and return the watch.

    Raises `OSError`: ENOSPC at `fs.inotify.max_user_watches`, ENOENT where there is no /proc.
    """
    # The link in /proc leads to the open directory itself: not following it would watch the link.
    return _checked(_libc().inotify_add_watch(inotify, b"/proc/self/fd/%d" % directory, MASK))


def remove_watch(inotify: int, wd: int) -> None:
    """End a watch; `IGNORED` follows. One that ended by itself is none. Raises `OSError`."""
    try:
        _checked(_libc().inotify_rm_watch(inotify, wd))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def ask(inotify: int) -> int:
    """Have the kernel put `IGNORED` into the queue for the watch that this returns.

    No file is touched for it. Raises `OSError` as `add_watch` does.
    """
    # A directory that is no project's: its watch is ours to remove.
    wd = _checked(_libc().inotify_add_watch(inotify, b"/proc/self/fdinfo", DELETE_SELF))
    remove_watch(inotify, wd)
    return wd


def parse_events(data: bytes) -> Iterator[Event]:
    """Yield what one read from an instance gave; a last event that is cut off is left out."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        wd, mask, _cookie, length = _HEADER.unpack_from(data, offset)
        offset += _HEADER.size
        if offset + length > len(data):
            return
        # Padded with NULs to where the next event may begin.
        yield Event(wd, mask, data[offset : offset + length].rstrip(b"\0"))
        offset += length


@functools.cache
def _libc() -> ctypes.CDLL:
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    # Without argument types: integers and bytes are passed as int and char *, which is what these
    # functions take, and checking them would cost as much as a fifth of adding a watch.
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
