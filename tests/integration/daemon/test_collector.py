"""Collections among others: who has a lease is spared, who comes too late is told."""

import asyncio
import json
import os
import threading
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from kitd.clock import SystemClock
from kitd.config.model import CacheConfig
from kitd.content.store import ContentNotFoundError
from kitd.daemon.cache_keeper import CacheKeeper
from kitd.daemon.collector import Collector
from kitd.jobs.collect import COLLECT
from kitd.ledger.cache_ledger import CacheLedger
from kitd.ledger.catalog import Catalog
from kitd.ledger.database import Database
from kitd.ledger.event_ledger import EventLedger
from kitd.ledger.job_ledger import JobLedger
from kitd.oci.descriptor import describe
from kitd.oci.manifest import parse_manifest
from kitd.oci.media_type import OCI_MANIFEST
from kitd.oci.reference import Repository
from kitd.queue.effect import Emit, MoveTags, RecordManifest
from kitd.queue.job import Lane
from kitd.store.blob_store import BlobStore
from kitd.store.collection import plan_collection
from kitd.store.content import CacheContent
from kitd.store.lease import LeaseBook

HERE = Repository("localhost", "team/model")
HOUR_S = 3600
EMPTY = CacheConfig(use_at_most_bytes=0, leave_free_bytes=0, keep_recent_s=0)


class SlowStore(BlobStore):
    """A store on a disk that takes its time to remove a blob."""

    def __init__(self, root):
        super().__init__(root)
        self.removing = threading.Event()
        self.go = threading.Event()
        self.go.set()

    def remove(self, digest, *, unless_after_s=float("inf")):
        self.removing.set()
        assert self.go.wait(20)
        return super().remove(digest, unless_after_s=unless_after_s)


class Bench:
    """A cache with its ledger and its collector, and kits that are made by hand."""

    def __init__(self, database, store):
        clock = SystemClock()
        self.store = store
        self.leases = LeaseBook()
        self.cache = CacheContent(store, self.leases)
        self.ledger = CacheLedger(database, clock)
        self.catalog = Catalog(database, clock, no_kit, used=self.ledger.note_use)
        self.events = EventLedger(database)
        self.jobs = JobLedger(database, clock, 1)
        self.limits = EMPTY
        self.collector = Collector(
            store=store,
            leases=self.leases,
            ledger=self.ledger,
            remote=nowhere,
            limits=lambda: self.limits,
            clock=clock,
        )

    async def kit(self, layer, tags=(), note=""):
        """Record a kit with one layer, and return its manifest and the layer."""
        with self.cache.hold() as held:
            await held.put(layer)
            await held.put(b"{}")
            config, blob = describe("c", b"{}"), describe("l", layer)
            document = {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {"mediaType": "c", "digest": config.digest, "size": config.size},
                "layers": [{"mediaType": "l", "digest": blob.digest, "size": blob.size}],
                "annotations": {"note": note},
            }
            content = json.dumps(document).encode()
            await held.put(content)
            target = describe(OCI_MANIFEST, content)
            recorded = RecordManifest(HERE, target, parse_manifest(content))
            await self.catalog.apply([recorded, MoveTags(HERE, tags, target.digest)])
        return target, blob

    async def collect(self):
        return await self.collector.collect(lambda _: None)

    @asynccontextmanager
    async def in_the_middle(self):
        """Begin a collection that stops before it removes the first file."""
        self.store.removing.clear()
        self.store.go.clear()
        collecting = asyncio.create_task(self.collect())
        await asyncio.to_thread(self.store.removing.wait, 20)
        try:
            yield collecting
        finally:
            self.store.go.set()
            await asyncio.wait([collecting])


async def several_turns():
    """Let everybody on the loop go on who can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def no_kit(_manifest):
    return None


async def nowhere(repository):
    raise AssertionError(f"nobody has to ask {repository}")


@pytest.fixture
async def bench(tmp_path):
    store = SlowStore(tmp_path / "cache")
    store.create()
    async with Database(tmp_path / "ledger.sqlite3") as database:
        yield Bench(database, store)


async def test_a_kit_goes_with_its_blobs_and_says_so(bench):
    target, _ = await bench.kit(b"weights")
    collected = await bench.collect()
    assert (collected.blobs, collected.kept_bytes) == (3, 0)
    assert (len(collected.kits), collected.over_bytes) == (1, 0)
    assert not bench.store.has(target)
    with pytest.raises(ContentNotFoundError):
        await bench.catalog.resolve(HERE, target.digest)
    events = [event for event in await bench.events.read(0, 50) if event.type == "kit.evicted"]
    assert [event.subject for event in events] == [f"kit:{target.digest}"]


async def test_who_wants_a_blob_that_goes_waits_and_finds_it_gone(bench):
    _, layer = await bench.kit(b"weights")
    with bench.cache.hold() as held:
        async with bench.in_the_middle():
            keeping = asyncio.create_task(held.keep([(layer.digest, layer.size)]))
            await several_turns()
            assert not keeping.done()
        assert not await keeping
        # And can make it anew, which no collection takes then.
        await held.put(b"weights")
        await bench.collect()
        assert bench.store.has(layer)


async def test_a_kit_that_is_made_again_while_it_goes_is_complete(bench):
    """A pack that comes in the middle of a collection gets nothing that is about to go."""
    target, layer = await bench.kit(b"weights")
    async with bench.in_the_middle():
        making = asyncio.create_task(bench.kit(b"weights", ("latest",)))
    await making
    assert (await bench.catalog.resolve(HERE, "latest")).digest == target.digest
    assert bench.store.has(target)
    assert bench.store.has(layer)


async def test_a_collection_that_is_cancelled_has_finished_what_it_began(bench):
    target, _ = await bench.kit(b"weights")
    async with bench.in_the_middle() as collecting:
        collecting.cancel()
        await several_turns()
        assert not collecting.done()
    assert collecting.cancelled()
    assert not bench.store.has(target)
    async with asyncio.timeout(5):
        with bench.leases.hold() as lease:
            await lease.take(target.digest)


async def test_a_collection_waits_for_one_that_was_given_up(bench):
    await bench.kit(b"one")
    await bench.kit(b"two")
    async with bench.in_the_middle() as first:
        second = asyncio.create_task(bench.collect())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await asyncio.shield(second)
    assert (len((await first).kits), (await second).kits) == (2, ())
    assert bench.store.blobs() == []


async def test_a_blob_that_was_read_goes_on_being_read(bench):
    content = os.urandom(3 << 20)
    _, layer = await bench.kit(content)
    async with bench.cache.fetch(layer) as stream:
        read = bytes(await anext(stream))
        await bench.collect()
        assert not bench.store.has(layer)
        read += b"".join([bytes(chunk) async for chunk in stream])
    assert read == content


async def test_a_kit_that_is_used_while_a_collection_plans_stays(bench):
    target, _ = await bench.kit(b"weights")
    bench.limits = replace(EMPTY, use_at_most_bytes=1 << 30)
    stock = await bench.collector._take_stock()
    await bench.catalog.resolve(HERE, target.digest)
    bundle = next(iter(bundles_of(stock)))
    assert await bench.collector._evict(bundle, bundle.blobs) is None
    # Once that is written, too.
    await bench.ledger.write_uses()
    assert await bench.collector._evict(bundle, bundle.blobs) is None
    assert bench.store.has(target)


async def test_a_blob_that_another_kit_needs_since_the_plan_stays(bench):
    first, layer = await bench.kit(b"weights")
    stock = await bench.collector._take_stock()
    bundle = next(iter(bundles_of(stock)))
    await bench.kit(b"weights", note="another")
    assert await bench.collector._evict(bundle, bundle.blobs) is not None
    assert not bench.store.has(first)
    assert bench.store.has(layer)


async def test_what_no_kit_needs_goes_when_it_is_old_unless_somebody_wants_it(bench):
    old, wanted, young = (bench.store.put(content).digest for content in (b"1", b"2", b"3"))
    for digest in (old, wanted):
        os.utime(bench.store.path_of(digest), (time.time() - 2 * HOUR_S,) * 2)
    bench.limits = CacheConfig()
    with bench.leases.hold() as lease:
        await lease.take(wanted)
        assert (await bench.collect()).blobs == 1
    assert [bench.store.size_of(d) is not None for d in (old, wanted, young)] == [
        False, True, True,
    ]  # fmt: skip
    bench.store.touch(wanted)
    assert (await bench.collect()).blobs == 0


async def test_a_blob_that_is_touched_after_the_plan_stays(bench):
    digest = bench.store.put(b"1").digest
    os.utime(bench.store.path_of(digest), (time.time() - 2 * HOUR_S,) * 2)
    (blob,) = (await bench.collector._take_stock()).blobs
    bench.store.touch(digest)
    assert await bench.collector._remove_unreferenced([blob]) == [0]
    assert bench.store.size_of(digest) == 1


async def test_the_remains_of_damage_go_once_the_blob_is_back_or_no_kit_needs_it(bench):
    _, layer = await bench.kit(b"weights", ("latest",))
    bench.store.quarantine(layer.digest)
    bench.store.note_missing(bench.store.put(b"orphan").digest)
    await bench.collect()
    assert bench.store.in_quarantine() == {layer.digest: layer.size}
    assert (await bench.collector._space()).used_bytes >= layer.size
    bench.store.put(b"weights")
    await bench.collect()
    assert bench.store.in_quarantine() == {}


async def test_the_forecast_counts_the_remains_that_go_in_any_case(bench):
    await bench.kit(b"weights")
    bench.store.quarantine(bench.store.put(b"orphan" * 100).digest)
    space = await bench.collector._space()
    bench.limits = replace(EMPTY, use_at_most_bytes=space.used_bytes - 1)
    foreseen = await bench.collector.forecast()
    collected = await bench.collect()
    assert [each.kind for each in foreseen.decisions if each.goes] == ["damaged"]
    assert (collected.kits, collected.freed_bytes) == ((), 600)
    assert (foreseen.freed_bytes, foreseen.over_bytes) == (600, collected.over_bytes)


async def test_what_could_not_be_freed_is_said_and_taken_back_when_there_is_room(bench):
    await bench.kit(b"weights", ("latest",))
    collected = await bench.collect()
    assert collected.over_bytes == collected.kept_bytes > 0
    assert collected.advice == bench.collector.shortfall
    assert "keeps 1 kit:" in collected.advice
    bench.limits = CacheConfig(leave_free_bytes=0)
    assert await bench.collector.excess_bytes() == 0
    assert bench.collector.shortfall is None


@pytest.fixture
async def keep(bench):
    """Run a keeper that looks every few milliseconds; give what it asks for."""
    tasks = []

    def keep(*, is_paused=lambda: False):
        keeper = CacheKeeper(
            bench.collector,
            bench.ledger,
            bench.events,
            ask=bench.jobs.enqueue,
            is_paused=is_paused,
            monotonic_s=time.monotonic,
            tick_s=0.01,
        )
        tasks.append(asyncio.create_task(keeper.run()))

    yield keep
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def asked(bench, within_s=10.0):
    """Claim the collection that was asked for."""
    async with asyncio.timeout(within_s):
        while not (claimed := await bench.jobs.claim({Lane.COLLECT: 1})):
            await asyncio.sleep(0.01)
    return claimed[0]


async def test_the_keeper_asks_when_kits_arrive_that_are_too_many(bench, keep):
    bench.limits = CacheConfig(use_at_most_bytes=100, leave_free_bytes=0)
    looks = iter(range(5))
    looked = asyncio.Event()

    def is_paused():
        if next(looks, None) is None:
            looked.set()
        return False

    keep(is_paused=is_paused)
    await looked.wait()
    assert await bench.jobs.claim({Lane.COLLECT: 1}) == []
    await bench.kit(bytes(1000))
    await bench.catalog.apply([Emit("kit.packed", "kit:x")])
    job = await asked(bench)
    assert (job.kind, job.priority) == (COLLECT.name, 0)


async def test_the_keeper_asks_when_a_full_disk_pauses_the_queue(bench, keep):
    bench.limits = CacheConfig(leave_free_bytes=0)
    keep(is_paused=lambda: True)
    assert (await asked(bench)).kind == COLLECT.name


async def test_the_keeper_writes_what_was_used(bench, keep):
    target, _ = await bench.kit(b"weights")
    (before,) = await bench.ledger.kits()
    await bench.catalog.resolve(HERE, target.digest)
    keep()
    async with asyncio.timeout(10):
        while (await bench.ledger.kits())[0].used_us <= before.used_us:
            await asyncio.sleep(0.01)


def bundles_of(stock):
    """Return what a plan would let go, whatever the limits."""
    plan = plan_collection(
        stock.kits, stock.blobs, stock.leased, keep_recent_s=0, now_us=SystemClock().now_us()
    )
    return plan.bundles


@pytest.mark.parametrize("in_use", [False, True])
async def test_what_arrived_of_a_blob_goes_where_room_is_needed_unless_more_arrives(bench, in_use):
    target = describe("l", b"weights")
    bench.store.partial_path(target.digest).write_bytes(bytes(1000))
    with bench.cache.hold() as held:
        if in_use:
            await held.keep([(target.digest, target.size)])
        (decision,) = (await bench.collector.forecast()).decisions
        collected = await bench.collect()
    assert (decision.kind, decision.goes) == ("partial", not in_use)
    assert collected.freed_bytes == (0 if in_use else 1000)
    assert len(bench.store.partials()) == in_use
