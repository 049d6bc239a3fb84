"""Leaving the event loop without leaving work behind.

`asyncio.to_thread` forgets its thread when the waiting task is cancelled: the thread goes on with
files that the task's cleanup is closing. What may wait for a disk goes through here.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

MAX_THREADS = 64
"""What the default executor should have: each thread that hangs in a file system that is gone is
lost to all others, and an idle one costs next to nothing."""


async def run_blocking(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` in the default executor; when cancelled, wait for it before raising."""
    # A cancellation must not cut this short: the thread still holds the resources.
    return await uninterrupted(
        asyncio.get_running_loop().run_in_executor(None, lambda: function(*args, **kwargs))
    )


async def uninterrupted(work: Awaitable[T]) -> T:
    """Return what `work` returns; when cancelled, however often, wait for it before raising."""
    future = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        if not future.cancelled():
            # Taken, so that nobody is warned of an exception that nobody asked for.
            future.exception()
        raise
