"""Uploading one blob: mount it, or open a session and send it in the way the registry takes.

Source: OCI distribution spec, "Pushing blobs", with the deviations of registries in use. The bytes
are not hashed here: who stores them has verified them, and a registry must compare the digest
before it publishes (spec, same section).
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from kitd.content.store import ByteStream, Chunk, Fetcher, MismatchError
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import abbreviate
from kitd.registry.errors import (
    RegistryNotFoundError,
    RegistryRejectedError,
    RegistryServerError,
    RegistryTimeoutError,
    RegistryTooLargeError,
    RegistryUnreachableError,
)
from kitd.registry.profile import UploadProfile
from kitd.registry.request import Body
from kitd.registry.settings import UploadMode
from kitd.registry.transport import Transport
from kitd.registry.upload_session import Uploads, UploadSession

MAX_STALLS = 3
"""How often an upload may be asked for its state without having got on since."""


async def exactly(stream: ByteStream, count: int) -> AsyncGenerator[Chunk, None]:
    """Yield the first `count` bytes. Raises `MismatchError` where there are fewer."""
    left = count
    async for chunk in stream:
        yield chunk if len(chunk) <= left else memoryview(chunk)[:left]
        left -= len(chunk)
        if left <= 0:
            return
    if left:
        raise MismatchError(f"the source ended {left} bytes before the end of the content")


@dataclass(frozen=True, slots=True)
class Upload:
    """One blob on its way from a source to a repository (`name`, as the registry calls it)."""

    transport: Transport
    name: str
    target: Descriptor
    source: Fetcher

    async def run(self, profile: UploadProfile, mount_from: Iterable[str] = ()) -> int:
        """Make the blob present and return the bytes that were sent: 0 where it was mounted.

        `mount_from` are repositories of the same registry that may hold the blob. Raises
        `RegistryError` and what the source raises.
        """
        uploads = Uploads(self.transport, self.name, abbreviate(self.target.digest))
        session = await self._begin(uploads, mount_from)
        if session is None:
            return 0
        size = self.target.size
        match profile.mode:
            case UploadMode.CHUNKED:
                session = await self._send_chunks(uploads, session, profile.chunk_bytes)
                await uploads.commit(session, self.target.digest, size=size)
            case UploadMode.STREAM:
                session = await uploads.send(session, self._portion(0, size), length=None)
                if session.received != size:
                    raise uploads.violation(f"it kept {session.received} of {size} bytes")
                await uploads.commit(session, self.target.digest, size=size)
            case _:
                content = self._portion(0, size) if size else None
                await uploads.commit(session, self.target.digest, size=size, content=content)
        return size

    async def _begin(self, uploads: Uploads, mount_from: Iterable[str]) -> UploadSession | None:
        """Return an open session, or None where the blob was mounted instead."""
        for other in mount_from:
            if other != self.name and await uploads.is_held(self.target.digest, other):
                try:
                    return await uploads.mount(self.target.digest, other)
                except (RegistryRejectedError, RegistryNotFoundError):
                    break
        return await uploads.open()

    async def _send_chunks(
        self, uploads: Uploads, session: UploadSession, chunk_bytes: int
    ) -> UploadSession:
        """Send the blob in order; whenever it is unclear what arrived, ask and go on from there."""
        most = max(chunk_bytes, session.least_chunk_bytes)
        stalls = 0
        while session.received < self.target.size:
            before = session.received
            length = min(most, self.target.size - before)
            try:
                session = await uploads.send(
                    session, self._portion(before, before + length), length=length
                )
            except RegistryTooLargeError:
                if stalls == MAX_STALLS:
                    raise
            except (RegistryTimeoutError, RegistryUnreachableError, RegistryServerError):
                if stalls == MAX_STALLS:
                    raise
                session = await uploads.ask(session)
            stalls = 0 if session.received > before else stalls + 1
            if stalls > MAX_STALLS:
                raise uploads.violation("it takes chunks but keeps nothing of them")
        return session

    def _portion(self, start: int, end: int) -> Body:
        """Return what opens the bytes from `start` to before `end` of the source."""

        @asynccontextmanager
        async def portion() -> AsyncIterator[ByteStream]:
            async with (
                self.source.fetch(self.target, offset=start) as stream,
                aclosing(exactly(stream, end - start)) as part,
            ):
                yield part

        return portion
