"""The gateway's listener: from a socket that answers to a stop that loses no upload."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from kitd.config.address import TcpAddress
from kitd.errors import KitdError
from kitd.gateway.application import Fatal, make_application
from kitd.gateway.catalog import Catalog
from kitd.gateway.upload import UploadSessions
from kitd.listener import Bounds, listening
from kitd.store.blob_store import BlobStore
from kitd.store.lease import LeaseBook

SWEEP_INTERVAL_S = 3600.0
MAX_CONNECTIONS = 128
"""At once; a client has a handful."""
BOUNDS = Bounds(connections=MAX_CONNECTIONS, keepalive_s=75.0, read_bytes=1 << 18)

log = structlog.get_logger(__name__)


class Gateway:
    """kitd's own registry over one blob cache and one catalog.

    `leases` are those of whoever else works with the cache. `fatal` is told of an error after which
    nothing that is written can be relied on; its request is answered all the same. `answers` counts
    by class of status.
    """

    def __init__(
        self,
        store: BlobStore,
        catalog: Catalog,
        leases: LeaseBook | None = None,
        *,
        writable: bool = True,
        fatal: Fatal = lambda _error: None,
        answers: Counter[str] | None = None,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._leases = leases or LeaseBook()
        self._writable = writable
        self._fatal = fatal
        self._answers = answers

    @asynccontextmanager
    async def listen(self, host: str, port: int) -> AsyncIterator[tuple[str, int]]:
        """Serve until the context is left; gives the address, with the port that 0 became.

        Leaving stops gracefully: no new connections, five seconds for the requests under way,
        and uploads stay for the next start. Raises `ListenError`, `StoreError`.
        """
        uploads = UploadSessions(self._store)
        await uploads.recover()
        application = make_application(
            self._store,
            self._catalog,
            uploads,
            self._leases,
            writable=self._writable,
            fatal=self._fatal,
        )
        address = TcpAddress(host, port)
        try:
            async with listening(
                application, address, BOUNDS, option="registry.listen", answers=self._answers
            ) as server:
                bound: tuple[str, int] = server.getsockname()[:2]
                log.info("registry.listening", host=bound[0], port=bound[1])
                sweeper = asyncio.create_task(_sweep(uploads), name="gateway upload sweeper")
                try:
                    yield bound
                finally:
                    sweeper.cancel()
                    await asyncio.wait([sweeper])
        finally:
            await uploads.suspend()


async def _sweep(uploads: UploadSessions) -> None:
    while True:
        try:
            await uploads.sweep()
        except KitdError as error:
            log.warning("registry.upload_sweep_failed", code=error.code, reason=error.message)
        await asyncio.sleep(SWEEP_INTERVAL_S)
