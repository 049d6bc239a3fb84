"""The cache as a content store: what cannot be asked of every store."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from kitd.blocking import run_blocking
from kitd.content.store import CHUNK_BYTES, MismatchError
from kitd.oci.descriptor import describe
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent


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
