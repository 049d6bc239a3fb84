"""The requests that an upload is made of: open, ask, send, commit, cancel; and the session between.

Source: OCI distribution spec, "Pushing blobs", with the deviations of registries in use. Which
request comes when is decided elsewhere; nothing here knows the digest or the size of what is sent
before it is committed.
"""

import asyncio
import re
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Mapping,
)
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from aiohttp import ClientResponse
from yarl import URL

from kitd.errors import KitdError
from kitd.oci.digest import Digest, algorithm_of
from kitd.oci.media_type import OCTET_STREAM
from kitd.oci.reference import Repository
from kitd.oci.registry_error import parse_error_body
from kitd.registry.auth.scope import pull, push
from kitd.registry.errors import (
    RegistryDeniedError,
    RegistryError,
    RegistryProtocolError,
    RegistryRejectedError,
    RegistryServerError,
    RegistryStateError,
    RegistryTimeoutError,
    RegistryTooLargeError,
    RegistryUnreachableError,
    RegistryUnsupportedError,
)
from kitd.registry.location import InvalidLocationError, resolve_upload, with_digest
from kitd.registry.presence import is_present
from kitd.registry.request import Body, Request
from kitd.registry.transport import Transport

PARTING_S = 5.0
"""How long a chunk that is under way has to arrive after its upload was cancelled."""
CANCEL_S = 10.0
"""How long a registry has to forget an upload."""
MAX_STALLS = 3
"""How often in a row an upload may go on without the registry keeping any of what was sent."""
COMMIT_LEAST_S = 120.0
COMMIT_BYTES_PER_S = 50e6
"""How slowly registries over object stores put a blob together after its last byte."""
MAX_OFFSET = 10**18
MAX_UNKNOWN_BYTES = 64 * 1024

HICCUPS = (RegistryTimeoutError, RegistryUnreachableError, RegistryServerError)
"""After these it is unclear what arrived: the registry is asked."""
NOT_RESUMABLE = (
    RegistryStateError,
    RegistryRejectedError,
    RegistryProtocolError,
    RegistryServerError,
)
"""What `Uploads.ask` raises for a session that a new one replaces: some fail over what they do not
know any more."""

_RANGE = re.compile(r"(?:bytes[= ])?0-(-1|[0-9]{1,18})")
_LEAST = re.compile(r"[0-9]{1,12}")
_BLOB = re.compile(r"/blobs/[a-z0-9]+:[0-9a-f]+/?")
_UNKNOWN_OR_OUT_OF_STEP = frozenset({404, 416})
_DENIED = frozenset({401, 403})


@dataclass(frozen=True, slots=True)
class UploadSession:
    """An upload that a registry keeps open: enough to go on with it, even after a restart."""

    # It may hold signed state.
    location: URL = field(repr=False)
    """Where the next request goes. Every answer may name another."""
    received: int = 0
    """How many bytes the registry has acknowledged."""
    least_chunk_bytes: int = 1
    origin: str = ""
    """Where the registry was when the session was opened; settings may have changed since."""


class UploadMemory(Protocol):
    """Sessions that outlive an attempt, by where they lead and what they are for.

    `content` is the digest of the blob, or another word for content whose digest is not known yet.
    """

    async def recall(self, repository: Repository, content: str) -> UploadSession | None:
        """Return the session that was remembered last and is not too old to be believed."""
        ...

    async def remember(self, repository: Repository, content: str, session: UploadSession) -> None:
        """Remember a session in the place of the one before."""
        ...

    async def forget(self, repository: Repository, content: str) -> None:
        """Forget the session, if there is one."""
        ...


def parse_received(value: str, *, sent: int) -> int | None:
    """Return how many bytes a Range header acknowledges; None where it makes no sense.

    `0-0` is one byte by the letter, but what registries say of an empty session; Quay says `0--1`.
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


async def arrived(
    sending: Coroutine[None, None, UploadSession],
    take: Callable[[UploadSession], Awaitable[None]],
) -> UploadSession:
    """Return the session after a chunk that is being sent; a cancelled one has time to arrive.

    Some registries cannot go on after half a chunk. `take` is given what it came to then.
    """
    chunk = asyncio.ensure_future(sending)
    try:
        return await asyncio.shield(chunk)
    except asyncio.CancelledError:
        try:
            await asyncio.wait([chunk], timeout=PARTING_S)
        finally:
            chunk.cancel()
            await asyncio.wait([chunk])
        if not chunk.cancelled() and chunk.exception() is None:
            await take(chunk.result())
        raise


@dataclass(frozen=True, slots=True)
class Uploads:
    """The requests for uploading one thing to a repository (`name`, as the registry calls it).

    `what` stands for it in errors. Every method raises `RegistryError` and its family, and
    `RegistryStateError` where the registry no longer knows the session or lets it go on.
    """

    transport: Transport
    name: str
    what: str

    async def open(self) -> UploadSession:
        """Open a session."""
        url = self.transport.url(f"{self.name}/blobs/uploads/")
        request = Request(
            operation=self._operation("begin to push"),
            method="POST",
            url=url,
            scopes=(push(self.name),),
        )
        async with self.transport.send(request) as response:
            return self._opened(url, response)

    async def mount(self, digest: Digest, lender: str | None) -> UploadSession | None:
        """Get the blob from another repository: None where that is done, else an open session.

        Without a lender it is the registry that looks for one. A refused mount opens an ordinary
        session, which would be left to rot if it was not used.
        """
        query = f"mount={digest}&from={lender}" if lender else f"mount={digest}"
        url = self.transport.url(f"{self.name}/blobs/uploads/?{query}")
        request = Request(
            operation=self._operation("begin to push"),
            method="POST",
            url=url,
            scopes=(push(self.name), *((pull(lender),) if lender not in (None, self.name) else ())),
        )
        async with self.transport.send(request) as response:
            return None if response.status == 201 else self._opened(url, response)

    async def is_held(self, digest: Digest, size: int, name: str) -> bool:
        """Whether a repository of the registry holds the blob and lets us read it."""
        request = Request(
            operation=self._operation("look for", name),
            method="HEAD",
            url=self.transport.url(f"{name}/blobs/{digest}"),
            scopes=(pull(name) if name != self.name else push(name),),
        )
        try:
            return await is_present(self.transport, request, size=size, is_blob=True)
        except RegistryDeniedError:
            return False

    async def ask(self, session: UploadSession) -> UploadSession:
        """Return the session as the registry sees it."""
        request = Request(
            operation=self._operation("go on to push"),
            method="GET",
            url=session.location,
            scopes=(push(self.name),),
            accept=_UNKNOWN_OR_OUT_OF_STEP | _DENIED,
        )
        async with self._send(request) as response:
            if response.status == 416 or "Range" not in response.headers:
                raise self._forgotten(request)
            asked = self._advance(session, response, sent=MAX_OFFSET)
            # Quay says `bytes=`, and here one more than it has. It skips a byte that comes twice.
            if response.headers["Range"].startswith("bytes="):
                return replace(asked, received=max(asked.received - 1, 0))
            return asked

    async def send(
        self, session: UploadSession, content: Body, *, size: int, is_chunk: bool
    ) -> UploadSession:
        """Send what follows the acknowledged bytes and return the session after the answer.

        `content` opens exactly `size` bytes. They are announced if they are a chunk, else streamed.
        The registry may have kept less of it than was sent: `received` says. Raises
        `RegistryTooLargeError` and `RegistryUnsupportedError`.
        """
        start = session.received
        headers: Mapping[str, str] = {}
        if is_chunk:
            headers = {
                "Content-Range": f"{start}-{start + size - 1}",
                "Content-Length": str(size),
            }
        request = Request(
            operation=self._operation("push"),
            method="PATCH",
            url=session.location,
            scopes=(push(self.name),),
            headers={"Content-Type": OCTET_STREAM, **headers},
            content=content,
            accept=_expected(session),
        )
        async with self._send(request) as response:
            if response.status != 416:
                return self._advance(session, response, sent=start + size)
            session = self._advance(session, response, sent=MAX_OFFSET)
        # A 416 may say where it stands, but not all count there as they do elsewhere.
        stated = await self.ask(session)
        if stated.received == start:
            # In step all the same: what was out of range is the size of the chunk.
            raise RegistryTooLargeError(
                "it refuses a chunk of this size (HTTP 416)",
                host=self.transport.registry,
                operation=request.operation,
            )
        return stated

    async def commit(
        self,
        session: UploadSession,
        digest: Digest,
        *,
        size: int,
        content: bytes | Body | None = None,
    ) -> None:
        """End a session that has all `size` bytes, or with `content` all but those.

        Raises `RegistryTooLargeError`.
        """
        length = 0 if content is None else size - session.received
        request = Request(
            operation=self._operation("push"),
            method="PUT",
            url=with_digest(session.location, digest),
            scopes=(push(self.name),),
            headers={"Content-Type": OCTET_STREAM, "Content-Length": str(length)},
            content=content,
            accept=_expected(session),
            idle_s=commit_idle_s(size),
            ends_upload=True,
        )
        async with self._send(request) as response:
            if response.status == 416:
                raise self._forgotten(request)
            stored = response.headers.get("Docker-Content-Digest", digest)
        # Some call content by a digest of their own algorithm, and know it by the other, too.
        same_name = stored.partition(":")[0] == algorithm_of(digest)
        if stored != digest and (same_name or not await self.is_held(digest, size, self.name)):
            raise self.violation(f"it stored {stored[:160]!r} instead")

    def is_from_here(self, session: UploadSession) -> bool:
        """Whether the registry is still where it was when the session was opened."""
        return session.origin == str(self.transport.origin)

    async def cancel(self, session: UploadSession) -> None:
        """Tell the registry that nothing more will come. It need not listen: nothing is raised.

        Many take no such request, or ask for a right that tokens do not give. One that the settings
        name no longer is not talked to.
        """
        if not self.is_from_here(session):
            return
        request = Request(
            operation=self._operation("give up pushing"),
            method="DELETE",
            url=session.location,
            scopes=(push(self.name),),
        )
        with suppress(KitdError, TimeoutError):
            async with asyncio.timeout(CANCEL_S), self.transport.send(request):
                pass

    def violation(self, reason: str) -> RegistryProtocolError:
        """Return the error for an answer that makes no sense."""
        return RegistryProtocolError(
            reason, host=self.transport.registry, operation=self._operation("push")
        )

    @asynccontextmanager
    async def _send(self, request: Request) -> AsyncIterator[ClientResponse]:
        """Send a request to a session, which registries forget after a while."""
        async with self.transport.send(request) as response:
            if response.status == 404 or response.status in _DENIED:
                raise await self._lost(request, response)
            yield response

    async def _lost(self, request: Request, response: ClientResponse) -> RegistryError:
        body = await self.transport.read(
            response, operation=request.operation, max_bytes=MAX_UNKNOWN_BYTES
        )
        messages = parse_error_body(body, response.headers.get("Content-Type", ""))
        if any(message.code == "UNSUPPORTED" for message in messages):
            return RegistryUnsupportedError(
                "it takes no such request (UNSUPPORTED)",
                host=self.transport.registry,
                operation=request.operation,
            )
        if response.status == 404:
            return self._forgotten(request)
        said = "".join(f"{message}; " for message in messages if str(message))
        return self._forgotten(
            request, f"it does not let the upload go on ({said}HTTP {response.status})"
        )

    def _forgotten(
        self, request: Request, reason: str = "it no longer knows the upload"
    ) -> RegistryStateError:
        return RegistryStateError(
            reason,
            host=self.transport.registry,
            operation=request.operation,
        )

    def _opened(self, url: URL, response: ClientResponse) -> UploadSession:
        """Return the session that the answer to a POST opened."""
        session = self._advance(
            UploadSession(url, origin=str(self.transport.origin)), response, sent=0
        )
        if session.location == url:
            raise self.violation("the answer names no upload")
        least = response.headers.get("OCI-Chunk-Min-Length", "")
        return replace(session, least_chunk_bytes=int(least) if _LEAST.fullmatch(least) else 1)

    def _advance(
        self, session: UploadSession, response: ClientResponse, *, sent: int
    ) -> UploadSession:
        """Return the session after an answer; `sent` is the most that can have arrived."""
        location, received = session.location, sent
        if named := response.headers.get("Location"):
            try:
                target = resolve_upload(response.url, named)
            except InvalidLocationError as error:
                raise self.violation(str(error)) from error
            # Some answer a chunk with 201 and where the blob will be: no place to go on.
            if response.status != 201 or _BLOB.search(target.path) is None:
                location = target
        if stated := response.headers.get("Range"):
            parsed = parse_received(stated, sent=sent)
            if parsed is None:
                raise self.violation(f"it claims to have {stated[:80]!r} of {sent} bytes")
            received = parsed
        return replace(session, location=location, received=received)

    def _operation(self, verb: str, name: str | None = None) -> str:
        return f"{verb} {self.what} in {name or self.name}"


def _expected(session: UploadSession) -> frozenset[int]:
    """Return the statuses that say something of a session.

    Who could send to it and no longer can has a Location that was signed for a while; who never
    could lacks a right.
    """
    return _UNKNOWN_OR_OUT_OF_STEP | _DENIED if session.received else _UNKNOWN_OR_OUT_OF_STEP
