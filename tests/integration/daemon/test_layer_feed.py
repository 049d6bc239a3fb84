"""Layers on their way from a source to a client that unpacks them, both ends for real."""

import asyncio
import os
import select
import socket
from contextlib import asynccontextmanager

import pytest

from kitd.client.extract import OpenLayer, extract
from kitd.client.layer_feed import FeedError, LayerFeed
from kitd.client.layer_stream import LayerError
from kitd.client.record import Layer
from kitd.content.store import ContentNotFoundError
from kitd.daemon.layer_feed import MAX_FEEDS, MAX_FEEDS_EACH, LayerFeeds
from kitd.errors import KitdError, UnavailableError
from kitd.oci.descriptor import describe

RAW = "application/vnd.kitops.modelkit.model.v1.raw"
CONTENT = os.urandom(3 << 20)
TARGET = describe(RAW, CONTENT)
UID = 1000


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


class SourceLostError(KitdError):
    """The source is gone."""

    code = "source_lost"


class Source:
    """Gives content in pieces, then fails with `error`, if there is one; counts who reads."""

    def __init__(self, content=CONTENT, error=None):
        self.content = content
        self.error = error
        self.readers = 0
        self.offsets = []

    async def exists(self, target):
        return target.digest == TARGET.digest

    @asynccontextmanager
    async def fetch(self, target, *, offset=0):
        self.readers += 1
        self.offsets.append(offset)
        try:
            yield self.pieces(offset)
        finally:
            self.readers -= 1

    async def pieces(self, offset):
        yield b""
        for start in range(offset, len(self.content), 100_000):
            yield self.content[start : start + 100_000]
        if self.error is not None:
            raise self.error


@pytest.fixture
async def feeding():
    """Run feeds; all have ended after the test."""
    async with asyncio.TaskGroup() as group:
        made = []

        def feeding(**options):
            made.append(LayerFeeds(group, **options))
            return made[-1]

        yield feeding
        for feeds in made:
            feeds.stop()


@pytest.fixture
def unpack(tmp_path):
    """Extract the layer from a descriptor, as `kitctl unpack` does, in a thread."""

    async def unpack(handle):
        layer = Layer(TARGET.digest, TARGET.size, RAW, None, "model.bin", elsewhere=True)
        opened = [OpenLayer(layer, handle)]
        try:
            return await asyncio.to_thread(
                extract, tmp_path / "out", opened, kitfile=None, progress=lambda _count: None
            )
        finally:
            os.close(handle)

    return unpack


async def test_a_layer_arrives_as_it_is(feeding, unpack, tmp_path):
    await unpack(await feeding().open(TARGET, Source(), UID))
    assert (tmp_path / "out" / "model.bin").read_bytes() == CONTENT


async def test_an_end_before_the_end_is_an_error_with_the_reason(feeding, unpack, tmp_path):
    """No hang, and no name."""
    error = SourceLostError("the registry is gone", hint="look for it")
    source = Source(CONTENT[: 1 << 20], error)
    with pytest.raises(FeedError, match="the registry is gone") as caught:
        await unpack(await feeding().open(TARGET, source, UID))
    assert caught.value.hint == "look for it"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (CONTENT[:-1], "digest|goes on"),
        (CONTENT + b"!", "goes on after its end"),
        (CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]), "digest"),
        (b"", "digest|goes on"),
    ],
    ids=["short", "long", "other", "none"],
)
async def test_what_is_not_the_layer_gets_no_name(feeding, unpack, tmp_path, content, expected):
    with pytest.raises(LayerError, match=expected):
        await unpack(await feeding().open(TARGET, Source(content), UID))
    assert not (tmp_path / "out").exists()


async def test_a_client_that_stops_reading_holds_nothing_for_ever(feeding):
    """The source is let go of, and the client sees that it was given up."""
    source = Source()
    handle = await feeding(release_s=0.01, stall_s=0.05).open(TARGET, source, UID)
    feed = LayerFeed(handle, TARGET.digest)
    assert await asyncio.to_thread(feed.read)
    await until(lambda: is_hung_up(handle))
    assert not source.readers
    with pytest.raises(FeedError, match="ended in the middle"):
        await asyncio.to_thread(drain, feed)
    os.close(handle)


async def test_a_client_that_does_not_read_keeps_no_transfer_open(feeding, unpack, tmp_path):
    """When it reads again another one goes on, and the layer is whole."""
    source = Source()
    handle = await feeding(release_s=0.01).open(TARGET, source, UID)
    await until(lambda: source.offsets and not source.readers)
    await unpack(handle)
    assert (tmp_path / "out" / "model.bin").read_bytes() == CONTENT
    assert len(source.offsets) > 1
    assert source.offsets == sorted(set(source.offsets))


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("no"), OSError(5, "no"), TimeoutError("no")], ids=type
)
async def test_a_defect_of_one_feed_is_told_and_ends_no_other(feeding, unpack, error):
    """What the source raises is not taken for the client's leaving either."""
    broken, whole = Source(CONTENT[: 1 << 20], error), Source()
    with pytest.raises(FeedError, match=f"a defect in kitd: {type(error).__name__}"):
        await unpack(await feeding().open(TARGET, broken, UID))
    await unpack(await feeding().open(TARGET, whole, UID))


async def test_a_client_that_leaves_takes_the_source_along(feeding):
    source = Source(CONTENT * 4)
    handle = await feeding().open(TARGET, source, UID)
    os.close(handle)
    await until(lambda: not source.readers)


async def test_only_so_many_layers_are_sent_at_once(feeding):
    """To one user fewer than to all."""
    feeds, source = feeding(), Source()
    handles = []
    for uid in range(MAX_FEEDS // MAX_FEEDS_EACH):
        handles += [await feeds.open(TARGET, source, uid) for _ in range(MAX_FEEDS_EACH)]
        with pytest.raises(UnavailableError):
            await feeds.open(TARGET, source, uid)
    with pytest.raises(UnavailableError):
        await feeds.open(TARGET, source, UID)
    for handle in handles:
        os.close(handle)


async def test_what_nobody_has_is_not_found(feeding):
    with pytest.raises(ContentNotFoundError):
        await feeding().open(describe(RAW, b"other"), Source(), UID)


@pytest.mark.parametrize(
    "sent",
    [b"", b"\0\0", b"\0\0\0\x05abc", bytes(4), bytes(4) + b"[]", bytes(4) + b"{"],
    ids=["nothing", "half a length", "half a frame", "no end", "no object", "half an object"],
)
def test_half_a_feed_is_an_error(sent):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(sent)
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(FeedError):
            drain(LayerFeed(theirs.fileno(), TARGET.digest))


def is_hung_up(handle):
    poll = select.poll()
    poll.register(handle, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def drain(feed):
    while feed.read():
        pass
