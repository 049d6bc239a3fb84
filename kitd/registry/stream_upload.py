"""A blob that is uploaded while it comes to be: its digest and its size are known at its end only.

What is sent cannot be read a second time. So it is sent in chunks that are kept until the registry
has acknowledged them; what a broken connection leaves open is asked for, and what is missing of the
chunk is sent again. The session is remembered: a later attempt that makes the same bytes once more
goes on from what the registry has. That they are the same is proven by the digest at the end.

A registry that knows no such uploads wants the digest before the first byte.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import ClassVar

from kitd.content.store import ByteStream, Chunk
from kitd.errors import Disposition
from kitd.oci.digest import Digest
from kitd.oci.reference import Repository
from kitd.registry.errors import (
    RegistryError,
    RegistryMismatchError,
    RegistryRejectedError,
    RegistryStateError,
    RegistryTooLargeError,
    RegistryUnsupportedError,
)
from kitd.registry.profile import (
    ChunksUnsupported,
    LeastChunk,
    Observation,
    TooLarge,
    UploadProfile,
    learn,
)
from kitd.registry.request import Body
from kitd.registry.settings import UploadMode
from kitd.registry.upload_session import (
    HICCUPS,
    MAX_STALLS,
    NOT_RESUMABLE,
    UploadMemory,
    Uploads,
    UploadSession,
    arrived,
)

MAX_CHUNK_BYTES = 64 * 1024 * 1024
"""Chunks are kept in memory: one that wants larger ones is not obeyed."""
PIECE_BYTES = 1 << 18
"""What is handed to the network at once: it is copied there, and others have a turn in between."""


class StreamBrokenError(RegistryError):
    """What was sent so far is not how this content begins, or cannot be sent again from here."""

    code = "stream_broken"
    disposition: ClassVar[Disposition] = Disposition.RETRY


class StreamUpload:
    """An open upload of content that is still being made. Made by `open_stream`.

    Every method raises `RegistryError` and its family.
    """

    def __init__(
        self,
        uploads: Uploads,
        repository: Repository,
        memory: UploadMemory,
        content: str,
        session: UploadSession,
        *,
        profile: UploadProfile,
        learned: Callable[[UploadProfile], Awaitable[None]],
        chunk_bytes: int,
    ) -> None:
        self._uploads = uploads
        self._repository = repository
        self._memory = memory
        self._content = content
        self._session = session
        # What the registry names is the least that it may be.
        self._profile = learn(profile, LeastChunk(session.least_chunk_bytes)) or profile
        self._learned = learned
        self._is_resumed = session.received > 0
        self._is_anew = False
        least_bytes = self._profile.least_bytes
        self.chunk_bytes = max(min(self._profile.chunk_bytes, chunk_bytes), least_bytes)
        """How much `append` wants at once, but for the last time."""

    @property
    def received(self) -> int:
        """How many bytes the registry has."""
        return self._session.received

    async def append(self, data: memoryview) -> None:
        """Send what follows the bytes that the registry has; return once it has these, too.

        Raises `StreamBrokenError` where it has lost some that it had acknowledged, and where it
        takes no chunks, which is remembered.
        """
        start = self.received
        end = start + len(data)
        most = self.chunk_bytes
        stalls = 0
        while self.received < end:
            before = self.received
            try:
                await self._send(data[before - start :][:most])
            except RegistryTooLargeError:
                refused = TooLarge(min(most, end - self.received), UploadMode.CHUNKED)
                if not self._learn(refused):
                    raise
                most = min(most, self._profile.chunk_bytes)
            except (RegistryUnsupportedError, RegistryStateError) as error:
                if self.received:
                    raise
                if isinstance(error, RegistryStateError) and not self._is_anew:
                    self._is_anew = True
                    await self._advance(await self._uploads.open())
                    continue
                # Twice before a byte was in it: that was no session for chunks.
                if not self._learn(ChunksUnsupported()):
                    raise
                await self.cancel()
                await self._learned(self._profile)
                raise self._broken("it takes no chunks, and the digest first") from error
            except HICCUPS:
                if stalls == MAX_STALLS:
                    raise
                await self._advance(await self._uploads.ask(self._session))
            if not start <= self.received <= end:
                raise self._broken(f"it has {self.received} bytes, not {start} to {end}")
            stalls = 0 if self.received > before else stalls + 1
            if stalls > MAX_STALLS:
                raise self._uploads.violation("it takes chunks but keeps nothing of them")
        self.chunk_bytes = most

    async def commit(self, digest: Digest, size: int) -> None:
        """Publish what was sent as the blob of this digest.

        Raises `StreamBrokenError` where the first bytes, of an earlier attempt, were others.
        """
        try:
            if size != self.received:
                raise self._broken(f"it has {self.received} of {size} bytes")
            await self._commit(digest, size)
        except (RegistryMismatchError, RegistryRejectedError, StreamBrokenError) as error:
            await self.cancel()
            if not self._is_resumed:
                raise
            raise self._broken("what an earlier attempt sent is not how it begins now") from error
        await self._memory.forget(self._repository, self._content)
        await self._learned(self._profile)

    async def _commit(self, digest: Digest, size: int) -> None:
        for stalls in range(MAX_STALLS + 1):
            try:
                await self._uploads.commit(self._session, digest, size=size)
            except (*HICCUPS, RegistryStateError):
                # It may have been done, and the answer lost.
                if await self._uploads.is_held(digest, size, self._uploads.name):
                    return
                if stalls == MAX_STALLS:
                    raise
                self._session = await self._uploads.ask(self._session)
            else:
                return

    async def cancel(self) -> None:
        """Give the upload up for good: nothing of it is kept."""
        await self._memory.forget(self._repository, self._content)
        await self._uploads.cancel(self._session)

    def _learn(self, observation: Observation) -> bool:
        """Go on with the profile that follows from an observation; whether there is one."""
        profile = learn(self._profile, observation)
        self._profile = profile or self._profile
        return profile is not None

    async def _send(self, part: memoryview) -> None:
        is_chunk = self._profile.mode is not UploadMode.STREAM
        sending = self._uploads.send(self._session, _of(part), size=len(part), is_chunk=is_chunk)
        await self._advance(await arrived(sending, self._advance))

    async def _advance(self, session: UploadSession) -> None:
        self._session = session
        await self._memory.remember(self._repository, self._content, session)

    def _broken(self, reason: str) -> StreamBrokenError:
        return StreamBrokenError(
            reason, host=self._repository.registry, operation=f"push {self._uploads.what}"
        )


async def open_stream(
    uploads: Uploads,
    repository: Repository,
    memory: UploadMemory,
    content: str,
    *,
    profile: UploadProfile,
    learned: Callable[[UploadProfile], Awaitable[None]],
    chunk_bytes: int,
) -> StreamUpload:
    """Go on with the upload that is remembered for this content, or begin one.

    Chunks are of at most `chunk_bytes`, unless the registry wants larger ones. `learned` is told
    the `profile` as it is after a blob was sent, or when it turned out to be useless. Raises
    `RegistryError`.
    """
    session = await memory.recall(repository, content)
    if session is not None:
        session = await _resumed(uploads, session)
    if session is None:
        session = await uploads.open()
    if session.least_chunk_bytes > MAX_CHUNK_BYTES:
        raise uploads.violation(f"it wants chunks of {session.least_chunk_bytes} bytes at least")
    await memory.remember(repository, content, session)
    return StreamUpload(
        uploads,
        repository,
        memory,
        content,
        session,
        profile=profile,
        learned=learned,
        chunk_bytes=chunk_bytes,
    )


async def _resumed(uploads: Uploads, session: UploadSession) -> UploadSession | None:
    """Return a session as the registry sees it, or None if it cannot be gone on with."""
    if not uploads.is_from_here(session):
        return None
    try:
        return await uploads.ask(session)
    except NOT_RESUMABLE:
        return None


def _of(part: memoryview) -> Body:
    """Return a body that gives these bytes, however often it is opened."""

    async def pieces() -> AsyncGenerator[Chunk, None]:
        for start in range(0, len(part), PIECE_BYTES):
            yield part[start : start + PIECE_BYTES]

    @asynccontextmanager
    async def body() -> AsyncIterator[ByteStream]:
        yield pieces()

    return body
