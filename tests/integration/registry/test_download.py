"""A blob as one stream, over connections that end wherever they like."""

import asyncio
import re
import struct
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from aiohttp import web

from kitd.errors import KitdError
from kitd.oci.descriptor import Descriptor, describe
from kitd.registry.download import ReadAhead, open_download
from kitd.registry.download_plan import SEGMENT_BYTES, WORTHWHILE_BYTES, ConnectionCount
from kitd.registry.errors import (
    RegistryMismatchError,
    RegistryServerError,
    RegistryUnreachableError,
)
from kitd.registry.request import Request
from kitd.registry.settings import RegistrySettings
from kitd.registry.transport import Surroundings, Transport

MIB = 1 << 20
SMALL = b"".join(struct.pack(">I", number) for number in range(MIB))
LARGE_BYTES = WORTHWHILE_BYTES + 5 * SEGMENT_BYTES + 4321


def large(start, end):
    """Return a part of content in which each block says where it is."""
    first = start // 4096
    blocks = b"".join(struct.pack(">Q", at) * 512 for at in range(first, (end + 4095) // 4096))
    return blocks[start - first * 4096 : end - first * 4096]


@dataclass
class Blob:
    """Serves one blob, with the faults that a test wants of it."""

    size: int
    read: object
    cut_after: int | None = None
    """Bytes after which each answer breaks off."""
    takes_ranges: bool = True
    at_once: int = 100
    """How many answers are sent at a time; more are refused."""
    etags: list[str] = field(default_factory=list)
    """Those of the answers in turn."""
    asked: list[str] = field(default_factory=list)
    sent: int = 0
    open: int = 0
    most: int = 0

    async def answer(self, request):
        self.asked.append(request.headers.get("Range", ""))
        start, end = 0, self.size
        headers = {"ETag": self.etags.pop(0)} if self.etags else {}
        if self.takes_ranges and (asked := re.fullmatch(r"bytes=(\d+)-(\d+)", self.asked[-1])):
            start, end = int(asked[1]), int(asked[2]) + 1
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{self.size}"
        if self.open >= self.at_once:
            raise web.HTTPTooManyRequests
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            return await self.send(request, start, end, headers)
        finally:
            self.open -= 1

    async def send(self, request, start, end, headers):
        response = web.StreamResponse(status=206 if "Content-Range" in headers else 200)
        response.headers.update(headers)
        response.content_length = end - start
        await response.prepare(request)
        stop = end if self.cut_after is None else min(end, start + self.cut_after)
        for at in range(start, stop, MIB // 2):
            part = self.read(at, min(at + MIB // 2, stop))
            await response.write(part)
            self.sent += len(part)
        if stop < end:
            request.transport.close()
        return response


def small(start, end):
    return SMALL[start:end]


TARGET = describe("application/octet-stream", SMALL)


async def collect(remote, target=TARGET, offset=0):
    async with remote.fetch(target, offset=offset) as stream:
        return b"".join([bytes(chunk) async for chunk in stream])


@pytest.mark.parametrize("cut_after", [MIB, 3 * MIB // 2, 4 * MIB - 1])
@pytest.mark.parametrize("offset", [0, 1, MIB + 17])
async def test_a_download_that_is_cut_again_and_again_goes_on(serve, connect, cut_after, offset):
    blob = Blob(len(SMALL), small, cut_after=cut_after)
    remote = await connect(await serve(blob.answer))
    assert await collect(remote, offset=offset) == SMALL[offset:]
    # Each goes on right where the one before it ended, so nothing is sent twice.
    assert blob.sent == len(SMALL) - offset
    assert len(blob.asked) == -(-(len(SMALL) - offset) // cut_after)


async def test_without_progress_it_ends_with_the_error(serve, connect):
    blob = Blob(len(SMALL), small, cut_after=1000)
    remote = await connect(await serve(blob.answer))
    with pytest.raises(RegistryUnreachableError, match="cut off"):
        await collect(remote)
    assert len(blob.asked) == 2


async def test_a_registry_that_ignores_ranges_is_skipped_through_after_a_cut(serve, connect):
    blob = Blob(len(SMALL), small, takes_ranges=False)

    async def handler(request):
        blob.cut_after = None if blob.asked else 2 * MIB
        return await blob.answer(request)

    assert await collect(await connect(await serve(handler))) == SMALL
    assert blob.sent == len(SMALL) + 2 * MIB


async def test_a_registry_that_refuses_ranges_is_skipped_through_after_a_cut(serve, connect):
    blob = Blob(len(SMALL), small)

    async def handler(request):
        if "Range" in request.headers:
            raise web.HTTPRequestRangeNotSatisfiable
        blob.cut_after = None if blob.asked else 2 * MIB
        return await blob.answer(request)

    assert await collect(await connect(await serve(handler))) == SMALL
    assert blob.sent == len(SMALL) + 2 * MIB


async def test_an_error_of_the_server_after_a_cut_is_told(serve, connect):
    blob = Blob(len(SMALL), small, cut_after=2 * MIB)

    async def handler(request):
        if blob.asked:
            raise web.HTTPInternalServerError
        return await blob.answer(request)

    with pytest.raises(RegistryServerError):
        await collect(await connect(await serve(handler)))


@pytest.mark.parametrize(
    ("etags", "same"),
    [
        (['"a"', '"a"'], True),
        (['"a"', '"b"'], False),
        (['W/"a"', 'W/"b"'], True),
        (['"a"'], True),
    ],
)
async def test_content_that_changed_after_a_cut_is_noticed(serve, connect, etags, same):
    blob = Blob(len(SMALL), small, cut_after=2 * MIB, etags=etags)
    remote = await connect(await serve(blob.answer))
    if same:
        assert await collect(remote) == SMALL
    else:
        with pytest.raises(RegistryMismatchError, match="other content"):
            await collect(remote)


async def test_content_of_another_size_after_a_cut_is_noticed(serve, connect):
    blob = Blob(len(SMALL), small, cut_after=2 * MIB)

    async def handler(request):
        if blob.asked:
            blob.size += 1
        return await blob.answer(request)

    with pytest.raises(RegistryMismatchError):
        await collect(await connect(await serve(handler)))


async def test_an_end_that_only_the_connection_tells_may_be_a_cut(talk, connect):
    async def answer(reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        asked = re.search(r"Range: bytes=(\d+)-", head)
        start = int(asked[1]) if asked else 0
        part = f"206 Part\r\nContent-Range: bytes {start}-{len(SMALL) - 1}/{len(SMALL)}"
        writer.write(f"HTTP/1.0 {part if start else '200 OK'}\r\n\r\n".encode())
        writer.write(SMALL[start : start + 3 * MIB])
        await writer.drain()

    assert await collect(await connect(await talk(answer))) == SMALL


async def test_a_large_blob_is_one_plain_request_where_that_is_fast(serve, connect):
    blob = Blob(LARGE_BYTES, large)
    remote = await connect(await serve(blob.answer))
    target = replace(TARGET, size=LARGE_BYTES)
    position = 0
    async with remote.fetch(target) as stream:
        async for chunk in stream:
            position += len(chunk)
    assert position == LARGE_BYTES
    assert blob.asked == [""]


class Several(ConnectionCount):
    """Begins with four connections, and tries no more."""

    def __init__(self, now_s):
        super().__init__(now_s)
        self.count = 4

    def review(self, now_s):
        """Have no opinion."""


@dataclass
class Bench:
    transport: Transport
    read_ahead: ReadAhead

    @asynccontextmanager
    async def opened(self, offset=0):
        target = Descriptor("application/octet-stream", TARGET.digest, LARGE_BYTES)
        request = Request(operation="fetch", method="GET", url=self.transport.url("blob"))
        async with open_download(
            self.transport,
            request,
            target,
            offset=offset,
            read_ahead=self.read_ahead,
            connections=Several,
        ) as stream:
            yield stream

    async def check(self, offset=0):
        """Read everything and compare it."""
        position = offset
        async with self.opened(offset) as stream:
            async for chunk in stream:
                assert chunk == large(position, position + len(chunk))
                position += len(chunk)
        assert position == LARGE_BYTES

    def is_given_back(self, size=8 * SEGMENT_BYTES):
        if not self.read_ahead.take(size):
            return False
        self.read_ahead.give_back(size)
        return True


@pytest.fixture
async def bench_for(serve):
    async with AsyncExitStack() as stack:

        async def sleep(_delay_s):
            """Wait for nothing between attempts."""

        async def make(handler, read_ahead_bytes=8 * SEGMENT_BYTES):
            surroundings = Surroundings(environment={}, sleep=sleep)
            transport = await Transport.open(await serve(handler), RegistrySettings(), surroundings)
            stack.push_async_callback(transport.close)
            return Bench(transport, ReadAhead(read_ahead_bytes))

        yield make


@pytest.mark.parametrize("offset", [0, 12345, LARGE_BYTES - WORTHWHILE_BYTES // 2])
async def test_several_connections_give_one_stream(bench_for, offset):
    blob = Blob(LARGE_BYTES, large)
    bench = await bench_for(blob.answer)
    await bench.check(offset)
    assert blob.most == (4 if offset < LARGE_BYTES - WORTHWHILE_BYTES else 1)
    assert bench.is_given_back()


async def test_connections_that_are_all_cut_give_one_stream(bench_for):
    blob = Blob(LARGE_BYTES, large, cut_after=3 * MIB)
    bench = await bench_for(blob.answer)
    await bench.check()
    assert bench.is_given_back()


async def test_a_server_that_takes_one_connection_at_a_time_is_read_to_the_end(bench_for):
    blob = Blob(LARGE_BYTES, large, at_once=1)
    bench = await bench_for(blob.answer)
    await bench.check()
    assert bench.is_given_back()


async def test_a_server_that_ignores_ranges_is_asked_for_them_once(bench_for):
    blob = Blob(LARGE_BYTES, large, takes_ranges=False)
    bench = await bench_for(blob.answer)
    await bench.check()
    # And the connection that reads goes on.
    assert blob.asked[0] == ""
    assert len(blob.asked) == 2
    assert bench.is_given_back()


@pytest.mark.parametrize("segments", [0, 1])
async def test_without_memory_to_fetch_ahead_the_readers_own_connection_does(bench_for, segments):
    blob = Blob(LARGE_BYTES, large)
    bench = await bench_for(blob.answer, read_ahead_bytes=segments * SEGMENT_BYTES)
    await bench.check()
    assert blob.most <= 1 + segments
    assert bench.is_given_back(segments * SEGMENT_BYTES)


async def test_downloads_that_share_the_memory_do_not_wait_for_each_other(bench_for):
    blob = Blob(LARGE_BYTES, large)
    bench = await bench_for(blob.answer)
    async with asyncio.timeout(50), bench.opened() as stalled:
        # Reads a little, and then nothing, with whatever it had fetched ahead.
        assert await anext(stalled)
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(bench.check())
    assert bench.is_given_back()


async def test_a_download_that_is_left_leaves_nothing_behind(bench_for):
    blob = Blob(LARGE_BYTES, large)
    bench = await bench_for(blob.answer)
    before = asyncio.all_tasks()
    async with bench.opened() as stream:
        for _ in range(3):
            assert await anext(stream)
    assert {
        task for task in asyncio.all_tasks() - before if task.get_name() == "read ahead"
    } == set()
    assert bench.is_given_back()


async def test_a_download_that_is_left_at_its_first_chunk_leaves_nothing_behind(bench_for):
    """The one that looks ahead has not taken its first step."""
    blob = Blob(LARGE_BYTES, large)
    bench = await bench_for(blob.answer)
    async with bench.opened() as stream:
        assert await anext(stream)
        assert not bench.is_given_back()
    assert bench.is_given_back()


async def test_a_reader_that_is_cancelled_leaves_nothing_behind(bench_for):
    blob = Blob(LARGE_BYTES, large)
    bench = await bench_for(blob.answer)
    half_way = asyncio.Event()

    async def read():
        position = 0
        async with bench.opened() as stream:
            async for chunk in stream:
                position += len(chunk)
                if position > LARGE_BYTES // 2:
                    half_way.set()

    reading = asyncio.create_task(read())
    await half_way.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "read ahead"]
    assert bench.is_given_back()


async def test_what_nobody_can_send_is_an_error(bench_for):
    blob = Blob(LARGE_BYTES, large)

    async def handler(request):
        if len(blob.asked) > 2:
            raise web.HTTPGone
        return await blob.answer(request)

    blob.cut_after = 2 * MIB
    bench = await bench_for(handler)
    with pytest.raises(KitdError, match="410"):
        await bench.check()
    assert bench.is_given_back()
