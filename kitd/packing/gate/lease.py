"""Whether a program has a file open for writing, told by a lease.

Linux grants a read lease (fcntl(2), F_SETLEASE) only on a file that nobody has open for writing, be
it through a descriptor or a mapping. It takes the owner of the file or CAP_LEASE, and a file system
of this machine.
"""

import enum
import errno
import fcntl
import sys


class Leases(enum.Enum):
    """What leases on the files of a project tell."""

    TELL = enum.auto()
    REFUSALS_TELL = enum.auto()
    """On overlayfs a mapping whose descriptor is closed is one of another file."""
    NOTHING = enum.auto()
    """A server refuses them for reasons of its own."""


def has_writer(file: int, leases: Leases = Leases.TELL) -> bool | None:
    """Return whether any program has a file open for writing, None where nobody can tell.

    `file` is open for reading only. The process has to ignore SIGIO: while the lease is held, which
    is for some microseconds, the kernel says with it that somebody opens the file for writing, and
    makes that program wait.
    """
    written = keep_writers_out(file, leases)
    if written is False:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return written


def keep_writers_out(file: int, leases: Leases = Leases.TELL) -> bool | None:
    """Return the same and, if it is False, make every writer wait until the file is closed."""
    if sys.platform != "linux" or leases is Leases.NOTHING:
        return None
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    if leases is Leases.TELL:
        return False
    # It says nothing, so that nobody has to wait for it either.
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return None
