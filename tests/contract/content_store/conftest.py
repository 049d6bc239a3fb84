"""The stores that are held to the contract, and a source to fill them from."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from fault_registry.server import FaultRegistry
from kitd.content.store import ContentNotFoundError
from kitd.oci.descriptor import describe
from kitd.oci.reference import Repository
from kitd.registry.client import RegistryClient
from kitd.registry.settings import RegistrySettings
from kitd.registry.transport import Surroundings
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent

LONGEST_PAUSE_S = 0.05


class Source:
    """Content in memory, served in pieces; `lies` are served instead of what was asked for."""

    def __init__(self):
        self.contents = {}
        self.lies = {}
        self.fetched = []

    def add(self, content, media_type="application/octet-stream"):
        target = describe(media_type, content)
        self.contents[target.digest] = content
        return target

    async def exists(self, target):
        return target.digest in self.contents

    @asynccontextmanager
    async def fetch(self, target, *, offset=0):
        if target.digest not in self.contents:
            raise ContentNotFoundError(f"there is no {target.digest}")
        self.fetched.append(target.digest)
        yield self._pieces(self.lies.get(target.digest, self.contents[target.digest])[offset:])

    async def _pieces(self, content, size=300_007):
        for start in range(0, len(content), size):
            yield memoryview(content)[start : start + size]


@pytest.fixture
def source():
    return Source()


@asynccontextmanager
async def cache(request):
    store = BlobStore(request.getfixturevalue("tmp_path") / "cache")
    store.create()
    with CacheContent(store).hold() as held:
        yield held
    assert list(store.ingest_dir.iterdir()) == []


@asynccontextmanager
async def repository_of(host):
    async def sleep(delay_s):
        """Wait for less than is asked for, but wait.

        Debian's registry fails while it links a blob twice, and attempts without a pause between
        them all meet that moment.
        """
        await asyncio.sleep(min(delay_s, LONGEST_PAUSE_S))

    surroundings = Surroundings(environment={}, sleep=sleep)
    async with RegistryClient(lambda _: RegistrySettings(), surroundings) as client:
        yield await client.repository(Repository(host, "team/model"))


@asynccontextmanager
async def repository(request):
    async with repository_of(request.getfixturevalue("docker_registry").host) as remote:
        yield remote


@asynccontextmanager
async def repository_of_tests(request):
    root = request.getfixturevalue("tmp_path") / "fault-registry"
    async with FaultRegistry(root) as registry, repository_of(registry.host) as remote:
        yield remote


@pytest.fixture(params=[cache, repository, repository_of_tests], ids=lambda make: make.__name__)
def implementation(request):
    if request.param is repository:
        request.getfixturevalue("docker_registry")
    return request.param


@pytest.fixture
async def store(implementation, request):
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(implementation(request))
