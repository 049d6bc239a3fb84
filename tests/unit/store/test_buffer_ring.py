"""A ring between one producer and its sinks: order, threads, bounds and errors."""

import ctypes
import mmap
import threading
import time
from contextlib import suppress

import pytest

from kitd.store.buffer_ring import BUFFER_BYTES, BUFFERS, BufferRing


def pattern(size):
    """Return bytes in which no two buffers are alike."""
    return b"".join(
        number.to_bytes(4, "little") * (BUFFER_BYTES // 16) for number in range(size * 4)
    )


def collector(into):
    return lambda data: into.append(bytes(data))


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture(autouse=True)
def no_thread_stays():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_what_fits_into_one_buffer_stays_in_the_calling_thread():
    seen = []
    with BufferRing(
        lambda data: seen.append((threading.get_ident(), bytes(data))),
        lambda data: seen.append((threading.get_ident(), bytes(data))),
    ) as ring:
        ring.write(b"first")
        ring.write(bytes(BUFFER_BYTES - 6))
        assert seen == []
        ring.drain()
    whole = b"first" + bytes(BUFFER_BYTES - 6)
    assert seen == [(threading.get_ident(), whole)] * 2


def test_more_than_that_goes_through_a_thread_for_each_sink():
    threads = [set(), set()]
    with BufferRing(
        lambda _: threads[0].add(threading.get_ident()),
        lambda _: threads[1].add(threading.get_ident()),
    ) as ring:
        ring.write(bytes(6 * BUFFER_BYTES + 1))
        ring.drain()
    assert len(threads[0] | threads[1] | {threading.get_ident()}) == 3


def test_every_sink_sees_all_bytes_in_order_in_whole_pages():
    content = pattern(6) + b"rest"
    pieces, others, places = [], [], []

    def place(data):
        places.append(ctypes.addressof(ctypes.c_char.from_buffer(data)))

    with BufferRing(collector(pieces), collector(others), place) as ring:
        ring.write(content[:1000])
        ring.write(memoryview(content)[1000:])
        ring.drain()
    assert b"".join(pieces) == content
    assert pieces == others
    assert {len(piece) for piece in pieces[:-1]} == {BUFFER_BYTES}
    assert len(set(places)) == BUFFERS
    assert all(address % mmap.PAGESIZE == 0 for address in places)


def test_what_is_read_into_the_room_is_what_the_sink_gets():
    pieces = []
    with BufferRing(collector(pieces)) as ring:
        room = ring.room()
        assert len(room) == BUFFER_BYTES
        room[:5] = b"hello"
        ring.fill(5)
        assert len(ring.room()) == BUFFER_BYTES - 5
        ring.fill(BUFFER_BYTES - 5)
        assert len(ring.room()) == BUFFER_BYTES
        ring.drain()
    assert b"".join(pieces)[:6] == b"hello\0"


def test_a_buffer_is_not_filled_again_before_the_slowest_sink_is_done_with_it():
    content = pattern(3 * BUFFERS)
    gate, slow, quick = threading.Event(), [], []

    def wait_and_collect(data):
        gate.wait(10)
        slow.append(bytes(data))

    with BufferRing(wait_and_collect, collector(quick)) as ring:
        producer = threading.Thread(target=ring.write, args=(content,))
        producer.start()
        # The last buffer is full by then and waits for the first.
        wait_for(lambda: len(quick) == BUFFERS - 1)
        gate.set()
        producer.join()
        ring.drain()
    assert b"".join(slow) == content
    assert b"".join(quick) == content


def failing_at(number):
    seen = []

    def sink(data):
        seen.append(len(data))
        if len(seen) >= number:
            raise OSError(f"piece {len(seen)}")

    return sink


@pytest.mark.parametrize("pieces", [0, 1, BUFFERS, 2 * BUFFERS])
@pytest.mark.parametrize("position", [0, 1])
def test_what_a_sink_raises_comes_out_of_every_drain(pieces, position):
    sinks = [lambda _: None]
    sinks.insert(position, failing_at(1))
    with BufferRing(*sinks) as ring:
        # Whether writing meets it already is a matter of time.
        with suppress(OSError):
            ring.write(bytes(pieces * BUFFER_BYTES + 1))
        for _ in range(2):
            with pytest.raises(OSError, match="piece"):
                ring.drain()


def test_a_producer_meets_the_error_soon_and_again():
    with BufferRing(failing_at(3)) as ring:
        for _ in range(3):
            with pytest.raises(OSError, match="piece 3"):
                ring.write(bytes(100 * BUFFER_BYTES))
        with pytest.raises(OSError, match="piece"):
            ring.drain()


def test_closing_waits_for_what_is_under_way():
    began, gate, ended = threading.Event(), threading.Event(), []

    def block(data):
        began.set()
        gate.wait(10)
        ended.append(len(data))

    ring = BufferRing(block)
    ring.write(bytes(3 * BUFFER_BYTES))
    began.wait(10)
    closing = threading.Thread(target=ring.close)
    closing.start()
    assert ended == []
    gate.set()
    closing.join()
    assert ended[0] == BUFFER_BYTES
    ring.close()
