"""Blobs on their way in from elsewhere, which go on where an earlier attempt ended.

What has arrived of a blob has the name of its digest in `downloads/`, and stays there when the
transfer fails, is cancelled or the process dies: the next attempt hashes it again and asks for the
rest. What turns out to be something else is never gone on with; its beginning is kept in quarantine
for a person to look at, because it may be the web page of a proxy that says why.

One attempt at a time works with a digest's file: see `kitd.store.flight`.
"""

import hashlib
from contextlib import suppress
from types import TracebackType
from typing import NoReturn, Self

from kitd.content.store import CHUNK_BYTES, MismatchError
from kitd.errors import KitdError
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import algorithm_of, from_hash
from kitd.store.blob_store import BlobStore, Committed, StoreError, os_errors
from kitd.store.buffer_ring import BufferRing
from kitd.store.direct_file import DirectFile
from kitd.store.sample import SAMPLE_BYTES, keep_sample

CATCH_UP_BYTES = 64 << 20
"""What is hashed again at once: a stop waits that long."""


class PartialBlob:
    """What has arrived of one blob, filled through `ring` by one thread at a time.

    Use as a context manager; leaving without `commit` keeps what arrived. Before anything is put
    into the ring, `catch_up` has to have returned True. The ring raises `StoreError` and
    `NoSpaceError`.
    """

    def __init__(self, store: BlobStore, target: Descriptor) -> None:
        self._store = store
        self._target = target
        self._path = store.partial_path(target.digest)
        self._hasher = hashlib.new(algorithm_of(target.digest))
        self._file = DirectFile(self._path, at_most=target.size)
        self._hashed = 0
        self.found_bytes = self._file.size
        """What an earlier attempt left."""
        self.ring = BufferRing(self._hasher.update, self._file.append)

    def catch_up(self) -> bool:
        """Hash the next piece of what was found; whether that was all of it. Raises `StoreError`.

        The file ends on a block, so a little less may be there than arrived.
        """
        with os_errors("read", self._path), self._path.open("rb", buffering=0) as file:
            file.seek(self._hashed)
            until = min(self._hashed + CATCH_UP_BYTES, self.found_bytes)
            while self._hashed < until:
                piece = file.read(min(CHUNK_BYTES, until - self._hashed))
                if not piece:
                    raise StoreError(f"{self._path} became shorter while it was read")
                self._hasher.update(piece)
                self._hashed += len(piece)
        return self._hashed == self.found_bytes

    def commit(self) -> Committed:
        """Publish the blob, durably. Raises `StoreError`.

        Raises `MismatchError` if something else arrived, of which nothing but a sample is kept.
        """
        self.ring.drain()
        digest, size = from_hash(self._hasher), self._file.size
        if (digest, size) != (self._target.digest, self._target.size):
            self.reject(f"{digest} of {size} bytes")
        committed = self._store.publish(self._file.handle, self._path, digest, size)
        if committed.reused:
            self._store.drop_partial(digest)
        return committed

    def reject(self, found: str) -> NoReturn:
        """Go on with nothing of this: raise `MismatchError` once only a sample is left."""
        self.ring.drain()
        with os_errors("read", self._path), self._path.open("rb") as file:
            sample = file.read(SAMPLE_BYTES)
        # First, so that there is room.
        self._store.drop_partial(self._target.digest)
        _reject(self._store, self._target, found, sample)

    def suspend(self) -> None:
        """Close the file, with all that arrived in it. Safe to call twice."""
        if self._file.handle >= 0:
            # An error of the disk has come out before, or will when somebody goes on.
            with suppress(KitdError):
                self.ring.drain()
            if not self._file.size:
                self._store.drop_partial(self._target.digest)
        # The threads go first: one that still writes must not meet a reused descriptor.
        self.ring.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.suspend()


def put_verified(store: BlobStore, target: Descriptor, content: bytes) -> Committed:
    """Publish a small blob that came whole.

    Raises `StoreError`, and `MismatchError` if it is something else, of which a sample is kept.
    """
    digest = from_hash(hashlib.new(algorithm_of(target.digest), content))
    if (digest, len(content)) != (target.digest, target.size):
        _reject(store, target, f"{digest} of {len(content)} bytes", content)
    return store.put(content, algorithm_of(target.digest))


def _reject(store: BlobStore, target: Descriptor, found: str, content: bytes) -> NoReturn:
    try:
        sample = f"it begins like {keep_sample(store, target.digest, content)}"
    except StoreError as error:
        # What came is the worse news.
        sample = f"no sample of it could be kept ({error.message})"
    raise MismatchError(
        f"asked for {target.digest} of {target.size} bytes, got {found}",
        hint=f"{sample}; nothing of it is used, and the next attempt begins anew",
    )
