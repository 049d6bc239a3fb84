"""A file that grows at its end, past the page cache where the disk allows that.

Buffered writes of gigabytes are throttled by the kernel and wait once more in `fdatasync`. What is
in the file is a prefix of what was appended, at any instant.
"""

import errno
import fcntl
import os
from pathlib import Path

from kitd.store.blob_store import os_errors

BLOCK_BYTES = 4096
"""What file systems want offset and length of a direct write to be a multiple of."""
_FICLONE = 0x40049409
"""`_IOW(0x94, 9, int)`: see ioctl_ficlone(2)."""


class DirectFile:
    """An open file; `size` is where it ends. Appended to by one thread at a time.

    A file that is there is cut to `at_most` bytes and to whole blocks, because a direct write can
    only begin at one. Raises `StoreError` and `NoSpaceError`.
    """

    def __init__(self, path: Path, *, at_most: int = 0) -> None:
        self._path = path
        with os_errors("open", path):
            self.handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                found = min(os.fstat(self.handle).st_size, at_most)
                self.size = found // BLOCK_BYTES * BLOCK_BYTES
                os.ftruncate(self.handle, self.size)
                os.lseek(self.handle, self.size, os.SEEK_SET)
            except OSError:
                os.close(self.handle)
                raise
        self._is_direct = self._turn_direct()

    def append(self, data: memoryview) -> None:
        """Write at the end. The memory has to begin on a page for the write to be direct."""
        self.size += len(data)
        with os_errors("write", self._path):
            while data:
                if self._is_direct and len(data) < BLOCK_BYTES:
                    self._turn_buffered()
                data = data[self._write_some(data) :]

    def clone(self, source: int) -> bool:
        """Share the blocks of another file, as it is now; False where the file systems cannot."""
        try:
            fcntl.ioctl(self.handle, _FICLONE, source)
        except OSError:
            return False
        self.size = os.fstat(self.handle).st_size
        return True

    def close(self) -> None:
        """Close it. Safe to call twice."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1

    def _write_some(self, data: memoryview) -> int:
        if self._is_direct:
            try:
                return os.write(self.handle, data[: len(data) // BLOCK_BYTES * BLOCK_BYTES])
            except OSError as error:
                # Larger blocks, or a short write before this one.
                if error.errno != errno.EINVAL:
                    raise
                self._turn_buffered()
        return os.write(self.handle, data)

    def _turn_direct(self) -> bool:
        # Not by the flags of `open`: where the file system refuses, that leaves an empty file.
        try:
            fcntl.fcntl(self.handle, fcntl.F_SETFL, os.O_DIRECT)
        except OSError:
            return False
        return True

    def _turn_buffered(self) -> None:
        fcntl.fcntl(self.handle, fcntl.F_SETFL, 0)
        self._is_direct = False
