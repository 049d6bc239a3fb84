"""Blocking work off the loop: cancelled waiters wait for it all the same."""

import asyncio
import threading

import pytest

from kitd.blocking import run_blocking


async def test_a_result_comes_from_another_thread():
    here = threading.get_ident()
    assert await run_blocking(threading.get_ident) != here
    assert await run_blocking(int, "ff", base=16) == 255


async def test_an_error_is_raised_where_it_is_awaited():
    with pytest.raises(ValueError, match="invalid literal"):
        await run_blocking(int, "x")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("cancellations", [1, 3])
async def test_a_cancelled_waiter_goes_on_only_once_the_work_is_done(cancellations, fails):
    started, go = threading.Event(), threading.Event()
    done = []

    def work():
        started.set()
        assert go.wait(20)
        done.append(True)
        if fails:
            raise ValueError("nobody hears it")

    async def wait():
        try:
            await run_blocking(work)
        finally:
            assert done

    waiter = asyncio.create_task(wait())
    await run_blocking(started.wait, 20)
    for _ in range(cancellations):
        waiter.cancel()
        await asyncio.wait([waiter], timeout=0.01)
        assert not waiter.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await waiter


async def test_the_loop_goes_on_meanwhile():
    go = threading.Event()
    work = asyncio.create_task(run_blocking(go.wait, 20))
    await asyncio.sleep(0)
    go.set()
    assert await work
