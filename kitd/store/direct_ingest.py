"""Blobs that are built here, on their way into the store at the speed of their hash.

Hashing and writing have threads of their own. A file on the same disk need not be written at all
where the file system lets two files share their blocks. The order of steps on the disk is the one
of `kitd.store.blob_store`. There is no resuming: see `Ingest` and `kitd.store.partial` for that.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from kitd.oci.digest import from_hash
from kitd.store.blob_store import BlobStore, Committed, os_errors
from kitd.store.buffer_ring import BufferRing
from kitd.store.direct_file import DirectFile

_READ_BYTES = 1 << 20


class DirectIngest:
    """One blob on its way in, filled through `ring`, by one thread at a time.

    Use as a context manager; leaving without `commit` discards it. The ring raises `StoreError` and
    `NoSpaceError`.
    """

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._path = store.new_temporary()
        self._hasher = hashlib.sha256()
        self._file = DirectFile(self._path)
        self.ring = BufferRing(self._hasher.update, self._file.append)

    def clone(self, source: int, advanced: Callable[[int], None]) -> bool:
        """Make a file's content that of the blob, as it is now and without a copy, and hash it.

        False, and nothing has happened, where the file systems cannot. Nothing else goes in after
        that. `advanced` is told the bytes of each step. Raises `StoreError`.
        """
        if not self._file.clone(source):
            return False
        # Of the clone, which does not change any more.
        buffer = bytearray(_READ_BYTES)
        with os_errors("read", self._path), self._path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                self._hasher.update(memoryview(buffer)[:count])
                advanced(count)
        return True

    def commit(self) -> Committed:
        """Publish what was written under its digest, durably. Raises `StoreError`."""
        self.ring.drain()
        digest = from_hash(self._hasher)
        return self._store.publish(self._file.handle, self._path, digest, self._file.size)

    def discard(self) -> None:
        """Close the file and remove what was not committed. Safe to call twice."""
        # The threads go first: one that still writes must not meet a reused descriptor.
        self.ring.close()
        self._file.close()
        # After a commit that renamed there is nothing left under this name; and what cannot be
        # removed says nothing about what was committed: the next start sweeps it.
        with suppress(OSError):
            self._path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()
