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
MAX_FEEDS_EACH = 4
"""To one user: half of the transfers that a registry is asked for at first are left to others."""
RELEASE_S = 2.0
"""How long a transfer from the source waits for the client: then it ends, and another goes on."""
STALL_S = 300.0
"""How long a client may read nothing: it writes to a disk meanwhile, which may be a slow one."""
LENGTH_BYTES = 4

log = structlog.get_logger(__name__)


class LayerFeeds:
    """Sends layers. Made by `layer_feeds`."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        *,
        release_s: float = RELEASE_S,
        stall_s: float = STALL_S,
    ) -> None:
        self._group = group
        self._release_s = release_s
        self._stall_s = stall_s
        self._tasks: dict[asyncio.Task[None], int] = {}
        """With the user that each is for."""

    async def open(self, layer: Descriptor, source: Fetcher, uid: int) -> int:
        """Return a descriptor from which a user can read the layer; the caller closes it.

        Raises `ContentNotFoundError` where nobody is known to have it, and `UnavailableError` where
        too many are read already.
        """
        if not await source.exists(layer):
            raise ContentNotFoundError(
                f"{layer.digest} is not in the cache", hint="pull the kit again"
            )
        if len(self._tasks) >= MAX_FEEDS:
            raise UnavailableError(
                f"{MAX_FEEDS} layers are on their way to those who unpack", hint="try again later"
            )
        if list(self._tasks.values()).count(uid) >= MAX_FEEDS_EACH:
            raise UnavailableError(
                f"{MAX_FEEDS_EACH} layers are on their way to user {uid}", hint="try again later"
            )
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        task = self._group.create_task(self._feed(ours, layer, source))
        self._tasks[task] = uid
        task.add_done_callback(self._tasks.pop)
        return theirs.detach()

    def stop(self) -> None:
        """End all of them."""
        for task in self._tasks:
            task.cancel()

    async def _feed(self, sock: socket.socket, layer: Descriptor, source: Fetcher) -> None:
        with sock:
            try:
                await self._send_end(sock, await self._send_layer(sock, layer, source))
            except _GoneError as gone:
                log.info(gone.event, digest=layer.digest)

    async def _send_layer(
        self, sock: socket.socket, layer: Descriptor, source: Fetcher
    ) -> KitdError | None:
        """Send the content; return what hindered it, if something did. Raises `_GoneError`."""
        position, left = 0, b""
        try:
            while True:
                position, left = await self._send_from(sock, layer, source, position)
                if not left:
                    return None
                # With nothing open meanwhile: a registry gives so many transfers at once to all.
                await self._send_all(sock, left)
        except _GoneError:
            raise
        except KitdError as error:
            log.warning("feed.failed", digest=layer.digest, code=error.code, error=error.message)
            return error
        except Exception as error:  # the boundary: a defect must not take the daemon with it
            log.exception("feed.defect", digest=layer.digest)
            return KitdError(
                f"a defect in kitd: {type(error).__name__}: {error}",
                hint="the log has the details; please report it",
            )

    async def _send_from(
        self, sock: socket.socket, layer: Descriptor, source: Fetcher, position: int
    ) -> tuple[int, bytes]:
        """Send what comes from `position` on, while the client takes it.

        Return how far that is, with what was not taken of the last frame, and nothing at the end.
        """
        async with source.fetch(layer, offset=position) as stream:
            async for chunk in stream:
                position += len(chunk)
                # The frame of an empty one would be the end.
                frame = len(chunk).to_bytes(LENGTH_BYTES) + bytes(chunk) if chunk else b""
                left = frame[await self._send(sock, frame, self._release_s) :]
                if left:
                    return position, left
        return position, b""

    async def _send_end(self, sock: socket.socket, error: KitdError | None) -> None:
        document: dict[str, str | None] = {}
        if error is not None:
            document = {"code": error.code, "message": error.message, "hint": error.hint}
        await self._send_all(sock, bytes(LENGTH_BYTES) + json.dumps(document).encode())

    async def _send_all(self, sock: socket.socket, data: bytes) -> None:
        """Send all of it. Raises `_GoneError`."""
        while data:
            sent = await self._send(sock, data, self._stall_s)
            if not sent:
                raise _GoneError("feed.stalled")
            data = data[sent:]

    async def _send(self, sock: socket.socket, data: bytes, within_s: float) -> int:
        """Send what the client takes in this time; return how much. Raises `_GoneError`."""
        sent = 0
        try:
            async with asyncio.timeout(within_s):
                while sent < len(data):
                    sent += await _send_some(sock, memoryview(data)[sent:])
        except TimeoutError:
            return sent
        except OSError as error:
            # It has left, and knows why.
            raise _GoneError("feed.left") from error
        return sent


class _GoneError(Exception):
    """The client takes nothing more; `event` is what the log calls it."""

    def __init__(self, event: str) -> None:
        super().__init__(event)
        self.event = event


async def _send_some(sock: socket.socket, data: memoryview) -> int:
    """Send what fits; unlike `sock_sendall`, a caller who stops waiting knows what has gone."""
    try:
        return sock.send(data)
    except BlockingIOError:
        loop, writable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_writer(sock, writable.set)
        try:
            await writable.wait()
        finally:
            loop.remove_writer(sock)
        return 0


@asynccontextmanager
async def layer_feeds() -> AsyncIterator[LayerFeeds]:
    """Give what sends layers; all have ended when the context has."""
    async with asyncio.TaskGroup() as group:
        feeds = LayerFeeds(group)
        try:
            yield feeds
        finally:
            feeds.stop()
