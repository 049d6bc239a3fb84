"""Making sure that what is stored through a mapping from now on shows in a file's times.

The kernel stamps a file when a page of a mapping is written to for the first time since it was
written back. A page that is dirty already takes further stores without a sign; written back, it
shows the next one. (Not on tmpfs, which writes nothing back.)
"""

import contextlib
import ctypes
import os
import sys


def write_back(file: int) -> None:
    """Write an open file back, also one that is open for reading only. Costs little if it is clean.

    What cannot be written back is for its writer to hear of.
    """
    with contextlib.suppress(OSError):
        os.fdatasync(file)


def write_back_all(directory: int) -> None:
    """Write back the whole file system of an open directory: for many files that is much quicker.

    syncfs(2) has no binding in the standard library.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).syncfs(directory)
