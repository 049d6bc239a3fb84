"""A receiver behind real HTTP and before a real ledger, and a format that says what it is told."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from kitd.config.address import TcpAddress
from kitd.config.model import WebhooksConfig, WebhookSourceConfig
from kitd.daemon.delivery_desk import DeliveryDesk, Sources
from kitd.ledger.database import Database
from kitd.ledger.delivery_ledger import DeliveryLedger
from kitd.ledger.job_ledger import JobLedger
from kitd.secret import Secrets
from kitd.webhooks.receiver import Receiver
from kitd.webhooks.refusal import Refusals
from kitd.webhooks.server import BodyBounds, WebhookServer
from told import REGISTRY, SECRET, Told, follow, is_read, signed


class ManualClock:
    """A clock with hands."""

    def __init__(self):
        self.at_us = 1_700_000_000_000_000

    def now_us(self):
        return self.at_us

    def monotonic_s(self):
        return self.at_us / 1_000_000

    def advance(self, delay_s):
        self.at_us += int(delay_s * 1_000_000)


@dataclass
class Post:
    """A receiver that listens, all around it, and a client that talks to it."""

    server: WebhookServer
    desk: DeliveryDesk
    client: aiohttp.ClientSession
    host: str
    port: int

    async def send(self, body: bytes, source: str = "one", path: str = "", **headers):
        """Send a signed delivery; return status and body of the answer."""
        return await self.ask("POST", f"/hooks/{source}{path}", body, signed(body, **headers))

    async def ask(self, method, path, body=None, headers=None):
        async with self.client.request(method, path, data=body, headers=headers) as response:
            return response.status, await response.read()

    async def raw(self, sent: bytes) -> bytes:
        """Send bytes, and return all that comes until the other end closes."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        writer.write(sent)
        try:
            async with asyncio.timeout(20):
                return await reader.read()
        finally:
            writer.close()


@dataclass
class Parts:
    """What a receiver is made of here."""

    clock: ManualClock = field(default_factory=ManualClock)
    form: Told = field(default_factory=Told)
    sources: dict[str, WebhookSourceConfig] = field(default_factory=dict)
    secrets: Secrets = field(default_factory=Secrets)


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(SECRET + b"\n")
    return path


@pytest.fixture
def parts(secret_file) -> Parts:
    parts = Parts()
    for name in ("one", "two"):
        parts.sources[name] = WebhookSourceConfig(
            format="told", registry=REGISTRY, secret_file=secret_file
        )
    return parts


@pytest.fixture
async def database(tmp_path):
    async with Database(tmp_path / "ledger.sqlite3") as database:
        yield database


@pytest.fixture
def deliveries(database, parts) -> DeliveryLedger:
    return DeliveryLedger(database, parts.clock, JobLedger(database, parts.clock, epoch=1))


@pytest.fixture
def desk(deliveries, parts) -> DeliveryDesk:
    sources = Sources(lambda: WebhooksConfig(sources=parts.sources), {"told": parts.form})
    return DeliveryDesk(deliveries, sources, follow, is_read, Refusals())


@pytest.fixture
def listen(desk, parts) -> Callable[..., object]:
    """Return what opens a receiver, with bounds of its own if need be."""

    @asynccontextmanager
    async def listen(**bounds):
        server = WebhookServer(Receiver(desk, parts.clock, parts.secrets), BodyBounds(**bounds))
        async with server.listen(TcpAddress("127.0.0.1", 0)) as listener:
            host, port = listener.getsockname()[:2]
            connector = aiohttp.TCPConnector(limit=0)
            base = f"http://{host}:{port}"
            async with aiohttp.ClientSession(base, connector=connector) as client:
                yield Post(server, desk, client, host, port)

    return listen


@pytest.fixture
async def post(listen) -> Post:
    async with listen() as post:
        yield post


@pytest.fixture
def sql(database) -> Callable[..., list[tuple]]:
    """Look at the file the way a person with `sqlite3` does."""

    def sql(statement: str, *parameters: object) -> list[tuple]:
        with closing(sqlite3.connect(database.path)) as connection, connection:
            return connection.execute(statement, parameters).fetchall()

    return sql
