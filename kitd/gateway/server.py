"""The gateway's listener: from a socket that answers to a stop that loses no upload."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from kitd.errors import KitdError
from kitd.gateway.application import Fatal, make_application
from kitd.gateway.catalog import Catalog
from kitd.gateway.upload import UploadSessions
from kitd.store.blob_store import BlobStore
from kitd.store.lease import LeaseBook

SWEEP_INTERVAL_S = 3600.0
DRAIN_S = 5.0
"""What requests under way get to end by themselves; an upload goes on after a restart."""
CLOSE_S = 1.0
"""What is left of them gets to notice that it is over."""
KEEPALIVE_S = 75.0
READ_BYTES = 1 << 18
"""Received bytes that wait for their handler, per connection."""
MAX_CONNECTIONS = 128
"""At once; a client has a handful. Each takes a descriptor, which all of kitd has to share."""

log = structlog.get_logger(__name__)


class ListenError(KitdError):
    """The address of the registry cannot be listened on."""

    code = "cannot_listen"


class _OwnFaults(logging.Filter):
    """Keeps out of the log what is wrong with a request: its client is told, others need not be."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record of aiohttp's tells of more than bytes that are not HTTP."""
        return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


_aiohttp_log = logging.getLogger("aiohttp.server")
_aiohttp_log.addFilter(_OwnFaults())


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


class _TurnedAway(asyncio.Protocol):
    """A connection there is no place for: it ends before a byte is read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


class Gateway:
    """kitd's own registry over one blob cache and one catalog.

    `leases` are those of whoever else works with the cache. `fatal` is told of an error after which
    nothing that is written can be relied on; its request is answered all the same.
    """

    def __init__(
        self,
        store: BlobStore,
        catalog: Catalog,
        leases: LeaseBook | None = None,
        *,
        writable: bool = True,
        fatal: Fatal = lambda _error: None,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._leases = leases or LeaseBook()
        self._writable = writable
        self._fatal = fatal

    @asynccontextmanager
    async def listen(self, host: str, port: int) -> AsyncIterator[tuple[str, int]]:
        """Serve until the context is left; gives the address, with the port that 0 became.

        Leaving stops gracefully: no new connections, `DRAIN_S` for the requests under way, and
        uploads stay for the next start. Raises `ListenError`, `StoreError`.
        """
        uploads = UploadSessions(self._store)
        await uploads.recover()
        traffic = _Traffic()
        application = make_application(
            self._store,
            self._catalog,
            uploads,
            self._leases,
            writable=self._writable,
            fatal=self._fatal,
        )
        application.middlewares.insert(0, traffic.count)
        runner = web.AppRunner(
            application,
            access_log=None,
            logger=_aiohttp_log,
            # The digest is of the bytes on the wire, whatever Content-Encoding says of them.
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE_S,
            read_bufsize=READ_BYTES,
            shutdown_timeout=CLOSE_S,
        )
        await runner.setup()
        try:
            server = await _start(runner, host, port)
            bound: tuple[str, int] = server.sockets[0].getsockname()[:2]
            log.info("registry.listening", host=bound[0], port=bound[1])
            sweeper = asyncio.create_task(_sweep(uploads), name="gateway upload sweeper")
            try:
                yield bound
            finally:
                sweeper.cancel()
                await asyncio.wait([sweeper])
                server.close()
                await traffic.drain(DRAIN_S)
        finally:
            await runner.cleanup()
            await uploads.suspend()


async def _start(runner: web.AppRunner, host: str, port: int) -> asyncio.Server:
    requests = runner.server
    assert requests is not None

    def admit() -> asyncio.Protocol:
        has_place = len(requests.connections) < MAX_CONNECTIONS
        return requests() if has_place else _TurnedAway()

    try:
        return await asyncio.get_running_loop().create_server(admit, host, port)
    except OSError as error:
        raise ListenError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            hint="choose another address for registry.listen",
        ) from error


async def _sweep(uploads: UploadSessions) -> None:
    while True:
        try:
            await uploads.sweep()
        except KitdError as error:
            log.warning("registry.upload_sweep_failed", code=error.code, reason=error.message)
        await asyncio.sleep(SWEEP_INTERVAL_S)
