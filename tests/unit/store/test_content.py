import asyncio
from collections import Counter

import pytest

from kitd.store.content import Pace


@pytest.mark.parametrize("readers", [1, 2, 7])
async def test_one_reader_goes_on_each_time_the_loop_turns(readers):
    pace = Pace()
    went_on = Counter()

    async def read(number):
        for _ in range(10):
            await pace.keep()
            went_on[number] += 1

    tasks = [asyncio.create_task(read(number)) for number in range(readers)]
    steps = []
    while not all(task.done() for task in tasks):
        before = went_on.total()
        await asyncio.sleep(0)
        steps.append(went_on.total() - before)
        # Who asks again at once asked before those who have not begun.
        assert max(went_on.values(), default=0) - min(went_on[n] for n in range(readers)) <= 2
    assert went_on == dict.fromkeys(range(readers), 10)
    assert max(steps) == 1


async def test_a_reader_that_is_cancelled_holds_up_nobody():
    pace = Pace()
    tasks = [asyncio.create_task(pace.keep()) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    async with asyncio.timeout(5):
        await tasks[2]
        await pace.keep()
