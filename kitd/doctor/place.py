"""The directories that kitd keeps things in."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Collection, Iterator
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
    owner = place.stat().st_uid
    # Volumes are often root's, or of the user of an image, and let kitd's group in.
    detail = str(place) if owner == os.geteuid() else f"{place}, which belongs to user {owner}"
    return found or [sound(name, detail)]


def strangers(mode: int, group: int, groups: Collection[int]) -> str | None:
    """Return who may write beside a directory's owner and kitd's groups, as chmod names them."""
    if mode & stat.S_IWOTH:
        return "o"
    return "g" if mode & stat.S_IWGRP and group not in groups else None


def _faults(name: str, place: Path) -> Iterator[WireCheck]:
    status, disk = place.stat(), os.statvfs(place)
    is_read_only = bool(disk.f_flag & os.ST_RDONLY)
    if not is_read_only and not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
        text = f"kitd, user {os.geteuid()}, may not write to {place}, user {status.st_uid}'s"
        yield wrong(name, text, f"chown -R {os.geteuid()} {place}")
    # Root's group is let in by the image, and root needs no leave.
    if who := strangers(status.st_mode, status.st_gid, {0, os.getegid(), *os.getgroups()}):
        them = "everybody" if who == "o" else f"group {status.st_gid}, which is none of kitd's,"
        fix = f"chmod {who}-w {place}"
        if status.st_uid != os.geteuid():
            fix += f", by user {status.st_uid}; or have kitd make a directory of its own below it"
        yield wrong(name, f"{them} may write to {place}, and put another ledger there", fix)
    mountinfo = Path("/proc/self/mountinfo").read_bytes()
    if (mount := remote_mount(mountinfo, os.fsencode(place.resolve()))) is not None:
        text = f"{place} is on {mount}: locks and fsync are not certain there"
        yield wrong(name, text, "move it to a local disk")
    if is_read_only:
        yield wrong(name, f"{place} is mounted read-only", f"mount -o remount,rw {place}")
    if disk.f_files and disk.f_favail < MIN_FREE_INODES:
        text = f"the disk of {place} has {disk.f_favail} inodes left"
        yield wrong(name, text, "remove files that are not needed")
