"""Whether a file is locked, told without trying the lock: from /proc/locks (proc(5)).

Locks of processes that this one cannot see, such as those of another container, are not there.
"""

import os
import re
from pathlib import Path

from kitd.packing.scan import FILE_FLAGS

_LOCK = re.compile(
    rb"^\d+: (?:FLOCK|POSIX|OFDLCK) +\S+ +WRITE +-?\d+ ([0-9a-f]+):([0-9a-f]+):(\d+) ", re.MULTILINE
)
_MOUNT_ID = re.compile(rb"^mnt_id:\s+(\d+)$", re.MULTILINE)


def locked_files(locks: bytes) -> frozenset[tuple[int, int]]:
    """Return the device and inode numbers of the files that are locked for writing."""
    return frozenset(
        (os.makedev(int(major, 16), int(minor, 16)), int(inode))
        for major, minor, inode in _LOCK.findall(locks)
    )


def is_held(path: str) -> bool:
    """Whether some process holds a lock for writing on a file. Raises `OSError`."""
    file = os.open(path, FILE_FLAGS)
    try:
        held = locked_files(Path("/proc/locks").read_bytes())
        status = os.fstat(file)
        return not held.isdisjoint(
            {(status.st_dev, status.st_ino), (_mounted_device(file), status.st_ino)}
        )
    finally:
        os.close(file)


def _mounted_device(file: int) -> int:
    """Return the device that the kernel's lists know a file system by.

    Where each subvolume has a device of its own, as on btrfs, `stat` tells another one.
    """
    info = Path(f"/proc/self/fdinfo/{file}").read_bytes()
    mount = _MOUNT_ID.search(info)
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        number, _, device, *_ = line.split(b" ", 3)
        if mount is not None and number == mount.group(1):
            major, _, minor = device.partition(b":")
            return os.makedev(int(major), int(minor))
    return os.fstat(file).st_dev
