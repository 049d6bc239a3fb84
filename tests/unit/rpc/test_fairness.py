import asyncio
import gc
import sys
import weakref
from collections import Counter, defaultdict
from itertools import chain, repeat

import pytest

from kitd.rpc.fairness import FairSlots


class Plain:
    """A connection, for all that matters here."""


@pytest.fixture
async def queue():
    """Wishes that all wait behind a first one, and in which order they have their turn."""

    class Connection:
        pass

    connections = defaultdict(Connection)

    class Queue:
        def __init__(self, slots):
            self.slots = FairSlots(slots)
            self.served = []
            self.inside = self.most = 0

        async def wish(self, uid, connection):
            async with self.slots.turn(uid, connections[connection]):
                self.inside += 1
                self.most = max(self.most, self.inside)
                self.served.append((uid, connection))
                await asyncio.sleep(0)
                self.inside -= 1

        async def serve(self, wishes, *, cancel=()):
            async with asyncio.TaskGroup() as group, self.slots.turn(0, connections["first"]):
                tasks = [group.create_task(self.wish(*wish)) for wish in wishes]
                await asyncio.sleep(0)
                for index in cancel:
                    tasks[index].cancel()
            return self.served

    return Queue


async def test_turns_go_round_among_users_however_many_wishes_one_has(queue):
    wishes = [*repeat((1, "a"), 100), (2, "b"), (3, "c"), (2, "b")]
    assert (await queue(1).serve(wishes))[:6] == [
        (1, "a"), (2, "b"), (3, "c"), (1, "a"), (2, "b"), (1, "a"),
    ]  # fmt: skip


async def test_turns_go_round_among_the_connections_of_a_user(queue):
    wishes = [*repeat((1, "a"), 50), *repeat((1, "b"), 50), (1, "c")]
    assert (await queue(1).serve(wishes))[:4] == [(1, "a"), (1, "b"), (1, "c"), (1, "a")]


async def test_a_user_with_many_connections_has_no_more_turns(queue):
    wishes = [*((1, n) for n in range(100)), *repeat((2, "x"), 10)]
    served = (await queue(1).serve(wishes))[:20]
    assert Counter(uid for uid, _ in served) == {1: 10, 2: 10}


@pytest.mark.parametrize("slots", [1, 3])
async def test_no_more_are_inside_than_there_are_slots(queue, slots):
    line = queue(slots)
    await line.serve(chain(repeat((1, "a"), 20), repeat((2, "b"), 20)))
    assert line.most == slots
    assert len(line.served) == 40


async def test_who_gives_up_waiting_is_passed_over_and_takes_no_slot_along(queue):
    line = queue(1)
    wishes = [(1, "a"), (1, "b"), (2, "c"), (1, "a"), (3, "d")]
    assert sorted(await line.serve(wishes, cancel=(0, 2, 4))) == [(1, "a"), (1, "b")]
    async with asyncio.timeout(5), line.slots.turn(9, line):
        pass


async def test_nothing_is_kept_of_those_who_give_up_while_a_slot_is_held():
    """Asking and taking it back is no way to fill the memory."""
    slots = FairSlots(1)
    connection = Plain()
    async with slots.turn(1, Plain()):
        sizes = []
        for _ in range(3):
            waiting = [asyncio.create_task(slots.take(2, connection)) for _ in range(50)]
            await asyncio.sleep(0)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
            sizes.append(sys.getrefcount(connection))
        assert sizes[0] == sizes[-1]
        del waiting, task
        gone = weakref.ref(connection)
        del connection
        gc.collect()
        assert gone() is None


async def test_a_turn_that_comes_together_with_the_cancellation_is_handed_on(queue):
    line = queue(1)
    async with asyncio.TaskGroup() as group:
        async with line.slots.turn(0, line):
            waiting = group.create_task(line.wish(1, "a"))
            await asyncio.sleep(0)
        # It has been given its turn and did not run yet.
        waiting.cancel()
    assert line.served == []
    async with asyncio.timeout(5), line.slots.turn(2, line):
        pass


async def test_whoever_finds_a_free_slot_does_not_wait():
    slots = FairSlots(2)
    async with slots.turn(1, slots), slots.turn(1, slots):
        pass


async def test_slots_that_are_taken_are_free_again_when_the_loop_has_turned():
    """Whoever never waits for anything else does not keep the loop."""
    slots = FairSlots(3)
    taken = 0

    async def take():
        nonlocal taken
        for _ in range(30):
            await slots.take(1, slots)
            taken += 1

    task = asyncio.create_task(take())
    counts = []
    while not task.done():
        before = taken
        await asyncio.sleep(0)
        counts.append(taken - before)
    assert taken == 30
    assert max(counts) == 3


async def test_an_error_inside_gives_the_slot_back():
    slots = FairSlots(1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            async with slots.turn(1, slots):
                raise ZeroDivisionError


@pytest.mark.parametrize(
    "who",
    [
        pytest.param(lambda _day, n: (1, n), id="connections"),
        pytest.param(lambda day, n: (1, 100 * day + n), id="new connections"),
        pytest.param(lambda _day, n: (2 + n, n), id="users"),
        pytest.param(lambda day, n: (2 + 100 * day + n, n), id="new users"),
    ],
)
async def test_who_asks_now_and_then_waits_for_one_turn(queue, who):
    """However many others wait, came before, or were never there before."""
    line = queue(1)
    await line.serve([(1, "rare")])
    for day in range(3):
        crowd = [who(day, n) for n in range(50)]
        await line.serve(crowd)
        line.served.clear()
        assert (await line.serve([*crowd, *crowd, (1, "rare")]))[0] == (1, "rare")
