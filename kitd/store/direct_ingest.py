"""Blobs that are built here, on their way into the store at the speed of their hash.

Written past the page cache, because buffered writes of gigabytes are throttled by the kernel and
wait once more in `fdatasync`. Hashing and writing have threads of their own. The order of steps on
the disk is the one of `kitd.store.blob_store`. There is no resuming: see `Ingest` for that.
"""

import errno
import fcntl
import hashlib
import os
from contextlib import suppress
from types import TracebackType
from typing import Self

from kitd.oci.digest import from_hash
from kitd.store.blob_store import BlobStore, Committed, os_errors
from kitd.store.buffer_ring import BufferRing

_BLOCK_BYTES = 4096
"""What file systems want offset and length of a direct write to be a multiple of."""


class DirectIngest:
    """One blob on its way in, filled through `ring`, by one thread at a time.

    Use as a context manager; leaving without `commit` discards it. The ring raises `StoreError` and
    `NoSpaceError`.
    """

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._path = store.new_temporary()
        self._hasher = hashlib.sha256()
        self._size = 0
        self.ring = BufferRing(self._hasher.update, self._append)
        with os_errors("open", self._path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._handle = os.open(self._path, flags, 0o600)
        self._is_direct = self._turn_direct()

    def commit(self) -> Committed:
        """Publish what was written under its digest, durably. Raises `StoreError`."""
        self.ring.drain()
        return self._store.publish(self._handle, self._path, from_hash(self._hasher), self._size)

    def discard(self) -> None:
        """Close the file and remove what was not committed. Safe to call twice."""
        # The threads go first: one that still writes must not meet a reused descriptor.
        self.ring.close()
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        # After a commit that renamed there is nothing left under this name; and what cannot be
        # removed says nothing about what was committed: the next start sweeps it.
        with suppress(OSError):
            self._path.unlink()

    def _append(self, data: memoryview) -> None:
        self._size += len(data)
        with os_errors("write", self._path):
            while data:
                if self._is_direct and len(data) < _BLOCK_BYTES:
                    self._turn_buffered()
                data = data[self._write_some(data) :]

    def _write_some(self, data: memoryview) -> int:
        if self._is_direct:
            try:
                return os.write(self._handle, data[: len(data) // _BLOCK_BYTES * _BLOCK_BYTES])
            except OSError as error:
                # Larger blocks, or a short write before this one.
                if error.errno != errno.EINVAL:
                    raise
                self._turn_buffered()
        return os.write(self._handle, data)

    def _turn_direct(self) -> bool:
        # Not by the flags of `open`: where the file system refuses, that leaves an empty file.
        try:
            fcntl.fcntl(self._handle, fcntl.F_SETFL, os.O_DIRECT)
        except OSError:
            return False
        return True

    def _turn_buffered(self) -> None:
        fcntl.fcntl(self._handle, fcntl.F_SETFL, 0)
        self._is_direct = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()
