"""Blobs on their way in: upload sessions, each a file that survives a restart.

A session is an ingest of the blob store under a name of its own. What has arrived stays, whatever
ended the request that brought it, and its client asks where to go on. The hash runs along in
memory; after a restart it is computed again from the file. Sessions belong to the cache and not to
a repository, as blobs do; their names cannot be guessed.
"""

import re
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from kitd.blocking import run_blocking
from kitd.content.store import ByteStream, MismatchError
from kitd.errors import KitdError
from kitd.gateway.byte_range import ByteRange
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest, algorithm_of
from kitd.oci.media_type import OCTET_STREAM
from kitd.store.blob_store import BlobStore, Ingest, StoreError, os_errors
from kitd.store.content import write_stream

MAX_SESSIONS = 64
"""Each holds a file open, and none needs to be closed by its client."""
IDLE_S = 24 * 3600.0
"""A session that nothing was written to for so long is given up."""
CROWDED_IDLE_S = 15 * 60.0
"""The same, once there are `MAX_SESSIONS`: clients that died must not shut out the others."""

_SESSION = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class UploadUnknownError(KitdError):
    """No such session: never begun, finished, cancelled or given up."""

    code = "upload_unknown"


class UploadBusyError(KitdError):
    """Another request is writing to the session."""

    code = "upload_busy"


class TooManyUploadsError(KitdError):
    """As many uploads are open as the registry keeps."""

    code = "too_many_uploads"


class UploadLengthError(KitdError):
    """A chunk has not the length that its headers promise."""

    code = "upload_length"


class UploadOffsetError(KitdError):
    """A chunk does not begin where the session ends; `offset` is where it does."""

    code = "upload_offset"

    def __init__(self, message: str, *, offset: int) -> None:
        super().__init__(message, hint=f"go on at byte {offset}")
        self.offset = offset


@dataclass(slots=True)
class _Session:
    """`ingest` is None until the session is written to by this process; one request at a time."""

    ingest: Ingest | None = None
    busy: bool = False

    def begin(self, store: BlobStore, name: str, algorithm: str) -> None:
        """Create the file. Here, and not in the caller, so that a cancelled one leaks nothing."""
        self.ingest = store.ingest_upload(name, algorithm)

    def resume(self, store: BlobStore, name: str) -> Ingest:
        """Return the ingest, from the file where this process has not written to it yet."""
        if self.ingest is None:
            self.ingest = store.resume(name)
        return self.ingest

    def discard(self, store: BlobStore, name: str) -> None:
        """Remove the file; one of an earlier process need not be read for that."""
        path = store.uploads_dir / name
        with os_errors("remove", path):
            if self.ingest is not None:
                self.ingest.discard()
            else:
                path.unlink(missing_ok=True)


class UploadSessions:
    """All open uploads of one cache. One instance at a time owns the directory."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._sessions: dict[str, _Session] = {}

    async def recover(self) -> None:
        """Take over what an earlier process left. Raises `StoreError`."""
        directory = self._store.uploads_dir
        with os_errors("list", directory):
            paths = await run_blocking(lambda: list(directory.iterdir()))
        self._sessions = {path.name: _Session() for path in paths if _SESSION.fullmatch(path.name)}

    async def begin(self, algorithm: str = "sha256") -> str:
        """Open a session and return its name. Raises `TooManyUploadsError`, `StoreError`."""
        if len(self._sessions) >= MAX_SESSIONS:
            await self.sweep(idle_s=CROWDED_IDLE_S)
        if len(self._sessions) >= MAX_SESSIONS:
            raise TooManyUploadsError(
                f"{MAX_SESSIONS} uploads are open", hint="finish or cancel one of them"
            )
        name = str(uuid.uuid4())
        # The place is taken before anything waits, so that the bound holds.
        session = self._sessions[name] = _Session(busy=True)
        try:
            await run_blocking(session.begin, self._store, name, algorithm)
        except StoreError:
            del self._sessions[name]
            raise
        finally:
            session.busy = False
        return name

    async def offset(self, name: str) -> int:
        """Return how many bytes have arrived. Raises `UploadUnknownError`, `StoreError`."""
        session = self._session(name)
        if session.ingest is not None:
            return session.ingest.size
        path = self._store.uploads_dir / name
        with os_errors("read", path):
            return (await run_blocking(path.stat)).st_size

    async def append(self, name: str, stream: ByteStream, chunk: ByteRange | None = None) -> int:
        """Write `stream` at the end of the session and return how many bytes have arrived.

        `chunk` is where the client believes that to be. Raises `UploadOffsetError`,
        `UploadLengthError`, `UploadBusyError`, `UploadUnknownError`, `StoreError`, and what
        `stream` raises.
        """
        async with self._claim(name) as ingest:
            await _append(ingest, stream, chunk)
            return ingest.size

    async def finish(
        self, name: str, digest: Digest, stream: ByteStream, chunk: ByteRange | None = None
    ) -> None:
        """Append the rest, if there is one, and publish the blob under its digest.

        Ends the session. Raises `MismatchError` where the content has another digest, which ends
        the session too: its bytes cannot become the blob any more. Else as `append`.
        """
        async with self._claim(name) as ingest:
            await _append(ingest, stream, chunk)
            if ingest.algorithm != algorithm_of(digest):
                await run_blocking(ingest.rehash, algorithm_of(digest))
            target = Descriptor(OCTET_STREAM, digest, ingest.size)
            try:
                await run_blocking(ingest.commit, target)
            except MismatchError:
                await self._end(name, ingest)
                raise
            await self._end(name, ingest)

    async def receive(self, digest: Digest, stream: ByteStream) -> None:
        """Publish a blob from one stream, in a session that nobody learns of and nothing outlives.

        Raises as `begin` and `finish`.
        """
        name = await self.begin(algorithm_of(digest))
        try:
            await self.finish(name, digest, stream)
        finally:
            if name in self._sessions:
                await self.cancel(name)

    async def cancel(self, name: str) -> None:
        """End a session without a blob. Raises `UploadBusyError`, `UploadUnknownError`."""
        session = self._idle_session(name)
        del self._sessions[name]
        await run_blocking(session.discard, self._store, name)

    async def sweep(self, *, idle_s: float = IDLE_S) -> int:
        """End the sessions that nothing was written to for `idle_s`; return how many."""
        horizon = time.time() - idle_s
        ended = 0
        for name in list(self._sessions):
            session = self._sessions.get(name)
            if session is None or session.busy or await self._written(name) > horizon:
                continue
            try:
                await self.cancel(name)
            except (UploadBusyError, UploadUnknownError):
                continue  # Its client came back, or ended it, in this moment.
            ended += 1
        return ended

    async def suspend(self) -> None:
        """Close all files and leave them for `recover`. No request may be under way."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            if session.ingest is not None:
                await run_blocking(session.ingest.suspend)

    def _session(self, name: str) -> _Session:
        session = self._sessions.get(name)
        if session is None:
            raise UploadUnknownError(f"no upload {name[:80]!r} is open", hint="begin a new one")
        return session

    def _idle_session(self, name: str) -> _Session:
        session = self._session(name)
        if session.busy:
            raise UploadBusyError(f"another request writes to the upload {name}")
        return session

    @asynccontextmanager
    async def _claim(self, name: str) -> AsyncIterator[Ingest]:
        session = self._idle_session(name)
        session.busy = True
        try:
            yield await run_blocking(session.resume, self._store, name)
        except StoreError:
            # A write that failed in its middle leaves a file that the hash knows nothing of:
            # the next request starts from the file, as after a restart.
            if session.ingest is not None:
                session.ingest.suspend()
                session.ingest = None
            raise
        finally:
            session.busy = False

    async def _end(self, name: str, ingest: Ingest) -> None:
        del self._sessions[name]
        await run_blocking(ingest.discard)

    async def _written(self, name: str) -> float:
        path = self._store.uploads_dir / name
        with os_errors("read", path):
            return (await run_blocking(path.stat)).st_mtime


async def _append(ingest: Ingest, stream: ByteStream, chunk: ByteRange | None) -> None:
    if chunk is None:
        await write_stream(ingest, stream)
        return
    if chunk.start != ingest.size:
        raise UploadOffsetError(
            f"the chunk begins at byte {chunk.start}, the upload has {ingest.size}",
            offset=ingest.size,
        )
    await write_stream(ingest, _at_most(stream, chunk.length_bytes))
    if ingest.size != chunk.end:
        raise UploadLengthError(
            f"the chunk of {chunk.length_bytes} bytes came with {ingest.size - chunk.start}"
        )


async def _at_most(stream: ByteStream, length_bytes: int) -> ByteStream:
    """Yield the chunks of `stream`; raise `UploadLengthError` before a byte too many."""
    left = length_bytes
    async for data in stream:
        left -= len(data)
        if left < 0:
            raise UploadLengthError(f"more came than the {length_bytes} bytes of the chunk")
        yield data
