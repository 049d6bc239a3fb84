"""Uploads in the ledger: a daemon that died goes on with them, and gives up what nobody wants."""

import os
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from kitd.clock import SystemClock
from kitd.daemon.transfer_keeper import AT_ONCE, give_up_stale
from kitd.daemon.transfer_memory import LedgerMemory
from kitd.errors import KitdError
from kitd.ledger.database import Database
from kitd.ledger.transfer_ledger import GIVEN_UP_US, OpenUpload, TransferLedger
from kitd.oci.descriptor import describe
from kitd.oci.reference import Repository
from kitd.registry.client import RegistryClient
from kitd.registry.profile import Lessons
from kitd.registry.settings import PasswordFile, RegistrySettings, UploadMode
from kitd.registry.transport import Surroundings
from kitd.registry.upload_session import UploadSession
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent

CHUNK = 128 * 1024
SIZE = 10 * CHUNK
LOCATION = "http://127.0.0.1/v2/a/b/blobs/uploads/1?_state=a%2Fb%3D%25&x=%C3%A9"


class SourceLostError(KitdError):
    """The source of an upload is gone for now."""

    code = "source_lost"


class Source:
    """A cache that notes where it is read from, and gives nothing from `end` on."""

    def __init__(self, cache, end=SIZE):
        self.cache, self.end, self.offsets = cache, end, []
        self.exists = cache.exists

    @asynccontextmanager
    async def fetch(self, target, *, offset=0):
        if offset >= self.end:
            raise SourceLostError("gone")
        self.offsets.append(offset)
        async with self.cache.fetch(target, offset=offset) as stream:
            yield stream


@pytest.fixture
def life(tmp_path):
    """Open the ledger, and a client that remembers in it, as each life of the daemon does."""

    @asynccontextmanager
    async def life(**more):
        settings = RegistrySettings(upload_mode=UploadMode.CHUNKED, chunk_bytes=CHUNK, **more)
        async with Database(tmp_path / "ledger.sqlite3") as database:
            ledger = TransferLedger(database, SystemClock())
            async with RegistryClient(
                lambda _: settings, Surroundings(), LedgerMemory(ledger)
            ) as client:
                yield ledger, client

    return life


@pytest.fixture
def cache(tmp_path):
    store = BlobStore(tmp_path / "cache")
    store.create()
    return CacheContent(store)


@pytest.fixture
def blob(cache, tmp_path):
    content = os.urandom(SIZE)
    BlobStore(tmp_path / "cache").put(content)
    return describe("application/octet-stream", content)


async def test_a_session_comes_back_letter_by_letter(life):
    session = UploadSession(URL(LOCATION, encoded=True), 3, 5, "http://127.0.0.1")
    repository = Repository("127.0.0.1", "a/b")
    async with life() as (ledger, _):
        await LedgerMemory(ledger).remember(repository, "layer:x", session)
    async with life() as (ledger, _):
        recalled = await LedgerMemory(ledger).recall(repository, "layer:x")
        assert recalled == session
        assert str(recalled.location) == LOCATION
        await LedgerMemory(ledger).forget(repository, "layer:x")
        assert await LedgerMemory(ledger).recall(repository, "layer:x") is None


async def test_a_lesson_comes_back(life):
    lessons = Lessons(takes_chunks=False, chunk_bytes=7, refused_bytes=None)
    async with life() as (ledger, _):
        await LedgerMemory(ledger).learn("r.example", lessons)
    async with life() as (ledger, _):
        assert await LedgerMemory(ledger).lessons("r.example") == lessons
        assert await LedgerMemory(ledger).lessons("other.example") is None


async def test_the_next_life_sends_what_the_last_did_not(life, docker_registry, cache, blob):
    repository = Repository(docker_registry.host, "team/model")
    async with life() as (_, client):
        with pytest.raises(SourceLostError):
            await (await client.repository(repository)).push(blob, Source(cache, 6 * CHUNK))
    async with life() as (ledger, client):
        source = Source(cache)
        remote = await client.repository(repository)
        assert await remote.push(blob, source) == SIZE - 6 * CHUNK
        assert source.offsets == [count * CHUNK for count in range(6, 10)]
        assert await remote.exists(blob)
        assert await ledger.upload(repository, blob.digest) is None


def uploads_of(registry):
    return list(registry.root.rglob("_uploads/*/data"))


async def test_what_nobody_went_on_with_is_given_up(life, docker_registry, cache, blob, tmp_path):
    repository = Repository(docker_registry.host, "team/model")
    async with life() as (_, client):
        with pytest.raises(SourceLostError):
            await (await client.repository(repository)).push(blob, Source(cache, 6 * CHUNK))
    async with life() as (ledger, client):
        assert await give_up_stale(ledger, client) == 0
        assert len(uploads_of(docker_registry)) == 1
        upload = await ledger.upload(repository, blob.digest)
        past = TransferLedger(ledger._database, Past())
        await past.record_upload(repository, blob.digest, upload)
        assert await give_up_stale(ledger, client) == 1
        assert uploads_of(docker_registry) == []
        assert await give_up_stale(ledger, client) == 0


class Past(SystemClock):
    """A clock of the time at which today's stale uploads were last heard of."""

    def now_us(self):
        return super().now_us() - GIVEN_UP_US


async def test_all_that_is_stale_is_given_up_at_once(life, free_address):
    upload = OpenUpload("http://elsewhere.example/u", "http://elsewhere.example", 0, 1)
    async with life() as (ledger, client):
        past = TransferLedger(ledger._database, Past())
        for number in range(AT_ONCE + 1):
            await past.record_upload(Repository(free_address, "a/b"), str(number), upload)
        assert await give_up_stale(ledger, client) == AT_ONCE + 1
        assert await ledger.stale_uploads(1) == []


async def test_an_upload_that_was_begun_meanwhile_is_not_forgotten(life):
    """Giving the one before up takes as long as its registry likes."""
    repository, later = None, OpenUpload("http://elsewhere.example/2", "http://e.example", 1, 1)

    async def begin_another(_request):
        await ledger.record_upload(repository, "x", later)
        return web.Response(status=204)

    application = web.Application()
    application.router.add_route("DELETE", "/{path:.*}", begin_another)
    async with life() as (ledger, client), TestServer(application) as server:
        host = f"{server.host}:{server.port}"
        repository = Repository(host, "a/b")
        stale = OpenUpload(f"http://{host}/u", f"http://{host}", 0, 1)
        await TransferLedger(ledger._database, Past()).record_upload(repository, "x", stale)
        await give_up_stale(ledger, client)
        assert await ledger.upload(repository, "x") == later


async def test_a_registry_whose_password_cannot_be_read_is_no_hindrance(
    life, start_docker_registry, tmp_path
):
    users = {"htpasswd": {"realm": "tests", "path": str(tmp_path / "users")}}
    host = start_docker_registry(auth=users).host
    async with life(credentials=PasswordFile("robot", tmp_path / "missing")) as (ledger, client):
        past = TransferLedger(ledger._database, Past())
        upload = OpenUpload(f"http://{host}/v2/a/b/blobs/uploads/u", f"http://{host}", 0, 1)
        await past.record_upload(Repository(host, "a/b"), "x", upload)
        assert await give_up_stale(ledger, client) == 1
        assert await ledger.stale_uploads(1) == []


async def test_a_registry_that_is_gone_is_no_hindrance(life, free_address):
    upload = OpenUpload(f"http://{free_address}/u", f"http://{free_address}", 0, 1)
    async with life() as (ledger, client):
        past = TransferLedger(ledger._database, Past())
        await past.record_upload(Repository(free_address, "a/b"), "x", upload)
        assert await give_up_stale(ledger, client) == 1
        assert await ledger.stale_uploads(1) == []
