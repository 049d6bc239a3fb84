"""Which directory a path names: another one may stand there without the old one having changed."""

import stat
from pathlib import Path

Identity = tuple[int, int]
"""Device and inode of a directory."""


def identify(root: Path) -> Identity | None:
    """Return which directory the path names now, or None if it names none that can be seen."""
    try:
        status = root.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None
