"""On whose behalf a directory is read, and what he could read himself. Pure.

kitd's own user may read what its callers may not. For a caller that it has no reason to trust it
reads only what the kernel would let him read, as told by the owner, the group and the mode of each
file (path_resolution(7)).
"""

import os
import stat

import msgspec


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """A user as he was when he asked: what he may do later in other groups is not known."""

    uid: int
    gids: tuple[int, ...]
    root: tuple[int, int] | None = None
    """Device and inode of the directory that he has shown to be able to open, if he showed one."""

    def may_read(self, status: os.stat_result) -> bool:
        """Whether the mode lets him read a file, or list and search a directory."""
        if status.st_uid == self.uid:
            shift = 6
        elif status.st_gid in self.gids:
            shift = 3
        else:
            shift = 0
        wanted = 0o5 if stat.S_ISDIR(status.st_mode) else 0o4
        return (status.st_mode >> shift) & wanted == wanted

    def may_begin_in(self, status: os.stat_result) -> bool:
        """Whether a directory is the one that he has shown, or his own."""
        return (status.st_dev, status.st_ino) == self.root or status.st_uid == self.uid
