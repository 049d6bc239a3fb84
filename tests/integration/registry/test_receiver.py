"""Bodies that are read from the connection and not through the HTTP library."""

import asyncio
import os
import re
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from kitd.content.stream import receive_directly
from kitd.oci.descriptor import describe
from kitd.registry.download import ReadAhead, open_download
from kitd.registry.errors import RegistryTimeoutError
from kitd.registry.receiver import BUFFER_BYTES, WORTHWHILE_BYTES
from kitd.registry.request import Request
from kitd.registry.settings import RegistrySettings
from kitd.registry.transport import Surroundings, Transport
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent

CONTENT = os.urandom(WORTHWHILE_BYTES + 5 * BUFFER_BYTES + 321)
TARGET = describe("application/octet-stream", CONTENT)


class Blob:
    """Serves the content; `stop_after` says how many bytes of each answer are sent."""

    def __init__(self, *stop_after, hangs=False):
        self.stop_after = list(stop_after)
        self.hangs = hangs
        self.asked = []
        self.connections = set()

    async def answer(self, request):
        asked = request.headers.get("Range", "bytes=0-")
        self.asked.append(asked)
        self.connections.add(request.transport)
        start = int(re.fullmatch(r"bytes=(\d+)-\d*", asked)[1])
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = len(CONTENT) - start
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        await response.prepare(request)
        stop = start + (self.stop_after.pop(0) if self.stop_after else len(CONTENT))
        await response.write(memoryview(CONTENT)[start:stop])
        if self.hangs:
            await asyncio.sleep(60)
        if stop < len(CONTENT):
            request.transport.close()
        return response


class Memory:
    """A sink: what was put in, in order."""

    def __init__(self):
        self.content = bytearray()
        self._buffer = memoryview(bytearray(BUFFER_BYTES))

    def room(self):
        return self._buffer

    def fill(self, size):
        self.content += self._buffer[:size]

    def write(self, data):
        self.content += data


@pytest.fixture
async def download(serve):
    """Open a download of the content from a peer, whose connections may be silent for so long."""
    async with AsyncExitStack() as stack:

        async def open_from(blob, idle_s=60.0):
            host = await serve(blob.answer)
            transport = await Transport.open(host, RegistrySettings(), Surroundings())
            stack.push_async_callback(transport.close)
            request = Request(
                operation="fetch",
                method="GET",
                url=transport.url(""),
                is_download=True,
                idle_s=idle_s,
            )
            return await stack.enter_async_context(
                open_download(transport, request, TARGET, offset=0, read_ahead=ReadAhead())
            )

        yield open_from


async def test_a_body_comes_whole_chunk_by_chunk(download):
    stream = await download(Blob())
    assert b"".join([bytes(chunk) async for chunk in stream]) == CONTENT


async def test_a_thread_takes_over_from_the_loop_and_hands_back(download):
    """Whatever is asked for in turn: all bytes come once and in order."""
    stream = await download(Blob())
    memory, directly = Memory(), 0
    for turn in range(10_000):
        count = await receive_directly(stream, memory, 3 << 20) if turn % 4 else None
        if count is None:
            chunk = await anext(stream, None)
            if chunk is None:
                break
            memory.write(chunk)
            # The loop has nothing else to do: let it receive more than is read.
            await asyncio.sleep(0.001)
        else:
            directly += count
    assert bytes(memory.content) == CONTENT
    assert directly > BUFFER_BYTES


@pytest.mark.parametrize("stop_after", [1 << 20, (1 << 20) + 1, 9_876_543])
async def test_a_body_that_is_cut_goes_on_where_it_ended(download, tmp_path, stop_after):
    blob = Blob(stop_after, stop_after)
    stream = await download(blob)
    memory = Memory()
    while True:
        if await receive_directly(stream, memory, len(CONTENT)) is None:
            chunk = await anext(stream, None)
            if chunk is None:
                break
            memory.write(chunk)
    assert bytes(memory.content) == CONTENT
    assert blob.asked == ["bytes=0-"] + [
        f"bytes={start}-{len(CONTENT) - 1}" for start in (stop_after, 2 * stop_after)
    ]


async def test_a_body_that_stops_is_given_up_after_its_idle_time(download):
    stream = await download(Blob(2 << 20, *[0] * 20, hangs=True), idle_s=0.2)
    with pytest.raises(RegistryTimeoutError):
        _ = [chunk async for chunk in stream]


async def test_a_large_blob_is_in_the_cache_as_it_was_sent(serve, connect, tmp_path):
    blob = Blob(7_654_321)
    store = BlobStore(tmp_path / "pulled")
    store.create()
    remote = await connect(await serve(blob.answer))
    with CacheContent(store).hold() as held:
        assert await held.push(TARGET, remote) == len(CONTENT)
    assert store.read(TARGET, max_bytes=len(CONTENT)) == CONTENT
    assert len(blob.asked) == 2


async def test_a_download_that_is_left_in_the_middle_leaves_no_connection(serve, connect):
    blob = Blob()
    remote = await connect(await serve(blob.answer))
    async with remote.fetch(TARGET) as stream:
        await anext(stream)
    async with asyncio.timeout(10):
        while not all(transport.is_closing() for transport in blob.connections):
            await asyncio.sleep(0.01)
