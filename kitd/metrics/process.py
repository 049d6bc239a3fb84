"""What the kernel says of this process, as far as it says so."""

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

_SELF = Path("/proc/self")
_STARTED = 19
"""The field `starttime`, counted from the one after the name."""


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """Memory and descriptors; None where the platform does not tell."""

    cpu_s: float
    resident_bytes: int | None
    open_fds: int | None
    max_fds: int


def read_process() -> ProcessReading:
    """Return how the process is now. The files are the kernel's, and no disk is waited for."""
    try:
        pages = int((_SELF / "statm").read_text().split()[1])
        resident_bytes: int | None = pages * os.sysconf("SC_PAGE_SIZE")
        # One of them is the directory's own.
        open_fds: int | None = len(os.listdir(_SELF / "fd")) - 1
    except (OSError, ValueError, IndexError):
        resident_bytes = open_fds = None
    return ProcessReading(
        cpu_s=time.process_time(),
        resident_bytes=resident_bytes,
        open_fds=open_fds,
        max_fds=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


def process_age_s() -> float:
    """Return for how long this process has run (proc(5), stat); 0 where nothing tells."""
    try:
        # The name before may have blanks and brackets.
        ticks = int((_SELF / "stat").read_text().rpartition(")")[2].split()[_STARTED])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0
