"""The cache as a content store: what cannot be asked of every store."""

import asyncio
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from kitd.blocking import run_blocking
from kitd.content.store import CHUNK_BYTES, MismatchError
from kitd.errors import UnavailableError
from kitd.oci.descriptor import describe
from kitd.store.blob_store import BlobStore, NoSpaceError
from kitd.store.content import CacheContent
from kitd.store.sample import SAMPLE_BYTES, sample_path


class WatchedExecutor(ThreadPoolExecutor):
    """One thread, and an event for the second thing it is asked to do."""

    def __init__(self):
        super().__init__(1)
        self.asked = 0
        self.second = asyncio.Event()

    def submit(self, *args, **kwargs):
        future = super().submit(*args, **kwargs)
        self.asked += 1
        if self.asked == 2:
            self.second.set()
        return future


async def test_a_push_that_is_cancelled_as_it_begins_leaves_nothing(store, tmp_path):
    elsewhere = BlobStore(tmp_path / "elsewhere")
    elsewhere.create()
    content = bytes(2 * CHUNK_BYTES)
    elsewhere.put(content)
    target = describe("", content)
    executor, go = WatchedExecutor(), threading.Event()
    asyncio.get_running_loop().set_default_executor(executor)
    blocked = asyncio.create_task(run_blocking(go.wait, 20))
    await asyncio.sleep(0)
    push = asyncio.create_task(CacheContent(store).hold().push(target, CacheContent(elsewhere)))
    await executor.second.wait()
    push.cancel()
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await push
    assert await blocked
    assert list(store.downloads_dir.iterdir()) == []
    assert not store.has(target)


async def test_a_blob_that_shrinks_while_it_is_read_is_noticed(store):
    content = os.urandom(4 << 20)
    target = describe("", content)
    store.put(content)
    path = store.path_of(target.digest)
    path.chmod(0o600)
    async with CacheContent(store).fetch(target) as stream:
        assert await anext(stream)
        os.truncate(path, 2 << 20)
        with pytest.raises(MismatchError, match="became shorter"):
            async for _ in stream:
                pass


async def test_a_small_document_is_put_and_named_by_its_digest(store):
    assert await CacheContent(store).hold().put(b"{}") == describe("", b"{}").digest
    assert store.has(describe("", b"{}"))


class Registry:
    """Content in memory, which is sent in pieces; `fail` ends each transfer after so much."""

    def __init__(self, content):
        self.content = content
        self.fail = None
        self.offsets = []

    async def exists(self, target):
        return True

    @asynccontextmanager
    async def fetch(self, target, *, offset=0):
        self.offsets.append(offset)
        yield self.pieces(offset)

    async def pieces(self, offset, size=300_007):
        end = len(self.content) if self.fail is None else offset + self.fail
        for at in range(offset, min(end, len(self.content)), size):
            await asyncio.sleep(0)
            yield memoryview(self.content)[at : at + size]
        if self.fail is not None:
            raise UnavailableError("the connection broke")


@pytest.mark.parametrize("size", [1000, 5 * CHUNK_BYTES + 1])
async def test_fifty_who_want_one_blob_share_one_download(store, size):
    content = os.urandom(size)
    target, registry, cache = describe("", content), Registry(content), CacheContent(store)
    async with asyncio.TaskGroup() as group:
        pushes = [group.create_task(cache.hold().push(target, registry)) for _ in range(50)]
    assert registry.offsets == [0]
    assert sorted(push.result() for push in pushes) == [0] * 49 + [size]
    assert store.path_of(target.digest).read_bytes() == content


async def test_whoever_waited_goes_on_from_his_own_source_where_another_failed(store):
    content = os.urandom(5 * CHUNK_BYTES + 1)
    target, cache = describe("", content), CacheContent(store)
    broken, whole = Registry(content), Registry(content)
    broken.fail = 3 * CHUNK_BYTES
    first = asyncio.create_task(cache.hold().push(target, broken))
    second = asyncio.create_task(cache.hold().push(target, whole))
    with pytest.raises(UnavailableError):
        await first
    moved = await second
    (offset,) = whole.offsets
    assert offset >= 3 * CHUNK_BYTES
    assert moved == target.size - offset
    assert store.path_of(target.digest).read_bytes() == content


async def test_what_a_cancelled_download_got_is_not_asked_for_again(store):
    content = os.urandom(5 * CHUNK_BYTES)
    target, registry = describe("", content), Registry(content)
    half_way, stalled = asyncio.Event(), asyncio.Event()

    class Stalling(Registry):
        async def pieces(self, offset, size=300_007):
            yield self.content[offset : 3 * CHUNK_BYTES]
            half_way.set()
            await stalled.wait()

    push = asyncio.create_task(CacheContent(store).hold().push(target, Stalling(content)))
    await half_way.wait()
    push.cancel()
    with pytest.raises(asyncio.CancelledError):
        await push
    # Another process, as it were: nothing but the file is known.
    assert await CacheContent(store).hold().push(target, registry) == 2 * CHUNK_BYTES
    assert registry.offsets == [3 * CHUNK_BYTES]


async def test_a_blob_that_arrived_in_full_is_not_asked_for(store):
    content = os.urandom(2 * CHUNK_BYTES)
    target, registry = describe("", content), Registry(content)
    store.partial_path(target.digest).write_bytes(content)
    assert await CacheContent(store).hold().push(target, registry) == 0
    assert registry.offsets == []
    assert store.has(target)


async def test_more_than_was_promised_is_not_gone_on_with(store):
    content = os.urandom(2 * CHUNK_BYTES)
    target, registry = describe("", content), Registry(content + b"more")
    with pytest.raises(MismatchError, match="more bytes"):
        await CacheContent(store).hold().push(target, registry)
    assert store.partials() == []
    assert sample_path(store, target.digest).read_bytes() == content[:SAMPLE_BYTES]


async def test_a_blob_that_the_disk_has_no_room_for_is_not_begun(small_store):
    content = bytes(3 * CHUNK_BYTES)
    target, registry = describe("", content), Registry(content)
    with pytest.raises(NoSpaceError):
        await CacheContent(small_store).hold().push(target, registry)
    assert registry.offsets == []
    assert small_store.partials() == []


# From a blob's file straight to a socket.


@pytest.fixture
def wire():
    """Two ends of a connection that do not block."""
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


async def receive(far, size):
    loop = asyncio.get_running_loop()
    content = b""
    while len(content) < size and (piece := await loop.sock_recv(far, 1 << 20)):
        content += piece
    return content


async def test_a_blob_goes_to_a_socket_in_pieces_and_the_rest_as_chunks(store, wire):
    near, far = wire
    content = os.urandom((3 << 20) + 17)
    target = describe("", content)
    store.put(content)
    async with CacheContent(store).fetch(target, offset=5) as stream:
        reading = asyncio.create_task(receive(far, 2 << 20))
        left = 2 << 20
        while left:
            left -= await stream.send_to(near, left)
        assert stream.sendable == (1 << 20) + 12
        rest = b"".join([bytes(chunk) async for chunk in stream])
        assert stream.sendable == 0
    assert await reading + rest == content[5:]


async def test_a_socket_that_takes_nothing_keeps_a_thread_for_a_moment_only(store, wire):
    near, _far = wire
    content = bytes(8 << 20)
    target = describe("", content)
    store.put(content)
    async with CacheContent(store).fetch(target) as stream:
        sent = await stream.send_to(near, len(content))
        assert 0 < sent < len(content)
        assert await stream.send_to(near, len(content) - sent) == 0


async def test_a_socket_that_was_closed_is_no_error_of_the_cache(store, wire):
    near, far = wire
    content = bytes(8 << 20)
    target = describe("", content)
    store.put(content)
    far.close()
    async with CacheContent(store).fetch(target) as stream:
        with pytest.raises(ConnectionError):
            await stream.send_to(near, len(content))


async def test_a_blob_that_shrinks_while_it_is_sent_is_noticed(store, wire):
    near, far = wire
    content = os.urandom(1 << 20)
    target = describe("", content)
    store.put(content)
    async with CacheContent(store).fetch(target) as stream:
        os.chmod(store.path_of(target.digest), 0o600)
        os.truncate(store.path_of(target.digest), 1000)
        reading = asyncio.create_task(receive(far, 1000))
        with pytest.raises(MismatchError, match="became shorter"):
            await stream.send_to(near, len(content))
    assert await reading == content[:1000]
