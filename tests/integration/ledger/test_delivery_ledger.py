"""Deliveries in the ledger: listed, counted, read again, and never twice."""

from dataclasses import replace

import pytest

from kitd.errors import NotFoundError
from kitd.ledger.delivery_ledger import (
    DeliveryFilter,
    DeliveryLedger,
    NewDelivery,
    NotReplayableError,
    Outcome,
    pack_body,
    unpack_body,
)


@pytest.fixture
def deliveries(database, clock, jobs) -> DeliveryLedger:
    return DeliveryLedger(database, clock, jobs)


@pytest.fixture
def new(clock):
    """Make a delivery; what is not named is plain."""

    def new(name="d", **fields) -> NewDelivery:
        plain = {
            "source": "one",
            "name": name,
            "fingerprint": b"f",
            "received_us": clock.at_us,
            "state": "accepted",
            "reason": None,
            "changes": 1,
            "headers": {"content-type": "text/plain"},
            "body_bytes": 4,
            "body": pack_body(b"body"),
        }
        return NewDelivery(**{**plain, **fields})

    return new


async def test_jobs_are_admitted_with_the_row_and_not_with_a_duplicate(deliveries, jobs, new, wish):
    wishes = [wish("a"), wish("b"), wish("a")]
    assert await deliveries.keep(new(), wishes) == 1
    assert await deliveries.keep(new(), [wish("c")]) is None
    (kept,) = await deliveries.list(DeliveryFilter())
    assert kept.jobs == (1, 2)
    with pytest.raises(NotFoundError):
        await jobs.job(3)


async def test_a_row_that_cannot_be_written_asks_for_no_job(deliveries, new, wish, sql):
    with pytest.raises(Exception, match="CHECK"):
        await deliveries.keep(new(state="lost"), [wish("a")])
    assert sql("SELECT count(*) FROM jobs") == [(0,)]


async def test_a_lane_is_looked_at_when_a_delivery_asked_for_a_job_of_it(
    deliveries, jobs, new, wish
):
    lane = wish().lane
    assert not await jobs.claim({lane: 1})
    await deliveries.keep(new(), [wish("a")])
    assert [job.key for job in await jobs.claim({lane: 1})] == ["a"]


async def test_lists_and_counts(deliveries, new, clock):
    for number in range(6):
        state = "malformed" if number % 3 == 0 else "ignored"
        source = "one" if number < 4 else "two"
        await deliveries.keep(new(f"d{number}", source=source, state=state), ())
        clock.advance(1)
    start_us = clock.at_us - 6_000_000

    async def ids(**wanted):
        return [each.id for each in await deliveries.list(DeliveryFilter(**wanted))]

    assert await ids() == [6, 5, 4, 3, 2, 1]
    assert await ids(limit=2, before=5) == [4, 3]
    assert await ids(source="one", state="malformed") == [4, 1]
    assert await ids(state="malformed") == [4, 1]
    assert await ids(source="two") == [6, 5]
    assert await ids(after=0, since_us=start_us + 2_000_000, limit=2) == [3, 4]
    assert await ids(after=4, since_us=start_us) == [5, 6]
    assert await deliveries.counts() == {
        "one": {"ignored": 2, "malformed": 2},
        "two": {"ignored": 2},
    }


async def test_what_was_kept_is_read_again_as_it_came(deliveries, new, clock):
    body = bytes(range(256)) * 4000
    await deliveries.keep(new(body=pack_body(body)), ())
    letter = await deliveries.letter(1)
    assert (unpack_body(letter.packed_body), letter.headers) == (
        body,
        {"content-type": "text/plain"},
    )
    assert letter.received_us == clock.at_us


async def test_what_is_not_there_cannot_be_read_again(deliveries, new):
    await deliveries.keep(new(body=None), ())
    with pytest.raises(NotReplayableError):
        await deliveries.letter(1)
    outcome = Outcome("accepted", None, 0)
    for call in (deliveries.letter(2), deliveries.get(2), deliveries.replayed(2, outcome, ())):
        with pytest.raises(NotFoundError):
            await call


async def test_a_replay_that_finds_no_row_asks_for_no_job(deliveries, wish, sql):
    with pytest.raises(NotFoundError):
        await deliveries.replayed(1, Outcome("accepted", None, 1), [wish("a")])
    assert sql("SELECT count(*) FROM jobs") == [(0,)]


async def test_the_same_content_has_no_meaning_where_there_are_names(deliveries, new):
    assert await deliveries.keep(new("a"), ()) == 1
    assert await deliveries.keep(new("b"), ()) == 2
    assert await deliveries.keep(new(None), ()) == 3
    assert await deliveries.keep(new(None), ()) is None
    assert await deliveries.keep(replace(new(None), fingerprint=b"g"), ()) == 4
