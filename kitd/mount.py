"""Which file systems a directory spans, from the kernel's list of mounts. Pure.

A network file system does not tell what other machines change, and a file system that a program or
a hypervisor serves does not tell what happens on its other side.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from kitd.errors import printable

REMOTE_TYPES = frozenset(
    {
        b"9p",
        b"acfs",
        b"afs",
        b"beegfs",
        b"ceph",
        b"cifs",
        b"coda",
        b"drvfs",
        b"fhgfs",
        b"fuse",
        b"gfs2",
        b"glusterfs",
        b"gpfs",
        b"lustre",
        b"ncpfs",
        b"nfs",
        b"nfs4",
        b"ocfs2",
        b"orangefs",
        b"prl_fs",
        b"pvfs2",
        b"smb3",
        b"smbfs",
        b"vboxsf",
        b"virtiofs",
        b"vmhgfs",
    }
)
LOCAL_FUSE_TYPES = frozenset({b"fuse.fuse-overlayfs"})
"""Served by a program, but all of it changes through the mount only. (Disks have type fuseblk.)"""

_ESCAPE = re.compile(rb"\\([0-7]{3})")


class _Mount(NamedTuple):
    mount: int
    parent: int
    point: bytes
    """With a slash at the end, so that what begins with it is below it."""
    fs_type: bytes


def remote_mount(mountinfo: bytes, root: bytes) -> str | None:
    """Return the mount that keeps quiet about changes below an absolute path without links.

    `mountinfo` is the content of /proc/self/mountinfo (proc(5)). The answer reads `TYPE on PATH`:
    the file system that `root` itself is on, or else the first that is mounted below it; None if
    all of them are local. Lines that cannot be understood are passed over.
    """
    for mount in _spanned(mountinfo, root):
        if _is_remote(mount.fs_type):
            path = mount.point.rstrip(b"/") or b"/"
            return f"{printable(mount.fs_type)} on {printable(path)}"
    return None


def is_overlaid(mountinfo: bytes, root: bytes) -> bool:
    """Whether any file below an absolute path without links is on overlayfs."""
    return any(mount.fs_type == b"overlay" for mount in _spanned(mountinfo, root))


def _spanned(mountinfo: bytes, root: bytes) -> Iterator[_Mount]:
    """Yield the mount that `root` is on, and those below it by path."""
    directory = _as_directory(root)
    own: _Mount | None = None
    below: list[_Mount] = []
    for mount in _visible(_parse(mountinfo)):
        if directory.startswith(mount.point):
            own = mount if own is None or len(mount.point) >= len(own.point) else own
        elif mount.point.startswith(directory):
            below.append(mount)
    if own is not None:
        yield own
    yield from sorted(below, key=lambda mount: mount.point)


def _is_remote(fs_type: bytes) -> bool:
    if fs_type.startswith(b"fuse."):
        return fs_type not in LOCAL_FUSE_TYPES
    return fs_type in REMOTE_TYPES


def _parse(mountinfo: bytes) -> Iterator[_Mount]:
    for line in mountinfo.splitlines():
        front, separator, back = line.partition(b" - ")
        fields, fs_type = front.split(b" "), back.split(b" ", 1)[0]
        if not separator or len(fields) < 6 or not fs_type:
            continue
        if fields[0].isdigit() and fields[1].isdigit():
            point = _ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), fields[4])
            yield _Mount(int(fields[0]), int(fields[1]), _as_directory(point), fs_type)


def _visible(mounts: Iterable[_Mount]) -> Iterator[_Mount]:
    """Yield the mounts that no other mount covers."""
    by_number = {mount.mount: mount for mount in mounts}
    children: Mapping[int | None, list[_Mount]] = defaultdict(list)
    for mount in by_number.values():
        # What the first mount is mounted on is not in the list, or is itself.
        is_child = mount.parent in by_number and mount.parent != mount.mount
        children[mount.parent if is_child else None].append(mount)
    left = _uncovered(children[None])
    while left:
        mount = left.pop()
        upper = _uncovered(children[mount.mount])
        if all(child.point != mount.point for child in upper):
            yield mount
        left.extend(upper)


def _uncovered(siblings: Sequence[_Mount]) -> list[_Mount]:
    """Return the mounts on one file system without those below another of them.

    A mount that came after the other would be mounted on that one instead.
    """
    uncovered: list[_Mount] = []
    for mount in sorted(siblings, key=lambda sibling: sibling.point):
        if not uncovered or not mount.point.startswith(uncovered[-1].point):
            uncovered.append(mount)
        elif mount.point == uncovered[-1].point:
            uncovered[-1] = mount
    return uncovered


def _as_directory(path: bytes) -> bytes:
    return path.rstrip(b"/") + b"/"
