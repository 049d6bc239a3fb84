"""Uploading one blob: mount it, or open a session and send it in the way the registry takes.

Source: OCI distribution spec, "Pushing blobs", with the deviations of registries in use. The bytes
are not hashed here: who stores them has verified them, and a registry must compare the digest
before it publishes (spec, same section).
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import structlog

from kitd.content.store import ByteStream, Fetcher, MismatchError
from kitd.content.stream import Portion
from kitd.oci.descriptor import Descriptor
from kitd.oci.reference import Repository
from kitd.registry.errors import (
    RegistryDeniedError,
    RegistryError,
    RegistryNotFoundError,
    RegistryProtocolError,
    RegistryRejectedError,
    RegistryServerError,
    RegistryStateError,
    RegistryTimeoutError,
    RegistryTooLargeError,
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

STALL_S = 0.25
"""How long the first wait before that is; the others are twice the one before."""
MAX_LOST = 3
"""How many sessions a registry may lose before the rest is for another attempt."""
AT_ONCE_BYTES = 256 << 10
"""Up to this size a blob is read before its request and goes out as one piece. The deadline for a
piece is not moved while it is on a slow line."""
MAX_LENDERS = 4
"""How many repositories are asked whether they have a blob, before it is sent."""

NOT_LENT = (
    RegistryRejectedError,
    RegistryNotFoundError,
    RegistryDeniedError,
    RegistryServerError,
    RegistryTimeoutError,
)
"""What comes of a mount where that leaves it open whether the blob may be sent."""

log = structlog.get_logger(__name__)


class Upload:
    """One blob on its way from a source to a repository.

    `profile` is how it is sent; after `run` it is how that worked.
    """

    def __init__(
        self,
        uploads: Uploads,
        repository: Repository,
        target: Descriptor,
        source: Fetcher,
        *,
        profile: UploadProfile,
        memory: UploadMemory,
    ) -> None:
        self.profile = profile
        self._uploads = uploads
        self._repository = repository
        self._target = target
        self._source = source
        self._memory = memory
        self._is_remembered = False

    async def run(
        self, lenders: Iterable[str] = (), session: UploadSession | None = None
    ) -> int | None:
        """Make the blob present and return the bytes that were sent; None where it was mounted.

        `lenders` are repositories of the same registry that may hold the blob. Without an open
        session an upload that was begun before goes on where the registry says that it stands.
        Raises `RegistryError` and what the source raises; a session that can be gone on with is
        remembered.
        """
        session = session or await self._resume() or await self._begin(lenders)
        if session is None:
            await self._forget()
            return None
        sent_bytes = await self._send(session)
        await self._forget()
        return sent_bytes

    @property
    def _mode(self) -> UploadMode:
        return self.profile.mode_for(self._target.size)

    async def _resume(self) -> UploadSession | None:
        """Return the session that was left behind as the registry sees it now, if it still does."""
        if self._mode is UploadMode.MONOLITHIC:
            return None
        session = await self._memory.recall(self._repository, self._target.digest)
        if session is None:
            return None
        self._is_remembered = True
        # The settings may have moved the registry since.
        if self._uploads.is_from_here(session):
            try:
                asked = await self._uploads.ask(session)
            except NOT_RESUMABLE as error:
                # Not forgotten before there is another: it may be the registry's bad moment.
                self._log("upload.lost", received=session.received, error=error.message)
                return None
            if asked.received <= self._target.size:
                self._log("upload.resumed", received=asked.received)
                return asked
        await self._give_up(session)
        return None

    async def _begin(self, lenders: Iterable[str]) -> UploadSession | None:
        """Return an open session, or None where the blob was mounted instead."""
        digest, uploads = self._target.digest, self._uploads
        others = [name for name in dict.fromkeys(lenders) if name != uploads.name]
        anybody = (None,) if self.profile.mounts_unasked else ()
        for lender in (*others[:MAX_LENDERS], *anybody):
            try:
                if lender is None or await uploads.is_held(digest, self._target.size, lender):
                    session = await uploads.mount(digest, lender)
                    if session is not None or lender is not None or await self._is_there():
                        return session
            except NOT_LENT as error:
                # Nobody has to lend; whether this may be pushed at all shows with the next.
                self._log("upload.not_mounted", lender=lender, error=error.message)
        return await uploads.open()

    async def _send(self, session: UploadSession) -> int:
        """Send what is missing and end the session, or one after it that suits better.

        Returns the bytes that the session which ended well did not have before.
        """
        lost, refusal = 0, None
        while True:
            self._session = session
            before = session.received
            try:
                if self._mode is UploadMode.MONOLITHIC:
                    await self._send_whole()
                else:
                    await self._send_parts()
            except RegistryStateError as error:
                # It may be putting the blob together: the next attempt looks for that first.
                if 0 < self._target.size == self._session.received:
                    raise
                lost += 1
                self._log("upload.lost", received=self._session.received, error=error.message)
                await self._forget()
                # Twice before a byte was in it: that was no session for chunks.
                hopeless = lost > 1 and self._session.received == 0
                if lost == MAX_LOST or (hopeless and not self._learn(ChunksUnsupported())):
                    raise refusal or error from None
            except (MismatchError, RegistryRejectedError, RegistryProtocolError) as error:
                await self._give_up(self._session)
                observation = self._observation(error)
                if observation is None or not self._learn(observation):
                    raise refusal or error from None
                refusal = error
            else:
                return self._target.size - before
            session = await self._uploads.open()

    async def _send_whole(self) -> None:
        """Send the blob and end the session with one request."""
        size = self._target.size
        content = None
        if size:
            content = self._portion(0, size) if size > AT_ONCE_BYTES else await self._read()
        try:
            await self._uploads.commit(
                self._session, self._target.digest, size=size, content=content
            )
        except (*HICCUPS, RegistryStateError):
            # The blob may have arrived, and the answer not.
            if not await self._is_there():
                raise

    async def _send_parts(self) -> None:
        """Send the blob in order; whenever it is unclear what arrived, ask and go on from there."""
        self._learn(LeastChunk(self._session.least_chunk_bytes))
        await self._remember()
        stalls = 0
        while self._session.received < self._target.size:
            before = self._session.received
            try:
                await self._send_part()
            except RegistryTooLargeError:
                if stalls == MAX_STALLS:
                    raise
            except (*HICCUPS, RegistryStateError):
                if stalls == MAX_STALLS:
                    raise
                # What was cut may still be arriving, and keep others out of the session meanwhile.
                await self._uploads.transport.pause(STALL_S * 2**stalls)
                self._session = await self._uploads.ask(self._session)
            await self._remember()
            stalls = 0 if self._session.received > before else stalls + 1
            if stalls > MAX_STALLS:
                raise self._uploads.violation("it takes chunks but keeps nothing of them")
        await self._commit()

    async def _send_part(self) -> None:
        """Send one chunk, smaller ones if it is too large, or as a stream all that is left."""
        start, size = self._session.received, self._target.size
        if self._mode is UploadMode.STREAM:
            rest = self._portion(start, size)
            self._session = await self._uploads.send(
                self._session, rest, size=size - start, is_chunk=False
            )
            return
        while True:
            length = min(self.profile.chunk_bytes, size - start)
            part = self._portion(start, start + length)
            try:
                self._session = await arrived(
                    self._uploads.send(self._session, part, size=length, is_chunk=True), self._take
                )
            except RegistryTooLargeError:
                if not self._learn(TooLarge(length, UploadMode.CHUNKED)):
                    raise
            else:
                return

    async def _commit(self) -> None:
        """End the session, which has all bytes."""
        size = self._target.size
        for stalls in range(MAX_STALLS + 1):
            try:
                await self._uploads.commit(self._session, self._target.digest, size=size)
            except (*HICCUPS, RegistryStateError, RegistryRejectedError) as error:
                if await self._is_there():
                    return
                # Who lost the session may still be putting the blob together: it is for later.
                if stalls == MAX_STALLS or not await self._has_all(error):
                    raise
            else:
                return

    async def _has_all(self, error: RegistryError) -> bool:
        """Whether the session survived what happened to the request that should have ended it."""
        if not isinstance(error, HICCUPS):
            return False
        try:
            self._session = await self._uploads.ask(self._session)
        except RegistryError:
            return False
        return self._session.received == self._target.size

    async def _is_there(self) -> bool:
        try:
            target = self._target
            return await self._uploads.is_held(target.digest, target.size, self._uploads.name)
        except RegistryError:
            return False

    def _observation(self, error: Exception) -> Observation | None:
        """Return what a refusal says of the registry, where it can mean nothing else."""
        if self._mode is UploadMode.MONOLITHIC:
            too_large = isinstance(error, RegistryTooLargeError)
            return TooLarge(self._target.size, UploadMode.MONOLITHIC) if too_large else None
        at_an_end = self._session.received in (0, self._target.size)
        refused = isinstance(error, RegistryRejectedError) and at_an_end
        if refused and not isinstance(error, RegistryTooLargeError):
            return ChunksUnsupported()
        return None

    def _learn(self, observation: Observation) -> bool:
        """Go on with the profile that follows from an observation; whether there is one."""
        profile = learn(self.profile, observation)
        if profile is None:
            return False
        if profile != self.profile:
            self._log("upload.learned", observation=str(observation))
        self.profile = profile
        return True

    def _log(self, event: str, **facts: object) -> None:
        log.info(event, repository=str(self._repository), digest=self._target.digest, **facts)

    async def _take(self, session: UploadSession) -> None:
        self._session = session
        await self._remember()

    async def _remember(self) -> None:
        await self._memory.remember(self._repository, self._target.digest, self._session)
        self._is_remembered = True

    async def _forget(self) -> None:
        if self._is_remembered:
            await self._memory.forget(self._repository, self._target.digest)
            self._is_remembered = False

    async def _give_up(self, session: UploadSession) -> None:
        """Forget a session that nobody will go on with, and tell the registry."""
        await self._uploads.cancel(session)
        await self._forget()

    async def _read(self) -> bytes:
        """Return the whole blob, which is small."""
        async with self._portion(0, self._target.size)() as part:
            return b"".join([chunk async for chunk in part])

    def _portion(self, start: int, end: int) -> Body:
        """Return what opens the bytes from `start` to before `end` of the source."""

        @asynccontextmanager
        async def portion() -> AsyncIterator[ByteStream]:
            async with self._source.fetch(self._target, offset=start) as stream:
                yield Portion(stream, end - start)

        return portion
