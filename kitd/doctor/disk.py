"""Looking at disks that may not answer at all."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

HANG_S = 2.0
"""How long a look is waited for."""


class Looks:
    """Looks in threads: one that has not come back is waited for again, and not begun again.

    Whoever asks every second must not take all threads that there are.
    """

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Future[Any]] = {}

    async def take(self, name: str, function: Callable[[], T]) -> T:
        """Return what `function` returns in a thread; the same name always means the same look.

        Raises `TimeoutError`, and what it raises.
        """
        look: asyncio.Future[T] | None = self._under_way.get(name)
        if look is None:
            look = asyncio.get_running_loop().run_in_executor(None, function)
            self._under_way[name] = look
            look.add_done_callback(lambda look: self._came_back(name, look))
        async with asyncio.timeout(HANG_S):
            return await asyncio.shield(look)

    def _came_back(self, name: str, look: asyncio.Future[Any]) -> None:
        del self._under_way[name]
        if not look.cancelled():
            # Taken, so that nobody is warned of an exception for which nobody waits any more.
            look.exception()
