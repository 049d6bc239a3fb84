"""Layers that are not in the cache, on their way to whoever unpacks them: with no copy here.

A client gets one end of a socket pair and reads the layer from it, once, while it comes from the
registry. It is sent in frames: four bytes of length, most significant first, and so many bytes. A
length of zero ends the layer; what follows it is a JSON object, empty if all was sent, else the
error with `code`, `message` and `hint`. An end without that is an end of kitd. Nothing is verified
here: the client does that, with all that comes from the cache as well.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from kitd.content.store import ContentNotFoundError, Fetcher
from kitd.errors import KitdError, UnavailableError
from kitd.oci.descriptor import Descriptor

MAX_FEEDS = 32
"""Layers that are sent at once, to all clients."""
STALL_S = 300.0
"""How long a client may read nothing: it writes to a disk meanwhile, which may be a slow one."""
LENGTH_BYTES = 4

log = structlog.get_logger(__name__)


class LayerFeeds:
    """Sends layers from a source. Made by `layer_feeds`."""

    def __init__(
        self, group: asyncio.TaskGroup, source: Fetcher, *, stall_s: float = STALL_S
    ) -> None:
        self._group = group
        self._source = source
        self._stall_s = stall_s
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, layer: Descriptor) -> int:
        """Return a descriptor from which the layer can be read; the caller closes it.

        Raises `ContentNotFoundError` where nobody is known to have it, and `UnavailableError` where
        too many are read already.
        """
        if not await self._source.exists(layer):
            raise ContentNotFoundError(
                f"{layer.digest} is not in the cache", hint="pull the kit again"
            )
        if len(self._tasks) >= MAX_FEEDS:
            raise UnavailableError(
                f"{MAX_FEEDS} layers are on their way to those who unpack", hint="try again later"
            )
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        task = self._group.create_task(self._feed(ours, layer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return theirs.detach()

    def stop(self) -> None:
        """End all of them."""
        for task in self._tasks:
            task.cancel()

    async def _feed(self, sock: socket.socket, layer: Descriptor) -> None:
        with sock:
            try:
                await self._send_end(sock, await self._send_layer(sock, layer))
            except TimeoutError:
                log.info("feed.stalled", digest=layer.digest, after_s=self._stall_s)
            except OSError:
                # The client has gone, and knows why.
                log.debug("feed.left", digest=layer.digest)

    async def _send_layer(self, sock: socket.socket, layer: Descriptor) -> KitdError | None:
        """Send the content; return what hindered it, if something did. Raises `OSError`."""
        try:
            async with self._source.fetch(layer) as stream:
                async for chunk in stream:
                    await self._send(sock, len(chunk).to_bytes(LENGTH_BYTES))
                    await self._send(sock, chunk)
        except KitdError as error:
            log.warning("feed.failed", digest=layer.digest, code=error.code, error=error.message)
            return error
        return None

    async def _send_end(self, sock: socket.socket, error: KitdError | None) -> None:
        document: dict[str, str | None] = {}
        if error is not None:
            document = {"code": error.code, "message": error.message, "hint": error.hint}
        await self._send(sock, bytes(LENGTH_BYTES) + json.dumps(document).encode())

    async def _send(self, sock: socket.socket, data: bytes | bytearray | memoryview) -> None:
        async with asyncio.timeout(self._stall_s):
            await asyncio.get_running_loop().sock_sendall(sock, data)


@asynccontextmanager
async def layer_feeds(source: Fetcher) -> AsyncIterator[LayerFeeds]:
    """Give what sends layers of a source; all have ended when the context has."""
    async with asyncio.TaskGroup() as group:
        feeds = LayerFeeds(group, source)
        try:
            yield feeds
        finally:
            feeds.stop()
