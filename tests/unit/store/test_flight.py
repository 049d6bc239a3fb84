"""Turns at a digest."""

import asyncio

import pytest

from kitd.oci.digest import digest_of
from kitd.store.flight import Flights

ONE, OTHER = digest_of(b"one"), digest_of(b"other")


async def test_one_is_at_a_digest_at_a_time_in_the_order_of_asking():
    flights, order, inside = Flights(), [], 0

    async def fly(number):
        nonlocal inside
        async with flights.turn(ONE):
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            inside -= 1
            order.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(fly(number))
    assert order == list(range(10))


async def test_others_do_not_wait():
    flights = Flights()
    async with asyncio.timeout(5), flights.turn(ONE), flights.turn(OTHER):
        pass


async def test_who_fails_or_gives_up_lets_the_next_one_go():
    flights = Flights()
    with pytest.raises(RuntimeError):
        async with flights.turn(ONE):
            raise RuntimeError
    async with asyncio.timeout(5):
        async with flights.turn(ONE):
            waiting = asyncio.create_task(flights.turn(ONE).__aenter__())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        async with flights.turn(ONE):
            pass
