"""Uploading one blob: mount it, or open a session and send it in the way the registry takes.

Source: OCI distribution spec, "Pushing blobs", with the deviations of registries in use. The bytes
are not hashed here: who stores them has verified them, and a registry must compare the digest
before it publishes (spec, same section).
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, replace

from aiohttp import ClientResponse
from yarl import URL

from kitd.content.store import ByteStream, Chunk, Fetcher, MismatchError
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import abbreviate
from kitd.oci.media_type import OCTET_STREAM
from kitd.registry.auth.scope import Scope, pull, push
from kitd.registry.errors import (
    RegistryDeniedError,
    RegistryNotFoundError,
    RegistryProtocolError,
    RegistryRejectedError,
    RegistryServerError,
    RegistryStateError,
    RegistryTimeoutError,
    RegistryUnreachableError,
)
from kitd.registry.location import InvalidLocationError, resolve_upload, with_digest
from kitd.registry.profile import UploadProfile
from kitd.registry.request import Body, Request
from kitd.registry.settings import UploadMode
from kitd.registry.transport import Transport

MAX_STALLS = 3
"""How often an upload may be asked for its state without having got on since."""
COMMIT_LEAST_S = 120.0
COMMIT_BYTES_PER_S = 50e6
"""How slowly registries over object stores put a blob together after its last byte."""

_GONE = frozenset({404})
_GONE_OR_OUT_OF_STEP = frozenset({404, 416})
_RANGE = re.compile(r"(?:bytes[= ])?0-([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class UploadSession:
    """An upload that a registry keeps open: enough to go on with it, even after a restart."""

    location: URL
    """Where the next request goes. Every answer may name another."""
    received: int = 0
    """How many bytes the registry has acknowledged."""
    least_chunk_bytes: int = 1


def parse_received(value: str, *, sent: int) -> int | None:
    """Return how many bytes a Range header acknowledges; None where it makes no sense.

    `0-0` is one byte by the letter, but what registries say of an empty session.
    """
    match = _RANGE.fullmatch(value.strip())
    if match is None:
        return None
    received = int(match.group(1)) + 1
    if received == 1 and sent != 1:
        return 0
    return received if received <= sent else None


def commit_idle_s(size: int) -> float:
    """Return how long the request that ends an upload may stay without an answer."""
    return max(COMMIT_LEAST_S, size / COMMIT_BYTES_PER_S)


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
        session = await self._begin(mount_from)
        if session is None:
            return 0
        match profile.mode:
            case UploadMode.CHUNKED:
                await self._commit(await self._send_chunks(session, profile.chunk_bytes))
            case UploadMode.STREAM:
                await self._commit(await self._send_stream(session))
            case _:
                await self._put(session)
        return self.target.size

    async def _begin(self, mount_from: Iterable[str]) -> UploadSession | None:
        """Return an open session, or None where the blob was mounted instead."""
        for other in mount_from:
            if other != self.name and await self._is_in(other):
                try:
                    return await self._post(other)
                except (RegistryRejectedError, RegistryNotFoundError):
                    break
        return await self._post(None)

    async def _is_in(self, other: str) -> bool:
        """Whether a repository that may lend the blob has it and lets us read it."""
        request = Request(
            operation=self._operation("look for", other),
            method="HEAD",
            url=self.transport.url(f"{other}/blobs/{self.target.digest}"),
            scopes=(pull(other),),
            accept=frozenset({404}),
        )
        try:
            async with self.transport.send(request) as response:
                return response.status == 200
        except RegistryDeniedError:
            return False

    async def _post(self, mount: str | None) -> UploadSession | None:
        """Open a session; with `mount` try to get the blob from there first."""
        url = self.transport.url(f"{self.name}/blobs/uploads/")
        scopes: tuple[Scope, ...] = (push(self.name),)
        if mount is not None:
            url = url.with_query({"mount": self.target.digest, "from": mount})
            scopes += (pull(mount),)
        request = Request(
            operation=self._operation("begin to push"), method="POST", url=url, scopes=scopes
        )
        async with self.transport.send(request) as response:
            if mount is not None and response.status == 201:
                return None
            # A refused mount opens an ordinary session, which would be left to rot if not used.
            session = self._advance(UploadSession(url), response, sent=0)
            if session.location == url:
                raise self._violation("the answer names no upload")
            least = response.headers.get("OCI-Chunk-Min-Length", "")
            return replace(
                session, least_chunk_bytes=int(least) if re.fullmatch("[0-9]{1,12}", least) else 1
            )

    async def _put(self, session: UploadSession) -> None:
        """Send the whole blob and end the session with one request."""
        size = self.target.size
        await self._finish(session, size, self._portion(0, size) if size else None)

    async def _commit(self, session: UploadSession) -> None:
        """End a session that has all bytes."""
        await self._finish(session, 0, None)

    async def _finish(self, session: UploadSession, length: int, content: Body | None) -> None:
        request = Request(
            operation=self._operation("push"),
            method="PUT",
            url=with_digest(session.location, self.target.digest),
            scopes=(push(self.name),),
            headers={"Content-Type": OCTET_STREAM, "Content-Length": str(length)},
            content=content,
            accept=_GONE,
            idle_s=commit_idle_s(self.target.size),
        )
        async with self._send(request) as response:
            stored = response.headers.get("Docker-Content-Digest", self.target.digest)
            if stored != self.target.digest:
                raise self._violation(f"it stored {stored[:160]!r} instead")

    async def _send_stream(self, session: UploadSession) -> UploadSession:
        """Send the whole blob with one request that does not say how long it is."""
        async with self._patch(session, self.target.size, {}) as response:
            session = self._advance(session, response, sent=self.target.size)
        if session.received != self.target.size:
            raise self._violation(f"it kept {session.received} of {self.target.size} bytes")
        return session

    async def _send_chunks(self, session: UploadSession, chunk_bytes: int) -> UploadSession:
        """Send the blob in order; whenever it is unclear what arrived, ask and go on from there."""
        most = max(chunk_bytes, session.least_chunk_bytes)
        stalls = 0
        while session.received < self.target.size:
            before = session.received
            try:
                session = await self._send_chunk(session, min(before + most, self.target.size))
            except (RegistryTimeoutError, RegistryUnreachableError, RegistryServerError):
                if stalls == MAX_STALLS:
                    raise
                session = await self._ask(session)
            stalls = 0 if session.received > before else stalls + 1
            if stalls > MAX_STALLS:
                raise self._violation("it takes chunks but keeps nothing of them")
        return session

    async def _send_chunk(self, session: UploadSession, end: int) -> UploadSession:
        length = end - session.received
        headers = {
            "Content-Range": f"{session.received}-{end - 1}",
            "Content-Length": str(length),
        }
        async with self._patch(session, end, headers) as response:
            stated = "Location" in response.headers and "Range" in response.headers
            if response.status != 416:
                return self._advance(session, response, sent=end)
            if stated:
                return self._advance(session, response, sent=self.target.size)
        return await self._ask(session)

    async def _ask(self, session: UploadSession) -> UploadSession:
        """Return the session as the registry sees it."""
        request = Request(
            operation=self._operation("go on to push"),
            method="GET",
            url=session.location,
            scopes=(push(self.name),),
            accept=_GONE,
        )
        async with self._send(request) as response:
            return self._advance(session, response, sent=self.target.size)

    def _patch(
        self, session: UploadSession, end: int, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[ClientResponse]:
        """Send what lies between the acknowledged bytes and `end`."""
        request = Request(
            operation=self._operation("push"),
            method="PATCH",
            url=session.location,
            scopes=(push(self.name),),
            headers={"Content-Type": OCTET_STREAM, **headers},
            content=self._portion(session.received, end),
            accept=_GONE_OR_OUT_OF_STEP,
        )
        return self._send(request)

    @asynccontextmanager
    async def _send(self, request: Request) -> AsyncIterator[ClientResponse]:
        """Send a request to the session, which registries forget after a while."""
        async with self.transport.send(request) as response:
            if response.status == 404:
                raise RegistryStateError(
                    "it no longer knows the upload",
                    host=self.transport.registry,
                    operation=request.operation,
                )
            yield response

    def _advance(
        self, session: UploadSession, response: ClientResponse, *, sent: int
    ) -> UploadSession:
        """Return the session after an answer; `sent` is the most that can have arrived."""
        location, received = session.location, sent
        if named := response.headers.get("Location"):
            try:
                location = resolve_upload(response.url, named)
            except InvalidLocationError as error:
                raise self._violation(str(error)) from error
        if stated := response.headers.get("Range"):
            parsed = parse_received(stated, sent=sent)
            if parsed is None:
                raise self._violation(f"it claims to have {stated[:80]!r} of {sent} bytes")
            received = parsed
        return replace(session, location=location, received=received)

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

    def _operation(self, verb: str, name: str | None = None) -> str:
        return f"{verb} {abbreviate(self.target.digest)} in {name or self.name}"

    def _violation(self, reason: str) -> RegistryProtocolError:
        return RegistryProtocolError(
            reason, host=self.transport.registry, operation=self._operation("push")
        )
