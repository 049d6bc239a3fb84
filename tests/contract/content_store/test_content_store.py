"""What every content store does with a single blob."""

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from kitd.content.store import CHUNK_BYTES, ContentNotFoundError, MismatchError
from kitd.content.verify import read
from kitd.errors import KitdError
from kitd.oci.descriptor import describe

MIB = 1 << 20


async def fetch(store, target, offset=0):
    async with store.fetch(target, offset=offset) as stream:
        return [bytes(chunk) async for chunk in stream]


@pytest.mark.parametrize("size", [0, 1, 4096, CHUNK_BYTES, 3 * MIB + 17])
async def test_what_is_pushed_is_there_as_it_was(store, source, size):
    content = os.urandom(size)
    target = source.add(content)
    assert not await store.exists(target)
    assert await store.push(target, source) == size
    assert await store.exists(target)
    assert await read(store, target, max_bytes=size) == content


async def test_what_is_there_is_not_moved_again(store, source):
    target = source.add(b"weights")
    await store.push(target, source)
    assert await store.push(target, source) == 0
    assert source.fetched == [target.digest]


async def test_a_fetch_begins_at_any_offset_and_holds_one_chunk(store, source):
    content = os.urandom(2 * MIB + 5)
    target = source.add(content)
    await store.push(target, source)
    for offset in (0, 1, MIB, 2 * MIB, len(content) - 1, len(content)):
        chunks = await fetch(store, target, offset)
        assert b"".join(chunks) == content[offset:]
        assert all(len(chunk) <= CHUNK_BYTES for chunk in chunks)


async def test_what_was_never_pushed_is_not_found(store):
    target = describe("application/octet-stream", b"nobody's")
    assert not await store.exists(target)
    with pytest.raises(ContentNotFoundError):
        await fetch(store, target)


@pytest.mark.parametrize("size", [10, 2 * MIB])
@pytest.mark.parametrize(
    "lie",
    [
        lambda content: bytes([content[0] ^ 1]) + content[1:],
        lambda content: content[:-1],
        lambda content: b"X" + content,
        lambda content: b"",
    ],
    ids=["altered", "shorter", "shifted", "empty"],
)
async def test_other_content_than_was_promised_is_not_published(store, source, size, lie):
    content = os.urandom(size)
    target = source.add(content)
    source.lies[target.digest] = lie(content)
    with pytest.raises(KitdError):
        await store.push(target, source)
    assert not await store.exists(target)
    assert not await store.exists(describe(target.media_type, lie(content)))

    source.lies.clear()
    assert await store.push(target, source) == size


@pytest.mark.parametrize("more", [1, 8 * MIB])
async def test_what_a_source_sends_beyond_the_size_is_never_published(store, source, more):
    content = os.urandom(MIB)
    target = source.add(content)
    longer = source.lies[target.digest] = content + bytes(more)
    try:
        await store.push(target, source)
    except MismatchError:
        assert not await store.exists(target)
    else:
        assert await read(store, target, max_bytes=MIB) == content
    assert not await store.exists(describe(target.media_type, longer))


@pytest.mark.parametrize("change", [-1, 1])
async def test_content_of_another_size_is_other_content(store, source, change):
    target = source.add(b"weights")
    await store.push(target, source)
    other = replace(target, size=target.size + change)
    assert not await store.exists(other)
    with pytest.raises(MismatchError):
        await fetch(store, other)
    with pytest.raises(KitdError):
        await store.push(other, source)
    assert await read(store, target, max_bytes=100) == b"weights"


async def test_the_sources_error_passes_and_nothing_is_published(store, source):
    target = describe("application/octet-stream", b"not in the source")
    with pytest.raises(ContentNotFoundError):
        await store.push(target, source)
    assert not await store.exists(target)


async def test_a_push_that_is_cancelled_publishes_nothing(store, source):
    target = source.add(os.urandom(2 * MIB))
    half_way = asyncio.Event()

    class Stalled:
        exists = source.exists

        @asynccontextmanager
        async def fetch(self, target, *, offset=0):
            async def pieces():
                yield source.contents[target.digest][offset : offset + MIB]
                half_way.set()
                await asyncio.Event().wait()

            yield pieces()

    async with asyncio.timeout(20):
        push = asyncio.create_task(store.push(target, Stalled()))
        await half_way.wait()
        push.cancel()
        with pytest.raises(asyncio.CancelledError):
            await push
    assert not await store.exists(target)
    # Some of it may have stayed.
    assert 0 < await store.push(target, source) <= target.size
    assert await read(store, target, max_bytes=target.size) == source.contents[target.digest]


async def test_several_may_push_the_same_content_at_once(store, source):
    content = os.urandom(MIB)
    target = source.add(content)
    await asyncio.gather(*(store.push(target, source) for _ in range(5)))
    assert await read(store, target, max_bytes=MIB) == content


async def test_a_fetch_can_be_left_in_the_middle(store, source):
    content = os.urandom(4 * MIB)
    target = source.add(content)
    await store.push(target, source)
    async with store.fetch(target) as stream:
        assert await anext(stream)
    assert await read(store, target, max_bytes=4 * MIB) == content
