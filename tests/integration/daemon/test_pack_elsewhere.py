"""Layers that are in a registry and not here: what a pack believes of them, and when."""

import asyncio
import os
import time
from contextlib import asynccontextmanager

import pytest

from kitd.clock import SystemClock
from kitd.daemon.author_reach import AuthorReach
from kitd.daemon.layer_relay import LayerRelays
from kitd.daemon.packer import Packer
from kitd.daemon.parent_finder import ParentFinder
from kitd.errors import KitdError
from kitd.ledger.catalog import Catalog
from kitd.ledger.database import Database
from kitd.ledger.pack_memory import PackMemory
from kitd.oci.reference import Repository
from kitd.packing.order import Project
from kitd.packing.pool import WorkerPool
from kitd.packing.scan import racy_until
from kitd.registry.client import RegistryClient
from kitd.registry.settings import RegistrySettings
from kitd.registry.transfer_memory import VolatileMemory
from kitd.registry.transport import Surroundings
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent
from kitd.store.lease import LeaseBook

LARGE = 3
KITFILE = "manifestVersion: 1.0.0\ndatasets:\n" + "".join(
    f"- {{name: d{number}, path: d{number}.bin}}\n" for number in range(LARGE + 1)
)
OVER_BYTES = 1 << 16


@pytest.fixture
async def project(tmp_path):
    """Layers that are too large for the cache, and a small one; all of them are old."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "Kitfile").write_text(KITFILE)
    for number in range(LARGE):
        (root / f"d{number}.bin").write_bytes(os.urandom(2 * OVER_BYTES))
    (root / f"d{LARGE}.bin").write_text("small")
    async with asyncio.timeout(10):
        while racy_until(max(path.stat().st_ctime_ns for path in root.rglob("*"))) > time.time_ns():
            await asyncio.sleep(0.005)
    return Project(root=str(root))


class Bench:
    """A packer whose large layers go to registries."""

    def __init__(self, packer, store):
        self.packer = packer
        self.store = store

    async def pack(self, project, destination):
        held = CacheContent(self.store, LeaseBook()).hold()
        return await self.packer.pack(
            project,
            expected=None,
            destination=destination,
            advanced=lambda _: None,
            built=lambda _: None,
            keep=held.keep,
        )

    def are_here(self, packed):
        return [self.store.size_of(layer.digest) == layer.size for layer in packed.layers]


@pytest.fixture
async def bench(tmp_path):
    async with bench_in(tmp_path) as bench:
        yield bench


async def nothing(_manifest):
    """No kit is summarised here."""


@asynccontextmanager
async def bench_in(tmp_path):
    store = BlobStore(tmp_path / "cache")
    store.create()

    async def sleep(delay_s):
        """Wait for nothing."""

    surroundings = Surroundings(environment={}, sleep=sleep)
    settings = RegistrySettings()
    async with (
        Database(tmp_path / "ledger.sqlite3") as database,
        WorkerPool(store.root) as pool,
        RegistryClient(lambda _: settings, surroundings, VolatileMemory()) as client,
    ):
        relays = LayerRelays(client.repository, over_bytes=lambda: OVER_BYTES)
        catalog = Catalog(database, SystemClock(), nothing)
        parents = ParentFinder(catalog, CacheContent(store), client.repository)
        memory = PackMemory(database, SystemClock())
        reach = AuthorReach(tuple, daemon_uid=os.geteuid(), nobody=None)
        yield Bench(Packer(pool, memory, store, relays, parents, reach), store)


DOWN = {"fail_every": 1, "fail_status": 500, "fail_kinds": ()}


async def test_a_layer_that_never_arrived_is_not_believed_in(bench, project, fault_registry):
    """Its upload did not end, and then nobody could be asked for it."""
    destination = Repository(fault_registry.host, "team/model")
    fault_registry.tell(fail_every=1, fail_status=500, fail_kinds=["upload.end"])
    with pytest.raises(KitdError):
        await bench.pack(project, destination)
    fault_registry.tell(**DOWN)
    with pytest.raises(KitdError):
        await bench.pack(project, destination)


async def test_a_layer_that_arrived_is_believed_in_while_its_registry_is_down(
    bench, project, fault_registry
):
    destination = Repository(fault_registry.host, "team/model")
    first = await bench.pack(project, destination)
    fault_registry.tell(**DOWN)
    assert (await bench.pack(project, destination)).config_digest == first.config_digest


async def test_what_another_registry_had_is_not_believed_in_without_its_answer(
    bench, project, start_fault_registry
):
    """The kit is pushed to one that never had it."""
    one, other = start_fault_registry(), start_fault_registry()
    await bench.pack(project, Repository(one.host, "team/model"))
    one.tell(**DOWN)
    destination = Repository(other.host, "team/model")
    packed = await bench.pack(project, destination)
    assert {layer.repository for layer in packed.layers} == {str(destination), None}


async def test_a_kit_that_is_not_pushed_has_its_layers_here(bench, project, fault_registry):
    """Whoever packs for this machine gets all of it, be it in a registry or not."""
    await bench.pack(project, Repository(fault_registry.host, "team/model"))
    packed = await bench.pack(project, None)
    assert all(bench.are_here(packed))
    assert {layer.repository for layer in packed.layers} == {None}


async def test_each_layer_is_asked_for_once(bench, project, fault_registry):
    """Also where something changed and the layers have to be known one by one."""
    destination = Repository(fault_registry.host, "team/model")
    await bench.pack(project, destination)
    with open(f"{project.root}/d{LARGE}.bin", "a") as small:
        small.write("er")
    fault_registry.reset()
    packed = await bench.pack(project, destination)
    tally = fault_registry.tally()
    assert [layer.repository is None for layer in packed.layers] == [False] * LARGE + [True]
    assert tally["requests"] == {"blob.head": LARGE}


async def test_a_pack_tells_what_it_sent(bench, project, fault_registry):
    """Once: the next of the same files sends nothing."""
    destination = Repository(fault_registry.host, "team/model")
    first = await bench.pack(project, destination)
    assert first.sent_bytes == sum(layer.size for layer in first.layers if layer.repository)
    assert (await bench.pack(project, destination)).sent_bytes == 0
