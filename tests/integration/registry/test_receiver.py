"""Bodies that are read from the connection and not through the HTTP library."""

import asyncio
import os
import re
import resource
import ssl
import struct
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from kitd.oci.descriptor import describe
from kitd.registry.download import ReadAhead, open_download
from kitd.registry.download_plan import ConnectionCount
from kitd.registry.errors import RegistryTimeoutError
from kitd.registry.receiver import BUFFER_BYTES, WORTHWHILE_BYTES
from kitd.registry.request import Request
from kitd.registry.settings import RegistrySettings
from kitd.registry.transport import Surroundings, Transport
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent

MIB = 1 << 20
CONTENT = os.urandom(WORTHWHILE_BYTES + 5 * BUFFER_BYTES + 321)
TARGET = describe("application/octet-stream", CONTENT)


class Blob:
    """Serves the content; `stop_after` says how many bytes of each answer are sent."""

    def __init__(self, *stop_after, hangs=False, closes=False):
        self.stop_after = list(stop_after)
        self.hangs = hangs
        self.closes = closes
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
        if self.closes or stop < len(CONTENT):
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


async def take(stream, memory, at_most=1 << 30, pause_s=0.0):
    """Take what is next, by a thread where that can; whether there was any."""
    if await stream.receive_into(memory, at_most):
        return True
    chunk = await anext(stream, None)
    if chunk is None:
        return False
    memory.write(chunk)
    # With nothing else to do, the loop receives more than is read.
    await asyncio.sleep(pause_s)
    return True


@pytest.fixture
async def download(serve):
    """Open a download of the content from a peer, whose connections may be silent for so long."""
    async with AsyncExitStack() as stack:

        async def open_from(blob, idle_s=60.0, settings=None, **options):
            host = await serve(blob.answer, **options)
            settings = settings or RegistrySettings()
            transport = await Transport.open(host, settings, Surroundings())
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


@pytest.mark.parametrize("pause_s", [0.0, 0.003])
async def test_a_body_comes_whole_through_tls_that_ends_right_after_it(download, pki, pause_s):
    """A reader that is slow finds what came before the end."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pki / "registry.pem", pki / "registry.key")
    settings = RegistrySettings(plain_http=False, ca_file=pki / "ca.pem")
    blob = Blob(closes=True)
    stream = await download(blob, settings=settings, ssl=context)
    memory = Memory()
    while await take(stream, memory, pause_s=pause_s):
        pass
    assert bytes(memory.content) == CONTENT
    assert len(blob.asked) == 1


async def test_a_thread_takes_over_from_the_loop_and_hands_back(download):
    """Whatever is asked for in turn: all bytes come once and in order."""
    stream = await download(Blob())
    memory, directly = Memory(), 0
    for turn in range(10_000):
        count = await stream.receive_into(memory, 3 << 20) if turn % 4 else None
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
    while await take(stream, memory):
        pass
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


async def test_without_descriptors_the_loop_goes_on(download):
    """A thread needs one of its own."""
    stream = await download(Blob())
    memory = Memory()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert await take(stream, memory)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        while await take(stream, memory, pause_s=0.001):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert bytes(memory.content) == CONTENT


async def test_a_part_that_comes_while_a_thread_receives_it_is_not_used(serve):
    """Where the thread will be is not known before it has ended: the part may be behind it."""
    content = b"".join(struct.pack(">Q", number) for number in range(12 << 20))
    target = describe("application/octet-stream", content)
    first, part = asyncio.Event(), asyncio.Event()

    async def answer(request):
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        if asked:
            await part.wait()
            start, end = int(asked[1]), int(asked[2]) + 1
            response = web.StreamResponse(status=206)
            response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
            response.content_length = end - start
            await response.prepare(request)
            await response.write(content[start:end])
            return response
        response = web.StreamResponse()
        response.content_length = len(content)
        await response.prepare(request)
        await response.write(memoryview(content)[: 8 * MIB])
        await first.wait()
        for start in range(8 * MIB, 40 * MIB, MIB // 4):
            # A thread has something to do for all of its moment.
            await response.write(memoryview(content)[start : start + MIB // 4])
            await asyncio.sleep(0.006)
        await response.write(memoryview(content)[40 * MIB :])
        return response

    def two(now_s):
        connections = ConnectionCount(now_s)
        connections.count = 2
        return connections

    transport = await Transport.open(await serve(answer), RegistrySettings(), Surroundings())
    request = Request(operation="fetch", method="GET", url=transport.url(""), is_download=True)
    memory = Memory()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(transport.close)
        stream = await stack.enter_async_context(
            open_download(
                transport, request, target, offset=0, read_ahead=ReadAhead(), connections=two
            )
        )
        while len(memory.content) < 7 * MIB:
            await take(stream, memory, 7 * MIB - len(memory.content), pause_s=0.01)
        first.set()
        # More than the loop takes at once comes meanwhile.
        await asyncio.sleep(0.1)
        asyncio.get_running_loop().call_later(0.03, part.set)
        while await take(stream, memory):
            pass
    assert bytes(memory.content) == content
