"""Hashes files again, out of everybody's way: `python -I -m kitd.store.rehash`.

A process of its own, because only a process can be given what nobody else wants of the processor
and the disk, and be killed in the middle of a read. It is asked a JSON line at a time on stdin and
answers on stdout; the end of stdin ends it. What it read is not kept in the page cache.

    {"algorithm": "sha256", "path": "/…"}
    {"read": 67108864}
    {"read": 12345, "found": "sha256:…", "inode": 4711}    or
    {"read": 0, "found": null, "why": "Input/output error", "inode": null}
"""

import contextlib
import ctypes
import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterator

BLOCK_BYTES = 1 << 20
TELL_EVERY_BYTES = 64 << 20
IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "ppc64le": 273, "s390x": 282}
"""The number of the system call, which the C library does not wrap (ioprio_set(2))."""
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_IDLE = 3 << 13


def step_back() -> None:
    """Take only what nobody else wants, as far as the system allows."""
    with contextlib.suppress(OSError):
        os.nice(19)
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    number = IOPRIO_SET.get(platform.machine())
    if number is not None:
        # Whether it worked is no matter: it is a courtesy.
        ctypes.CDLL(None).syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_IDLE)


def rehash(algorithm: str, path: str) -> Iterator[dict[str, object]]:
    """Yield how much was read since the last time, and in the end what was found."""
    hasher = hashlib.new(algorithm)
    told = offset = 0
    inode: int | None = None
    buffer = bytearray(BLOCK_BYTES)
    view = memoryview(buffer)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            inode = os.fstat(handle).st_ino
            while count := os.readv(handle, [buffer]):
                hasher.update(view[:count])
                os.posix_fadvise(handle, offset, count, os.POSIX_FADV_DONTNEED)
                offset += count
                if offset - told >= TELL_EVERY_BYTES:
                    yield {"read": offset - told}
                    told = offset
        finally:
            os.close(handle)
    except FileNotFoundError:
        yield {"read": 0, "found": None, "why": None}
    except OSError as error:
        why = error.strerror or str(error)
        yield {"read": offset - told, "found": None, "why": why, "inode": inode}
    else:
        found = f"{algorithm}:{hasher.hexdigest()}"
        yield {"read": offset - told, "found": found, "inode": inode}


def main() -> None:
    """Answer until stdin ends."""
    step_back()
    for line in sys.stdin:
        asked = json.loads(line)
        for answer in rehash(asked["algorithm"], asked["path"]):
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
