"""Whether the disks have room to work, and a reserve for the moment when one has not.

The ledger has to be able to say how an attempt ended, above all where the disk is full. So some
room is kept in a file that is given back to the disk then, and made again when there is room.
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import structlog

from kitd.store.blob_store import sync_directory

log = structlog.get_logger(__name__)

RESERVE = "reserve"
"""The file's name, in the state directory."""
RESERVE_BYTES = 16 << 20
AMPLE_BYTES = 1 << 30
"""On a disk that has less to spare, nothing is kept back."""
NEEDED_BYTES = 4 << 20
"""What has to be free, for work to begin again."""
PROBE_BYTES = 1 << 16


class DiskGuard:
    """Watches over the disks of the given directories; the first is the ledger's.

    Implements `kitd.queue.executor.Room`. Nobody waits for its threads when they are cancelled: a
    disk that does not answer holds them for ever, and they leave nothing but a file with a name.
    """

    def __init__(
        self,
        state_dir: Path,
        others: Sequence[Path] = (),
        *,
        reserve_bytes: int = RESERVE_BYTES,
        ample_bytes: int = AMPLE_BYTES,
    ) -> None:
        self._directories = (state_dir, *others)
        self._reserve = state_dir / RESERVE
        self._reserve_bytes = reserve_bytes
        self._ample_bytes = ample_bytes
        self._owed = False

    async def prepare(self) -> None:
        """Keep a reserve back if the disk has room to spare; give it up if there is none at all.

        Call it before anything is opened: that takes a few bytes even where nothing is new.
        """
        await asyncio.to_thread(self._prepare)

    async def make_way(self) -> None:
        """Give the reserve back to the disk."""
        await asyncio.to_thread(self._make_way)

    async def is_back(self) -> bool:
        """Whether every disk has room and takes a small file durably."""
        return await asyncio.to_thread(self._is_back)

    def _prepare(self) -> None:
        try:
            free_bytes = _free_bytes(self._reserve.parent)
            if free_bytes < NEEDED_BYTES:
                self._make_way()
            elif free_bytes >= self._ample_bytes and not self._reserve.exists():
                self._keep_back()
        except OSError as error:
            log.warning("disk.no_reserve", error=str(error))

    def _make_way(self) -> None:
        try:
            self._reserve.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("disk.reserve_kept", error=str(error))
            return
        self._owed = True

    def _is_back(self) -> bool:
        try:
            for directory in self._directories:
                if _free_bytes(directory) < NEEDED_BYTES + self._owed_bytes(directory):
                    return False
                _try_to_write(directory)
            if self._owed:
                self._keep_back()
                self._owed = False
            else:
                # At the start there may have been too little for one.
                self._prepare()
        except OSError as error:
            log.debug("disk.no_room", error=str(error))
            return False
        return True

    def _owed_bytes(self, directory: Path) -> int:
        """Return what the reserve gave back to a disk: that is no room that came from elsewhere."""
        is_same = directory.stat().st_dev == self._reserve.parent.stat().st_dev
        return self._reserve_bytes if self._owed and is_same else 0

    def _keep_back(self) -> None:
        temporary = self._reserve.with_suffix(".new")
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(handle, 0, self._reserve_bytes)
                os.fsync(handle)
            finally:
                os.close(handle)
            temporary.rename(self._reserve)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(self._reserve.parent)


def _free_bytes(directory: Path) -> int:
    disk = os.statvfs(directory)
    # File systems that cannot tell say that they have no blocks at all.
    return disk.f_bavail * disk.f_frsize if disk.f_blocks else AMPLE_BYTES


def _try_to_write(directory: Path) -> None:
    path = directory / "probe"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, bytes(PROBE_BYTES))
        os.fsync(handle)
    finally:
        os.close(handle)
        path.unlink()
