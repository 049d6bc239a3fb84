"""Leaving the event loop without leaving work behind.

`asyncio.to_thread` forgets its thread when the waiting task is cancelled: the thread goes on with
files that the task's cleanup is closing. What may wait for a disk goes through here.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def run_blocking(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` in the default executor; when cancelled, wait for it before raising."""
    return await run_in(None, lambda: function(*args, **kwargs))


async def run_in(executor: Executor | None, function: Callable[[], T]) -> T:
    """Run `function` in `executor`; when cancelled, wait for it before raising."""
    future = asyncio.get_running_loop().run_in_executor(executor, function)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        # A second cancellation must not cut this short: the thread still holds the resources.
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError:
                continue
        if not future.cancelled():
            future.exception()
        raise
