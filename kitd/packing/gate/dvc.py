"""The gate for trees that DVC is at work on.

DVC locks `.dvc/tmp/lock` with flock(2) and leaves the file there when it is done; with its setting
`core.hardlink_lock` the lock is a second link of that file, and the file goes with it. While a
stage runs the lock is free, and what the stage writes is in `.dvc/tmp/rwlock`, a JSON object, with
the number of the process. None of the locks is ever taken here, which would make DVC fail.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from kitd.errors import printable
from kitd.packing.gate import file_lock
from kitd.packing.gate.tool import Sign, find_upwards, shown

MAX_RWLOCK_BYTES = 1 << 20


class _Owner(msgspec.Struct, frozen=True):
    pid: int
    cmd: str


class _ReadWriteLock(msgspec.Struct, frozen=True):
    write: dict[str, _Owner] = {}


_DECODER = msgspec.json.Decoder(_ReadWriteLock)


def signs(root: str) -> Iterator[Sign]:
    """Yield what says that DVC is at work on the repository that a project is, or is in."""
    directory = find_upwards(root, ".dvc")
    if directory is None:
        return
    lock = os.path.join(directory, "tmp", "lock")
    with contextlib.suppress(OSError):
        status = os.stat(lock, follow_symlinks=False)
        if status.st_nlink > 1:
            # Its mtime is when the lock expires.
            yield Sign(shown(lock, root), "DVC is at work", status.st_ctime_ns)
        elif file_lock.is_held(lock):
            yield Sign(shown(lock, root), "DVC is at work")
    yield from _writers(os.path.join(directory, "tmp", "rwlock"), root)


def _writers(path: str, root: str) -> Iterator[Sign]:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_RWLOCK_BYTES)
        owners = _DECODER.decode(content).write
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    for output, owner in owners.items():
        if _is_running(owner.pid):
            detail = f"DVC (process {owner.pid}) writes {printable(output)[:200]}"
            yield Sign(shown(path, root), detail)
            return


def _is_running(pid: int) -> bool:
    """Whether the process is there and is DVC's; the number may be another's by now."""
    try:
        return b"dvc" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
