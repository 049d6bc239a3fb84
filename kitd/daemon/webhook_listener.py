"""The listener for deliveries, from the first to the last moment of the daemon's other parts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from kitd.blocking import run_blocking
from kitd.config.address import ListenAddress, TcpAddress, UnixAddress
from kitd.rpc.endpoint import bind_endpoint
from kitd.webhooks.server import WebhookServer

OPTION = "webhooks.listen"
SOCKET_MODE = 0o666
"""Senders and their proxies are users of their own; what lets them in is the secret."""


class WebhookListener:
    """Listens where the configuration says, for as long as it runs; None is nowhere."""

    def __init__(self, server: WebhookServer, place: ListenAddress | None) -> None:
        self._server = server
        self._place = place
        self._opened: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Listen until cancelled; deliveries under way get a moment to be answered then.

        Raises `ListenError`, `EndpointError`.
        """
        async with self._listening() as address:
            self._opened.set_result(address)
            await asyncio.get_running_loop().create_future()

    async def opened(self) -> str | None:
        """Return the address, with the port that 0 became, once it is listened on."""
        return await asyncio.shield(self._opened)

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[str | None]:
        match self._place:
            case None:
                yield None
            case TcpAddress() as place:
                async with self._server.listen(place) as listener:
                    host, port = listener.getsockname()[:2]
                    yield str(TcpAddress(host, port))
            case UnixAddress(path=path) as place:
                bind = partial(bind_endpoint, path, mode=SOCKET_MODE, option=OPTION)
                endpoint = await run_blocking(bind)
                try:
                    async with self._server.listen(endpoint.listener):
                        yield str(place)
                finally:
                    endpoint.close()
