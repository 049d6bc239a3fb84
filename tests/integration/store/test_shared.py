"""Several readers of one source, over a real cache: each content is read once."""

import asyncio
import os
import random
from collections import Counter
from contextlib import asynccontextmanager

import pytest

from kitd.content.shared import (
    MAX_SMALL_BYTES,
    SMALL_BYTES,
    WINDOW_BYTES,
    WINDOWS_BYTES,
    SharedReads,
)
from kitd.content.store import ContentNotFoundError, MismatchError
from kitd.content.stream import Portion
from kitd.errors import UnavailableError
from kitd.oci.descriptor import describe
from kitd.store.blob_store import BlobStore, NoSpaceError
from kitd.store.content import CacheContent
from kitd.store.lease import LeaseBook

MIB = 1 << 20


class Source:
    """Content by digest, and how often it was asked for; `gate` holds chunks from `held_at` on."""

    def __init__(self):
        self.contents = {}
        self.asked = Counter()
        self.gate = asyncio.Event()
        self.gate.set()
        self.held_at = 0
        self.cut_at = None

    def add(self, content):
        target = describe("application/octet-stream", content)
        self.contents[target.digest] = content
        return target

    async def exists(self, target):
        return target.digest in self.contents

    @asynccontextmanager
    async def fetch(self, target, *, offset=0):
        self.asked[target.digest, offset] += 1
        if target.digest not in self.contents:
            raise ContentNotFoundError("it is gone")
        yield self._chunks(self.contents[target.digest], offset)

    async def _chunks(self, content, offset):
        for start in range(offset, len(content), MIB):
            if start >= self.held_at:
                await self.gate.wait()
            if self.cut_at is not None and start >= self.cut_at:
                raise UnavailableError("the connection broke")
            yield content[start : start + MIB]


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def leases():
    return LeaseBook()


@pytest.fixture
def windows_bytes():
    """Return how much memory all windows have together."""
    return WINDOWS_BYTES


@pytest.fixture
def reads(tmp_path, leases, windows_bytes, monkeypatch):
    monkeypatch.setattr("kitd.content.shared.WINDOWS_BYTES", windows_bytes)
    store = BlobStore(tmp_path / "cache")
    store.create()
    return SharedReads(CacheContent(store, leases).hold, lambda _size: True)


@pytest.fixture
async def shared(reads, source):
    async with reads.open("source", source, by_many=True) as shared:
        yield shared


async def drain(shared, target, *, offset=0, pause=None):
    """Return what comes; `pause` is awaited after the first chunk."""
    found = bytearray()
    async with shared.fetch(target, offset=offset) as stream:
        async for chunk in stream:
            found += chunk
            if pause is not None:
                await pause()
                pause = None
    return bytes(found)


@pytest.mark.parametrize("windows_bytes", [WINDOWS_BYTES, 0])
@pytest.mark.parametrize("size", [0, 1, SMALL_BYTES, SMALL_BYTES + 1, 3 * MIB, 40 * MIB + 7])
async def test_whoever_comes_when_gets_all_of_it_and_it_is_read_once(source, shared, size):
    content = os.urandom(size)
    target = source.add(content)
    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(drain(shared, target)) for _ in range(3)]
    assert all(reader.result() == content for reader in readers)
    assert await drain(shared, target, offset=size // 2) == content[size // 2 :]
    assert source.asked == {(target.digest, 0): 1}


async def test_two_who_come_at_once_follow_one_arrival(source, shared):
    """The second has most of it before the first has all."""
    target = source.add(os.urandom(9 * MIB))
    seen = {1: 0, 2: 0}

    async def read(who):
        async with shared.fetch(target) as stream:
            async for chunk in stream:
                seen[who] += len(chunk)
                assert abs(seen[1] - seen[2]) <= 4 * MIB

    await asyncio.gather(read(1), read(2))
    assert source.asked.total() == 1


async def test_nobody_waits_for_the_slowest(source, shared):
    """Who falls behind what is in memory reads from the disk, while it still arrives, too."""
    content = os.urandom(WINDOW_BYTES + 12 * MIB)
    target = source.add(content)
    done = asyncio.Event()
    slow = asyncio.create_task(drain(shared, target, pause=done.wait))
    assert await drain(shared, target) == content
    assert not slow.done()
    done.set()
    assert await slow == content
    assert source.asked.total() == 1


async def test_what_memory_is_not_for_is_read_from_the_disk_while_it_arrives(reads, source):
    """Many who are slow have all windows, and what another reads comes all the same."""
    slow = [source.add(os.urandom(WINDOW_BYTES)) for _ in range(WINDOWS_BYTES // WINDOW_BYTES)]
    source.gate.clear()
    quick = Source()
    quick.held_at = WINDOW_BYTES + 4 * MIB
    quick.gate.clear()
    content = os.urandom(quick.held_at + 2 * MIB)
    target, whole = quick.add(content), quick.add(content[: 2 * MIB])

    async def open_gate():
        quick.gate.set()

    async with reads.open("slow", source, by_many=True) as first:
        waiting = [asyncio.create_task(drain(first, each)) for each in slow]
        while len(source.asked) < len(slow):
            await asyncio.sleep(0)
        async with reads.open("quick", quick, by_many=True) as second:
            assert await drain(second, whole) == content[: 2 * MIB]
            # What opens the gate is that the first chunk comes before the last.
            readers = [asyncio.create_task(drain(second, target, pause=open_gate)) for _ in "ab"]
            assert [await reader for reader in readers] == [content, content]
        source.gate.set()
        assert [await each for each in waiting] == [source.contents[each.digest] for each in slow]
    assert {*quick.asked.values(), *source.asked.values()} == {1}


@pytest.mark.parametrize("windows_bytes", [WINDOW_BYTES])
async def test_memory_is_given_back_by_what_has_arrived_or_was_given_up(reads, source):
    """There is one window, and without it the first chunk would not come before the gate opens."""
    source.held_at = MIB
    targets = [source.add(os.urandom(WINDOW_BYTES)) for _ in range(3)]

    async def open_gate():
        source.gate.set()

    for target in targets:
        source.gate.clear()
        async with reads.open("source", source, by_many=True) as shared:
            assert await drain(shared, target, pause=open_gate)
        source.gate.clear()
        async with reads.open("source", source, by_many=True) as shared:
            given_up = source.add(os.urandom(WINDOW_BYTES))
            reader = asyncio.create_task(drain(shared, given_up))
            while not source.asked[given_up.digest, 0]:
                await asyncio.sleep(0)
            reader.cancel()


async def test_who_comes_late_follows_what_still_arrives(source, shared):
    content = os.urandom(WINDOW_BYTES + 12 * MIB)
    target = source.add(content)

    async def hold():
        source.gate.clear()

    first = asyncio.create_task(drain(shared, target, pause=hold))
    while source.gate.is_set():
        await asyncio.sleep(0)
    late = asyncio.create_task(drain(shared, target))
    later = asyncio.create_task(drain(shared, target, offset=len(content) - 1))
    source.gate.set()
    assert [await first, await late, await later] == [content, content, content[-1:]]
    assert source.asked.total() == 1


@pytest.mark.parametrize("size", [1000, 5 * MIB])
async def test_what_is_something_else_is_given_whole_to_nobody(source, shared, size):
    target = source.add(os.urandom(size))
    source.contents[target.digest] = os.urandom(size)
    for _ in range(2):
        with pytest.raises(MismatchError):
            await drain(shared, target)


@pytest.mark.parametrize("windows_bytes", [WINDOWS_BYTES, 0])
async def test_what_broke_off_is_gone_on_with_for_all(source, shared):
    content = os.urandom(9 * MIB)
    target = source.add(content)
    source.cut_at = 6 * MIB
    readers = [asyncio.create_task(drain(shared, target)) for _ in range(2)]
    ended = await asyncio.gather(*readers, return_exceptions=True)
    assert all(isinstance(error, UnavailableError) for error in ended)
    source.cut_at = None
    readers = [asyncio.create_task(drain(shared, target, offset=at)) for at in (0, 5 * MIB)]
    assert [await reader for reader in readers] == [content, content[5 * MIB :]]
    (_, second) = source.asked
    assert 0 < second[1] <= 6 * MIB


async def test_what_is_not_there_is_not_there_for_anybody(source, shared):
    for size in (10, 5 * MIB):
        target = describe("application/octet-stream", os.urandom(size))
        with pytest.raises(ContentNotFoundError):
            await drain(shared, target)


async def test_more_small_content_than_memory_is_for_goes_into_the_cache(source, shared):
    targets = [
        source.add(os.urandom(SMALL_BYTES)) for _ in range(MAX_SMALL_BYTES // SMALL_BYTES + 9)
    ]
    for _ in range(2):
        for target in targets:
            assert await drain(shared, target) == source.contents[target.digest]
    assert source.asked.total() == len(targets)


async def test_what_the_cache_has_no_place_for_each_reads_for_himself(tmp_path, source):
    content = os.urandom(2 * MIB)
    target = source.add(content)
    store = BlobStore(tmp_path / "cache")
    store.create()
    reads = SharedReads(CacheContent(store).hold, lambda _size: False)
    async with reads.open("source", source, by_many=True) as shared:
        assert await drain(shared, target) == await drain(shared, target) == content
    assert source.asked.total() == 2
    assert not store.has(target)


async def test_leaving_ends_what_still_arrives(tmp_path, source):
    target = source.add(os.urandom(9 * MIB))
    store = BlobStore(tmp_path / "cache")
    store.create()
    source.gate.clear()
    async with SharedReads(CacheContent(store).hold, lambda _size: True).open(
        "source", source, by_many=True
    ) as shared:
        reader = asyncio.create_task(drain(shared, target))
        while not source.asked:
            await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await reader


async def test_jobs_of_one_source_share_what_any_of_them_reads(tmp_path, source):
    """Whoever began it may leave; who is alone leaves nothing behind."""
    store = BlobStore(tmp_path / "cache")
    store.create()
    reads = SharedReads(CacheContent(store).hold, lambda _size: True)
    content = os.urandom(9 * MIB)
    target, small = source.add(content), source.add(b"small")
    source.gate.clear()
    async with reads.open("source", source, by_many=True) as second:
        async with reads.open("source", source, by_many=True) as first:
            began = [asyncio.create_task(drain(first, each)) for each in (target, small)]
            while source.asked.total() < 2:
                await asyncio.sleep(0)
            late = [asyncio.create_task(drain(second, each)) for each in (target, small)]
            for _ in range(10):
                await asyncio.sleep(0)
            began[0].cancel()
        source.gate.set()
        assert [await each for each in late] == [content, b"small"]
        assert await began[1] == b"small"
    assert source.asked.total() == 2
    async with reads.open("source", source, by_many=True) as again:
        assert await drain(again, target) == content
    assert source.asked.total() == 2


async def test_sources_share_nothing_with_each_other(tmp_path, source):
    """Whoever may read of one may not read of the other for it."""
    store = BlobStore(tmp_path / "cache")
    store.create()
    reads = SharedReads(CacheContent(store).hold, lambda _size: False)
    target = source.add(b"small")
    async with reads.open("one", source, by_many=True) as one:
        assert await drain(one, target) == b"small"
        async with reads.open("other", Source(), by_many=True) as other:
            with pytest.raises(ContentNotFoundError):
                await drain(other, target)


async def test_a_cache_that_is_full_stops_nobody(tmp_path, source):
    class FullStore(BlobStore):
        """One whose disk fills while it is written to."""

        def require_space(self, size):
            raise NoSpaceError(f"there is no room for {size} bytes")

    store = FullStore(tmp_path / "cache")
    store.create()
    content = os.urandom(9 * MIB)
    target = source.add(content)
    async with SharedReads(CacheContent(store).hold, lambda _size: True).open(
        "source", source, by_many=True
    ) as shared:
        readers = [asyncio.create_task(drain(shared, target, offset=at)) for at in (0, MIB)]
        assert [await reader for reader in readers] == [content, content[MIB:]]


async def test_an_answer_is_shared_with_those_who_were_there_when_it_was_asked_for(tmp_path):
    store = BlobStore(tmp_path / "cache")
    store.create()
    reads = SharedReads(CacheContent(store).hold, lambda _size: True)
    questions = []

    async def question():
        questions.append(1)
        await asyncio.sleep(0)
        return len(questions)

    async with reads.open("source", Source(), by_many=True) as first:
        async with reads.open("source", Source(), by_many=True) as second:
            assert await asyncio.gather(*(each.ask("x", question) for each in (first, second))) == [
                1,
                1,
            ]
            assert await second.ask("y", question) == 2
        async with reads.open("source", Source(), by_many=True) as late:
            assert await first.ask("x", question) == 1
            assert await late.ask("x", question) == 3
            assert await first.ask("x", question) == 3


async def test_a_question_that_failed_is_asked_again(shared):
    async def fail():
        raise UnavailableError("not now")

    async def answer():
        return 1

    for _ in range(2):
        with pytest.raises(UnavailableError):
            await shared.ask("x", fail)
    assert await shared.ask("x", answer) == 1


# What is left, and when.


async def take(shared, target, start, count):
    """Return so many bytes, as an upload in parts takes them."""
    found = bytearray()
    async with shared.fetch(target, offset=start) as stream:
        async for chunk in Portion(stream, count):
            found += chunk
    return bytes(found)


async def released(leases):
    while leases.leased():
        await asyncio.sleep(0)


async def test_what_has_been_read_to_its_end_is_the_caches_at_once(source, reads, leases):
    """A run may take days, and touch more than the cache is for."""
    targets = [source.add(os.urandom(SMALL_BYTES + 1)) for _ in range(3)]
    async with (
        reads.open("source", source, by_many=True) as first,
        reads.open("source", source, by_many=True) as second,
    ):
        for target in targets:
            for shared in (first, second):
                assert await drain(shared, target) == source.contents[target.digest]
                assert leases.leased() == frozenset()
    assert source.asked.total() == len(targets)


async def test_what_is_read_in_parts_stays_until_the_last(source, shared, leases):
    content = os.urandom(9 * MIB)
    target = source.add(content)
    found = bytearray()
    for start in range(0, len(content), 2 * MIB):
        found += await take(shared, target, start, min(2 * MIB, len(content) - start))
        assert leases.leased() == ({target.digest} if len(found) < len(content) else frozenset())
    assert found == content
    assert source.asked.total() == 1


async def test_who_has_all_leaves_it_to_who_is_between_two_parts(source, reads, leases):
    content = os.urandom(9 * MIB)
    target = source.add(content)
    async with reads.open("source", source, by_many=True) as slow:
        assert await take(slow, target, 0, MIB) == content[:MIB]
        async with reads.open("source", source, by_many=True) as quick:
            assert await drain(quick, target) == content
        assert leases.leased() == {target.digest}
        assert await take(slow, target, MIB, 8 * MIB) == content[MIB:]
        assert leases.leased() == frozenset()
    assert source.asked.total() == 1


async def test_what_nobody_returned_to_is_let_go(source, shared, leases, monkeypatch):
    monkeypatch.setattr("kitd.content.shared.REST_S", 0.0)
    target = source.add(os.urandom(9 * MIB))
    await take(shared, target, 0, MIB)
    await released(leases)
    assert await drain(shared, target) == source.contents[target.digest]


async def test_so_many_wait_for_somebody_to_return(source, shared, leases, monkeypatch):
    monkeypatch.setattr("kitd.content.shared.MAX_RESTING", 1)
    targets = [source.add(os.urandom(3 * MIB)) for _ in range(2)]
    for target in targets:
        await take(shared, target, 0, MIB)
    while leases.leased() != {targets[1].digest}:
        await asyncio.sleep(0)


async def test_who_leaves_returns_to_nothing(source, reads, leases):
    """Nothing arrives for him any more, though others still copy from the source."""
    target = source.add(os.urandom(9 * MIB))

    async def hold():
        source.gate.clear()
        raise UnavailableError("the target is down")

    async with reads.open("source", source, by_many=True):
        async with reads.open("source", source, by_many=True) as left:
            with pytest.raises(UnavailableError):
                await drain(left, target, pause=hold)
            assert leases.leased() == {target.digest}
        await released(leases)


async def test_who_is_cancelled_while_he_leaves_leaves_nothing(source, reads, leases):
    """The job has failed by itself, and a person cancels it while it lets go of what arrives."""
    targets = [source.add(os.urandom(3 * MIB)) for _ in range(2)]
    source.gate.clear()
    leaving = asyncio.Event()

    async def job():
        async with reads.open("source", source, by_many=True) as shared:
            readers = [asyncio.create_task(drain(shared, target)) for target in targets]
            while len(source.asked) < len(targets):
                await asyncio.sleep(0)
            for reader in readers:
                reader.cancel()
            await asyncio.wait(readers)
            leaving.set()
            raise UnavailableError("the target is down")

    task = asyncio.create_task(job())
    await leaving.wait()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert leases.leased() == frozenset()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_is_cancelled_when_nothing_is_left(
    tmp_path, source, leases, seed, monkeypatch
):
    # Room for two windows, so that some get none.
    monkeypatch.setattr("kitd.content.shared.WINDOWS_BYTES", 2 * WINDOW_BYTES)
    chance = random.Random(seed)
    store = BlobStore(tmp_path / "cache")
    store.create()
    reads = SharedReads(CacheContent(store, leases).hold, lambda _size: chance.random() < 0.9)
    sizes = (1000, 400_000, 3 * MIB, WINDOW_BYTES + 2 * MIB)
    targets = [source.add(os.urandom(chance.choice(sizes))) for _ in range(10)]

    async def turns():
        for _ in range(chance.randrange(100)):
            await asyncio.sleep(0)

    async def read(shared, target):
        start = chance.choice([0, target.size // 3])
        assert (
            await drain(shared, target, offset=start, pause=turns)
            == (source.contents[target.digest][start:])
        )

    async def job():
        name = "source" if chance.random() < 0.8 else "other"
        async with (
            reads.open(name, source, by_many=chance.random() < 0.8) as shared,
            asyncio.TaskGroup() as group,
        ):
            for target in chance.sample(targets, 5):
                group.create_task(read(shared, target))

    jobs = [asyncio.create_task(job()) for _ in range(8)]
    while not all(job.done() for job in jobs):
        await turns()
        if chance.random() < 0.3:
            chance.choice(jobs).cancel()
    ended = await asyncio.gather(*jobs, return_exceptions=True)
    assert {type(end) for end in ended} <= {type(None), asyncio.CancelledError}
    assert leases.leased() == frozenset()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_what_one_reader_may_not_read_another_may(tmp_path, source):
    """As a registry's pulls are for people first, and both jobs read one source."""
    store = BlobStore(tmp_path / "cache")
    store.create()
    reads = SharedReads(CacheContent(store).hold, lambda _size: True)
    target = source.add(b"small")
    refusing = Source()
    refusing.gate.clear()
    refusing.contents[target.digest] = b"small"
    refusing.cut_at = 0
    async with reads.open("source", refusing, by_many=True) as first:
        began = asyncio.create_task(drain(first, target))
        while not refusing.asked:
            await asyncio.sleep(0)
        async with reads.open("source", source, by_many=True) as second:
            other = asyncio.create_task(drain(second, target))
            await asyncio.sleep(0)
            refusing.gate.set()
            assert await other == b"small"
        with pytest.raises(UnavailableError):
            await began
