"""The directories that kitd keeps things in."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from kitd.doctor.check import sound, wrong
from kitd.doctor.patient import Patient
from kitd.mount import remote_mount
from kitd.rpc.methods.wire import WireCheck

MIN_FREE_INODES = 10_000


async def state_directory(patient: Patient) -> AsyncIterator[WireCheck]:
    """Look at the state directory: whose it is, who may read it, what it is on."""
    for check in await asyncio.to_thread(_look, "state directory", patient.config().state_dir):
        yield check


async def cache_directory(patient: Patient) -> AsyncIterator[WireCheck]:
    """Look at the cache in the same way."""
    for check in await asyncio.to_thread(_look, "cache directory", patient.config().cache_dir):
        yield check


def _look(name: str, place: Path) -> list[WireCheck]:
    found = list(_faults(name, place))
    return found or [sound(name, str(place))]


def _faults(name: str, place: Path) -> Iterator[WireCheck]:
    status, disk = place.stat(), os.statvfs(place)
    if status.st_uid != os.geteuid():
        text = f"{place} belongs to user {status.st_uid}, kitd is {os.geteuid()}"
        yield wrong(name, text, f"chown -R {os.geteuid()} {place}")
    if stat.S_IMODE(status.st_mode) & stat.S_IWOTH:
        yield wrong(name, f"everybody may write to {place}", f"chmod o-w {place}")
    mountinfo = Path("/proc/self/mountinfo").read_bytes()
    if (mount := remote_mount(mountinfo, os.fsencode(place.resolve()))) is not None:
        text = f"{place} is on {mount}: locks and fsync are not certain there"
        yield wrong(name, text, "move it to a local disk")
    if disk.f_flag & os.ST_RDONLY:
        yield wrong(name, f"{place} is mounted read-only", f"mount -o remount,rw {place}")
    if disk.f_files and disk.f_favail < MIN_FREE_INODES:
        text = f"the disk of {place} has {disk.f_favail} inodes left"
        yield wrong(name, text, "remove files that are not needed")
