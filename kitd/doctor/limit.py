"""The kernel's limits that kitd comes up against."""

import asyncio
import os
import resource
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from kitd.doctor.check import sound, wrong
from kitd.doctor.patient import Patient
from kitd.rpc.methods.wire import WireCheck

MIN_OPEN_FILES = 1024
"""A connection and a transfer take a few each."""
GENEROUS_OPEN_FILES = 65_536
GENEROUS_WATCHES = 524_288

_WATCH_LIMIT = Path("/proc/sys/fs/inotify/max_user_watches")
_DESCRIPTORS = Path("/proc/self/fd")
_DESCRIPTOR_FACTS = Path("/proc/self/fdinfo")


async def watches(_patient: Patient) -> AsyncIterator[WireCheck]:
    """Look how many directories the kernel lets kitd watch, of those that it does."""
    try:
        limit = int(await asyncio.to_thread(_WATCH_LIMIT.read_text))
    except OSError:
        yield sound("watches", "this system has no inotify")
        return
    used = await asyncio.to_thread(_watches_in_use)
    detail = f"{used} of {limit} directories are watched"
    if used * 10 >= limit * 9:
        setting = f"fs.inotify.max_user_watches={max(2 * limit, GENEROUS_WATCHES)}"
        fix = f"sysctl -w {setting}; to keep it: echo {setting} > /etc/sysctl.d/60-kitd.conf"
        yield wrong("watches", f"{detail}; others are looked at now and then", fix)
    else:
        yield sound("watches", detail)


def _watches_in_use() -> int:
    """Return how many watches this process has: a line of fdinfo for each (proc(5))."""
    used = 0
    for entry in _DESCRIPTOR_FACTS.iterdir():
        # A descriptor may be closed while this looks.
        with suppress(OSError):
            used += entry.read_bytes().count(b"inotify wd:")
    return used


async def open_files(_patient: Patient) -> AsyncIterator[WireCheck]:
    """Look how many files kitd may have open, of those that it has."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(await asyncio.to_thread(os.listdir, _DESCRIPTORS))
    detail = f"{used} of {limit}"
    if limit < MIN_OPEN_FILES or used * 10 >= limit * 8:
        fix = f"LimitNOFILE={GENEROUS_OPEN_FILES} in the unit, or ulimit -n before kitd starts"
        yield wrong("open files", detail, fix)
    else:
        yield sound("open files", detail)
