"""A fault registry in the loop of a test."""

from pathlib import Path
from typing import Self

from aiohttp import web

from fault_registry.application import Registry
from fault_registry.quirks import Quirks
from fault_registry.storage import Storage

PATIENCE_S = 0.2
"""How long requests may go on once the registry is closed."""


class FaultRegistry(Registry):
    """Listens on loopback while it is entered; `host` is what references begin with."""

    def __init__(self, root: Path, quirks: Quirks | None = None) -> None:
        super().__init__(Storage(root), quirks or Quirks())
        self.root = root
        self.host = ""

    async def listen(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Begin to answer."""
        self._runner = web.AppRunner(
            self.application(), access_log=None, shutdown_timeout=PATIENCE_S
        )
        await self._runner.setup()
        for number in (port, 0):
            await web.TCPSite(self._runner, host, number).start()
        addresses = [f"{address[0]}:{address[1]}" for address in self._runner.addresses]
        self.host, self.storage_host = addresses

    async def close(self) -> None:
        """Answer no more."""
        await self._runner.cleanup()
        self.storage.close()

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
