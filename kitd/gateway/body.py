"""Bodies of requests and responses; no wait for a client is without a deadline."""

import asyncio
import os
from typing import IO

import structlog
from aiohttp import web

from kitd.content.store import ByteStream
from kitd.gateway.byte_range import ByteRange
from kitd.gateway.refusal import ErrorCode, RefusedError

STALL_S = 60.0
"""A client that neither sends nor takes anything for so long is gone."""
SEGMENT_BYTES = 4 << 20
"""What a client has to take within `STALL_S`: 70 kB a second."""

log = structlog.get_logger(__name__)


async def stream_body(request: web.Request) -> ByteStream:
    """Yield what the client sends. Raises `RefusedError` once it stalls or breaks off."""
    while True:
        try:
            async with asyncio.timeout(STALL_S):
                data = await request.content.readany()
        except TimeoutError:
            raise RefusedError(
                408, ErrorCode.BLOB_UPLOAD_INVALID, f"nothing came for {STALL_S:.0f} seconds"
            ) from None
        except (ConnectionError, web.RequestPayloadError) as error:
            raise RefusedError(
                400, ErrorCode.BLOB_UPLOAD_INVALID, "the body of the request broke off"
            ) from error
        if not data:
            return
        yield data


async def read_body(request: web.Request, *, max_bytes: int) -> bytes:
    """Return a small body. Raises `RefusedError`, with status 413 beyond `max_bytes`."""
    too_large = RefusedError(
        413, ErrorCode.SIZE_INVALID, f"the document has more than {max_bytes} bytes"
    )
    if (request.content_length or 0) > max_bytes:
        raise too_large
    content = bytearray()
    async for data in stream_body(request):
        content += data
        if len(content) > max_bytes:
            raise too_large
    return bytes(content)


async def send_file(
    request: web.Request, response: web.StreamResponse, handle: int, part: ByteRange
) -> None:
    """Answer with `part` of an open file, without its bytes passing through this process.

    Raises `ConnectionError` once the client is gone; the response cannot be saved then.
    """
    response.content_length = part.length_bytes
    await response.prepare(request)
    offset = part.start
    try:
        with os.fdopen(handle, "rb", buffering=0, closefd=False) as file:
            while offset < part.end:
                count = min(SEGMENT_BYTES, part.end - offset)
                offset += await _send_segment(request.transport, file, offset, count)
    except (OSError, EOFError) as error:
        reason = str(error)
        log.info("registry.download_broke_off", path=request.path, at_byte=offset, reason=reason)
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the response could not be completed") from error
    await response.write_eof()


async def _send_segment(
    transport: asyncio.Transport | None, file: IO[bytes], offset: int, count: int
) -> int:
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client is gone")
    async with asyncio.timeout(STALL_S):
        sent = await asyncio.get_running_loop().sendfile(transport, file, offset, count)
    if sent == 0:
        raise EOFError("the file became shorter")
    return sent
