"""Layers that leave while they are read: hashed, and through a named pipe to whoever sends them on.

The pipe stands where temporary files do, under the same names, so that what is left of one is swept
with them. Nothing of what goes through it touches the disk.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from kitd.errors import Disposition, KitdError
from kitd.oci.digest import from_hash
from kitd.store.blob_store import BlobStore, Committed, os_errors
from kitd.store.buffer_ring import BufferRing


class PipeClosedError(KitdError):
    """Nobody takes the bytes of a layer any more."""

    code = "pipe_closed"
    disposition: ClassVar[Disposition] = Disposition.RETRY


class StreamOutlet:
    """Hashes a blob on its way through a descriptor, or to nowhere. A `kitd.packing.layer.Outlet`.

    Use as a context manager; the descriptor stays the caller's. The ring raises `PipeClosedError`.
    """

    def __init__(self, handle: int | None) -> None:
        self._handle = handle
        self._hasher = hashlib.sha256()
        self._size = 0
        self.ring = BufferRing(self._hasher.update, self._pass_on)

    def commit(self) -> Committed:
        """Return what the bytes were, once all are taken."""
        self.ring.drain()
        return Committed(from_hash(self._hasher), self._size, reused=False)

    def _pass_on(self, data: memoryview) -> None:
        self._size += len(data)
        try:
            while data and self._handle is not None:
                data = data[os.write(self._handle, data) :]
        except BrokenPipeError as error:
            raise PipeClosedError("the upload of a layer ended before the layer did") from error


@contextmanager
def hashed() -> Iterator[StreamOutlet]:
    """Give an outlet that leads nowhere: what comes of it is the digest."""
    outlet = StreamOutlet(None)
    with outlet.ring:
        yield outlet


@contextmanager
def new_pipe(store: BlobStore) -> Iterator[Path]:
    """Make a named pipe; it is gone when the context is left. Raises `StoreError`."""
    path = store.new_temporary()
    with os_errors("create a pipe at", path):
        os.mkfifo(path, 0o600)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def piped(path: Path) -> Iterator[StreamOutlet]:
    """Give an outlet into a pipe, once somebody reads it. Raises `StoreError`."""
    with os_errors("open", path):
        handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        outlet = StreamOutlet(handle)
        with outlet.ring:
            yield outlet
    finally:
        os.close(handle)
