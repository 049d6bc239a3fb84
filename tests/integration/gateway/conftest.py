"""A gateway on a free loopback port, and clients that know nothing of its inside."""

from contextlib import asynccontextmanager

import aiohttp
import pytest

from kitd.clock import SystemClock
from kitd.gateway.server import Gateway
from kitd.ledger.catalog import Catalog
from kitd.ledger.database import Database
from kitd.store.blob_store import BlobStore


async def no_kit(_manifest):
    """Summarise manifests as those of anything but kits."""


@pytest.fixture
async def catalog(tmp_path):
    async with Database(tmp_path / "ledger.db") as database:
        yield Catalog(database, SystemClock(), no_kit)


@pytest.fixture
def store(tmp_path):
    store = BlobStore(tmp_path / "cache")
    store.create()
    return store


@pytest.fixture
def listen(store, catalog):
    """Return a function that serves the store and gives a client with the base URL set."""

    @asynccontextmanager
    async def listen(*, store=store, writable=True):
        gateway = Gateway(store, catalog, writable=writable)
        async with gateway.listen("127.0.0.1", 0) as (host, port):
            base = f"http://{host}:{port}"
            async with aiohttp.ClientSession(base, auto_decompress=False) as client:
                yield client

    return listen


@pytest.fixture
async def client(listen):
    async with listen() as client:
        yield client
