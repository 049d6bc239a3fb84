"""The gateway's listener: from a socket that answers to a stop that loses no upload."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from kitd.errors import KitdError
from kitd.gateway.application import make_application
from kitd.gateway.catalog import Catalog
from kitd.gateway.upload import UploadSessions
from kitd.store.blob_store import BlobStore

SWEEP_INTERVAL_S = 3600.0
DRAIN_S = 5.0
"""What requests under way get to end by themselves; an upload goes on after a restart."""
CLOSE_S = 1.0
"""What is left of them gets to notice that it is over."""
KEEPALIVE_S = 75.0
READ_BYTES = 1 << 18
"""Received bytes that wait for their handler, per connection."""

log = structlog.get_logger(__name__)


class ListenError(KitdError):
    """The address of the registry cannot be listened on."""

    code = "cannot_listen"


class _Traffic:
    """Counts the requests under way, so that a stop can wait for them.

    aiohttp waits as well, but drops what still arrives meanwhile, and with it every upload.
    """

    def __init__(self) -> None:
        self._under_way = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    @web.middleware
    async def count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Handle a request, counted."""
        self._under_way += 1
        self._quiet.clear()
        try:
            return await handler(request)
        finally:
            self._under_way -= 1
            if self._under_way == 0:
                self._quiet.set()

    async def drain(self, timeout_s: float) -> None:
        """Wait until no request is under way, or `timeout_s` have passed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._quiet.wait()


class Gateway:
    """kitd's own registry over one blob cache and one catalog."""

    def __init__(self, store: BlobStore, catalog: Catalog, *, writable: bool = True) -> None:
        self._store = store
        self._catalog = catalog
        self._writable = writable

    @asynccontextmanager
    async def listen(self, host: str, port: int) -> AsyncIterator[tuple[str, int]]:
        """Serve until the context is left; gives the address, with the port that 0 became.

        Leaving stops gracefully: no new connections, `DRAIN_S` for the requests under way, and
        uploads stay for the next start. Raises `ListenError`, `StoreError`.
        """
        uploads = UploadSessions(self._store)
        await uploads.recover()
        traffic = _Traffic()
        application = make_application(self._store, self._catalog, uploads, writable=self._writable)
        application.middlewares.insert(0, traffic.count)
        runner = web.AppRunner(
            application,
            access_log=None,
            # The digest is of the bytes on the wire, whatever Content-Encoding says of them.
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE_S,
            read_bufsize=READ_BYTES,
            shutdown_timeout=CLOSE_S,
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port)
            address = await _start(runner, site, f"{host}:{port}")
            sweeper = asyncio.create_task(_sweep(uploads), name="gateway upload sweeper")
            try:
                yield address
            finally:
                sweeper.cancel()
                await asyncio.wait([sweeper])
                await site.stop()
                await traffic.drain(DRAIN_S)
        finally:
            await runner.cleanup()
            await uploads.suspend()


async def _start(runner: web.AppRunner, site: web.TCPSite, where: str) -> tuple[str, int]:
    try:
        await site.start()
    except OSError as error:
        raise ListenError(
            f"cannot listen on {where}: {error.strerror or error}",
            hint="choose another address for registry.listen",
        ) from error
    bound: tuple[str, int] = runner.addresses[0][:2]
    log.info("registry.listening", host=bound[0], port=bound[1])
    return bound


async def _sweep(uploads: UploadSessions) -> None:
    while True:
        try:
            await uploads.sweep()
        except KitdError as error:
            log.warning("registry.upload_sweep_failed", code=error.code, reason=error.message)
        await asyncio.sleep(SWEEP_INTERVAL_S)
