"""Where endpoints are in the stream, and what is wrong with them."""

import pytest

from kitd.ledger.event_ledger import emit
from kitd.ledger.outbox_ledger import OutboxLedger
from kitd.queue.job import Failure

REFUSED = Failure("notification_refused", "it answered HTTP 500", "look at its log")


@pytest.fixture
def outbox(database, events, clock):
    return OutboxLedger(database, events, clock)


@pytest.fixture
def tell(database, clock):
    async def tell(*types):
        def transaction(connection):
            for kind in types:
                emit(connection, clock.at_us, kind, "daemon", {})

        await database.write(transaction)

    return tell


async def test_a_new_endpoint_begins_at_the_end_and_one_that_is_known_goes_on(outbox, tell, sql):
    assert await outbox.keep(["a"]) == {"a": 0}
    await tell(*"xyz")
    assert await outbox.keep(["a", "b"]) == {"a": 0, "b": 3}
    # The head does not depend on what retention left of it.
    sql("DELETE FROM events")
    assert await outbox.keep(["c", "b"]) == {"b": 3, "c": 3}
    assert await outbox.keep([]) == {}
    assert sql("SELECT count(*) FROM outbox") == [(0,)]


async def test_a_cursor_never_goes_back(outbox, tell):
    await outbox.keep(["a"])
    await tell(*"xyz")
    await outbox.advance("a", 2, told=True)
    await outbox.advance("a", 1, told=False)
    assert await outbox.keep(["a"]) == {"a": 2}


async def test_failures_count_until_something_is_told(outbox, clock):
    await outbox.keep(["a"])
    began_us = clock.at_us
    for _ in range(3):
        await outbox.note_failure("a", REFUSED)
        clock.advance(60)
    await outbox.advance("a", 0, told=False)
    (failing,) = await outbox.failing(3)
    assert (failing.name, failing.failures, failing.since_us) == ("a", 3, began_us)
    assert failing.error == REFUSED
    await outbox.advance("a", 0, told=True)
    assert await outbox.failing(0) == []


async def test_a_page_says_what_is_forgotten(outbox, tell, sql):
    await tell(*"wxyz")
    sql("DELETE FROM events WHERE seq <= 2")
    page = await outbox.read(0, 10)
    assert (list(page.events), page.forgotten_seq) == ([], 2)
    page = await outbox.read(2, 10)
    assert ([event.type for event in page.events], page.forgotten_seq) == (["y", "z"], None)


async def test_what_is_dropped_is_told_once(outbox, tell, events):
    await outbox.keep(["a"])
    await tell(*"xyz")
    for _ in range(2):
        await outbox.drop("a", 2, events=1, why="too_old")
    await outbox.drop("gone", 2, events=1, why="too_old")
    (told,) = await events.read(3, 10)
    assert (told.type, told.subject) == ("notification.dropped", "notification:a")
    assert told.data == {"endpoint": "a", "events": 1, "through": 2, "why": "too_old"}
    assert await outbox.keep(["a"]) == {"a": 2}


async def test_what_is_noted_of_an_endpoint_that_is_gone_is_nothing(outbox, sql):
    await outbox.note_failure("a", REFUSED)
    await outbox.advance("a", 5, told=True)
    assert sql("SELECT * FROM outbox") == []
