"""Blobs and their uploads (OCI distribution spec, end-2, end-4 to end-6, end-10, end-11, end-13).

Blobs are not deleted here: the cache is shared by all kits, and what nothing names any more is
collected. `DELETE` of a blob is therefore unsupported, as the specification allows. A client that
was told that a blob is here has a while to push the manifest that needs it.
"""

import os
from contextlib import suppress

from aiohttp import hdrs, web

from kitd.blocking import run_blocking
from kitd.content.store import ContentNotFoundError, MismatchError
from kitd.gateway.body import send_file, stream_body
from kitd.gateway.byte_range import (
    ByteRange,
    InvalidRangeError,
    UnsatisfiableRangeError,
    parse_content_range,
    parse_range,
)
from kitd.gateway.naming import repository_of
from kitd.gateway.refusal import ErrorCode, RefusedError
from kitd.gateway.upload import UploadLengthError, UploadOffsetError, UploadSessions
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest, parse_digest
from kitd.oci.media_type import OCTET_STREAM
from kitd.store.blob_store import BlobStore, StoreError
from kitd.store.lease import LeaseBook

ALGORITHMS = frozenset({"sha256", "sha384", "sha512"})


PROMISE_S = 3600.0
"""For how long a blob stays that a client was told of: kits are large, and uploads slow."""


class BlobEndpoint:
    """Answers requests for blobs and uploads."""

    def __init__(self, store: BlobStore, uploads: UploadSessions, leases: LeaseBook) -> None:
        self._store = store
        self._uploads = uploads
        self._leases = leases

    async def read(self, request: web.Request) -> web.StreamResponse:
        """Answer GET and HEAD of a blob, whole or in part."""
        repository_of(request.match_info["name"])
        digest = parse_digest(request.match_info["digest"])
        if request.method == hdrs.METH_HEAD:
            # Who asks may be about to push; a disk that takes nothing is no reason not to answer.
            with suppress(StoreError):
                await self._promise(digest)
        handle, size_bytes = self._open(digest)
        try:
            response = web.StreamResponse(
                headers={
                    hdrs.CONTENT_TYPE: OCTET_STREAM,
                    hdrs.ACCEPT_RANGES: "bytes",
                    "Docker-Content-Digest": digest,
                }
            )
            if request.method == hdrs.METH_HEAD:
                response.content_length = size_bytes
                return response
            part = _part(request, size_bytes)
            if part is None:
                part = ByteRange(0, size_bytes)
            else:
                response.set_status(206)
                last = part.end - 1
                response.headers[hdrs.CONTENT_RANGE] = f"bytes {part.start}-{last}/{size_bytes}"
            await send_file(request, response, handle, part)
            return response
        finally:
            os.close(handle)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Refuse to delete a blob: other kits may share it."""
        raise RefusedError(
            405,
            ErrorCode.UNSUPPORTED,
            f"blobs are shared and collected, not deleted: {request.match_info['digest'][:160]}",
            headers={hdrs.ALLOW: "GET, HEAD"},
        )

    async def begin(self, request: web.Request) -> web.StreamResponse:
        """Answer POST: mount a blob, take a whole one, or open an upload session."""
        name = request.match_info["name"]
        repository_of(name)
        if "mount" in request.query:
            digest = parse_digest(request.query["mount"])
            # Whichever repository it came from: what the cache holds is everybody's.
            if await self._promise(digest):
                return _created(name, digest)
        elif "digest" in request.query:
            digest = parse_digest(request.query["digest"])
            await self._promise(digest)
            try:
                await self._uploads.receive(digest, stream_body(request))
            except MismatchError as error:
                raise RefusedError(400, ErrorCode.DIGEST_INVALID, error.message) from error
            return _created(name, digest)
        session = await self._uploads.begin(_algorithm(request.query.get("digest-algorithm")))
        return web.Response(status=202, headers=_status_headers(name, session, 0))

    async def append(self, request: web.Request) -> web.StreamResponse:
        """Answer PATCH: one chunk, or a stream of unknown length."""
        name, session = _session(request)
        chunk = await self._chunk(request, name, session)
        try:
            offset = await self._uploads.append(session, stream_body(request), chunk)
        except UploadOffsetError as error:
            raise _out_of_order(error, name, session) from error
        return web.Response(status=202, headers=_status_headers(name, session, offset))

    async def finish(self, request: web.Request) -> web.StreamResponse:
        """Answer PUT: the last chunk, if there is one, and the digest of the whole."""
        name, session = _session(request)
        digest = parse_digest(request.query.get("digest", ""))
        chunk = await self._chunk(request, name, session)
        await self._promise(digest)
        try:
            await self._uploads.finish(session, digest, stream_body(request), chunk)
        except UploadOffsetError as error:
            raise _out_of_order(error, name, session) from error
        except MismatchError as error:
            raise RefusedError(400, ErrorCode.DIGEST_INVALID, error.message) from error
        return _created(name, digest)

    async def status(self, request: web.Request) -> web.StreamResponse:
        """Answer GET of an upload: where to go on."""
        name, session = _session(request)
        offset = await self._uploads.offset(session)
        return web.Response(status=204, headers=_status_headers(name, session, offset))

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """Answer DELETE of an upload."""
        _, session = _session(request)
        await self._uploads.cancel(session)
        return web.Response(status=204)

    async def _chunk(self, request: web.Request, name: str, session: str) -> ByteRange | None:
        """Return where the body belongs, or None where it follows what there is."""
        try:
            chunk = parse_content_range(request.headers.get(hdrs.CONTENT_RANGE))
        except InvalidRangeError as error:
            offset = await self._uploads.offset(session)
            raise RefusedError(
                416,
                ErrorCode.BLOB_UPLOAD_INVALID,
                error.message,
                headers=_status_headers(name, session, offset),
            ) from error
        if chunk and request.content_length not in (None, chunk.length_bytes):
            raise UploadLengthError(
                f"Content-Range has {chunk.length_bytes} bytes, "
                f"Content-Length {request.content_length}"
            )
        return chunk

    async def _promise(self, digest: Digest) -> bool:
        """Keep a blob for the manifest that will need it; whether it is here."""
        await self._leases.promise(digest, PROMISE_S)
        # The file's time is what is left of the promise when kitd starts again.
        return await run_blocking(self._store.touch, digest)

    def _open(self, digest: Digest) -> tuple[int, int]:
        size_bytes = self._store.size_of(digest)
        if size_bytes is None:
            raise RefusedError(404, ErrorCode.BLOB_UNKNOWN, f"no blob {digest} is here")
        try:
            return self._store.open(Descriptor(OCTET_STREAM, digest, size_bytes)), size_bytes
        except ContentNotFoundError as error:
            raise RefusedError(404, ErrorCode.BLOB_UNKNOWN, error.message) from error


def _part(request: web.Request, size_bytes: int) -> ByteRange | None:
    # If-Range names a validator, and these responses have none: the whole is the right answer.
    if hdrs.IF_RANGE in request.headers:
        return None
    try:
        return parse_range(request.headers.get(hdrs.RANGE), size_bytes)
    except UnsatisfiableRangeError as error:
        raise RefusedError(
            416,
            ErrorCode.SIZE_INVALID,
            error.message,
            headers={hdrs.CONTENT_RANGE: f"bytes */{size_bytes}"},
        ) from error


def _session(request: web.Request) -> tuple[str, str]:
    name = request.match_info["name"]
    repository_of(name)
    return name, request.match_info["session"]


def _algorithm(text: str | None) -> str:
    if text is None:
        return "sha256"
    if text not in ALGORITHMS:
        raise RefusedError(
            400, ErrorCode.DIGEST_INVALID, f"the digest algorithm {text[:40]!r} is not supported"
        )
    return text


def _created(name: str, digest: Digest) -> web.Response:
    headers = {hdrs.LOCATION: f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest}
    return web.Response(status=201, headers=headers)


def _status_headers(name: str, session: str, offset: int) -> dict[str, str]:
    """Return what tells a client where its upload is.

    An inclusive range cannot be empty: `0-0` stands for nothing as well as for one byte, as in
    every registry.
    """
    return {
        hdrs.LOCATION: f"/v2/{name}/blobs/uploads/{session}",
        hdrs.RANGE: f"0-{max(0, offset - 1)}",
        "Docker-Upload-UUID": session,
    }


def _out_of_order(error: UploadOffsetError, name: str, session: str) -> RefusedError:
    return RefusedError(
        416,
        ErrorCode.BLOB_UPLOAD_INVALID,
        error.message,
        headers=_status_headers(name, session, error.offset),
    )
