"""The stream of events: read from any place, wait for its end to move."""

import asyncio

import pytest

from kitd.ledger.event_ledger import (
    MAX_READ,
    CursorFutureError,
    CursorTruncatedError,
    EventFilter,
    emit,
)


@pytest.fixture
def tell(database, clock):
    """Write events in one transaction; what is not named is plain."""

    async def tell(*types, job=None, project=None, data=None):
        def transaction(connection):
            for kind in types:
                emit(connection, clock.at_us, kind, "daemon", data or {}, job=job, project=project)

        await database.write(transaction)

    return tell


@pytest.fixture
def forget(database):
    """Remove events up to a number, as retention does."""

    async def forget(seq):
        await database.write(
            lambda c: c.execute("DELETE FROM events WHERE seq <= ?", (seq,)).close()
        )

    return forget


async def types(events, after_seq=0, limit=MAX_READ, **wanted):
    found = await events.read(after_seq, limit, EventFilter(**wanted))
    return [event.type for event in found]


async def test_an_empty_stream_has_a_head(events):
    assert (await events.head_seq(), await events.floor_seq()) == (0, 0)
    assert list(await events.read(0, 10)) == []


async def test_an_event_comes_back_as_it_was_told(events, tell, clock):
    await tell("a", job=3, project="p", data={"text": "Grévy ", "list": [1, None]})
    (event,) = await events.read(0, 10)
    assert (event.seq, event.at_us, event.type, event.subject) == (1, clock.at_us, "a", "daemon")
    assert (event.job, event.project) == (3, "p")
    assert event.data == {"text": "Grévy ", "list": [1, None]}


async def test_a_reader_goes_on_where_it_stopped(events, tell):
    await tell(*"abcde")
    seen, cursor = [], 0
    while page := await events.read(cursor, 2):
        seen += [event.type for event in page]
        cursor = page[-1].seq
    assert seen == list("abcde")
    assert cursor == await events.head_seq() == 5


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, "abcab"),
        ({"types": frozenset("a")}, "aa"),
        ({"types": frozenset("bc")}, "bcb"),
        ({"types": frozenset(["x'] OR 1"])}, ""),
        ({"project": "p"}, "abc"),
        ({"job": 2}, "ab"),
        ({"job": 1, "types": frozenset("c"), "project": "p"}, "c"),
        ({"job": 2, "project": "p"}, ""),
    ],
)
async def test_a_reader_gets_what_it_wants(events, tell, wanted, found):
    await tell("a", "b", "c", job=1, project="p")
    await tell("a", "b", job=2)
    assert await types(events, **wanted) == list(found)


@pytest.mark.parametrize(
    ("limit", "length"), [(0, 0), (-1, 0), (3, 3), (MAX_READ, MAX_READ), (10**9, MAX_READ)]
)
async def test_no_page_is_longer_than_it_may_be(events, tell, limit, length):
    await tell(*["a"] * (MAX_READ + 1))
    assert len(await events.read(0, limit)) == length


async def test_a_cursor_that_was_forgotten_is_an_error(events, tell, forget):
    await tell(*"abcd")
    await forget(2)
    assert await events.floor_seq() == 2
    assert await types(events, after_seq=2) == ["c", "d"]
    for cursor in (0, 1, -1):
        with pytest.raises(CursorTruncatedError) as caught:
            await events.read(cursor, 10)
        assert caught.value.code == "cursor_truncated"


async def test_a_cursor_in_the_future_is_an_error(events, tell):
    await tell("a")
    assert await types(events, after_seq=1) == []
    with pytest.raises(CursorFutureError) as caught:
        await events.read(2, 10)
    assert caught.value.code == "cursor_future"


async def test_numbers_are_never_given_again(events, tell, forget):
    """A reader whose events were all forgotten is not sent back to numbers it knows."""
    await tell(*"abc")
    await forget(3)
    assert (await events.floor_seq(), await events.head_seq()) == (3, 3)
    assert await types(events, after_seq=3) == []
    with pytest.raises(CursorTruncatedError):
        await events.read(2, 10)
    await tell("d")
    assert [event.seq for event in await events.read(3, 10)] == [4]


async def test_what_was_undone_leaves_no_gap(database, events, tell):
    def transaction(connection):
        emit(connection, 0, "undone", "daemon", {})
        raise ZeroDivisionError

    await tell("a")
    with pytest.raises(ZeroDivisionError):
        await database.write(transaction)
    await tell("b")
    assert [(event.seq, event.type) for event in await events.read(0, 9)] == [(1, "a"), (2, "b")]


async def test_a_job_s_events_are_found_after_others_were_forgotten(events, tell, forget):
    await tell("a", job=1)
    await tell("b", job=2)
    await tell("c", job=1)
    assert [event.type for event in await events.of_job(1)] == ["a", "c"]
    await forget(2)
    assert [event.type for event in await events.of_job(1)] == ["c"]
    assert list(await events.of_job(2)) == []


async def test_waiting_ends_with_the_next_event(events, tell):
    await tell("a")
    async with asyncio.timeout(10):
        await events.wait(0)
        waiters = [asyncio.create_task(events.wait(1)) for _ in range(3)]
        late = asyncio.create_task(events.wait(2))
        await events.head_seq()
        assert not any(waiter.done() for waiter in waiters)
        await tell("b")
        await asyncio.wait(waiters)
        assert not late.done()
        await tell("c")
        await late


async def test_no_event_slips_between_looking_and_waiting(events, tell):
    """Readers that follow while writers write see every event once, in order."""
    total = 60
    seen = []

    async def follow():
        cursor = 0
        while cursor < total:
            await events.wait(cursor)
            for event in await events.read(cursor, 7):
                seen.append(event.seq)
                cursor = event.seq

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(follow())
        for _ in range(3):
            group.create_task(write_some(tell, total // 3))
    assert seen == list(range(1, total + 1))


async def write_some(tell, count):
    for _ in range(count):
        await tell("a")
