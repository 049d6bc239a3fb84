"""The gate for files that a program has open for writing.

Linux grants a read lease (fcntl(2), F_SETLEASE) only on a file that nobody has open for writing, be
it through a descriptor or a mapping. It takes the owner of the file or CAP_LEASE, and a file system
of this machine. A program that keeps a file open but does not write to it any more, such as a
service its log, holds only until the file is old.
"""

import errno
import fcntl
import sys

from kitd.packing.gate.subject import Gate, Moment, Subject
from kitd.packing.scan import Entry


def has_writer(file: int) -> bool | None:
    """Return whether any program has a file open for writing, None where nobody can tell.

    `file` is open for reading only. The process has to ignore SIGIO: while the lease is held, which
    is for some microseconds, the kernel says with it that somebody opens the file for writing, and
    makes that program wait.
    """
    written = keep_writers_out(file)
    if written is False:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return written


def keep_writers_out(file: int) -> bool | None:
    """Return the same and, if it is False, make every writer wait until the file is closed."""
    if sys.platform != "linux":
        return None
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    return False


def _concerns(entry: Entry, moment: Moment) -> bool:
    return moment.is_young(entry)


def _finding(subject: Subject) -> str | None:
    return "a program has it open for writing" if subject.written else None


GATE = Gate("writer", _concerns, _finding, asks_for_writers=True)
