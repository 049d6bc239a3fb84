"""Looks that scrapes do not wait for: at disks that may hang, at all of the cache, at all projects.

Each is taken now and then by a task of its own, so that one that hangs keeps no other. What was
seen last is what a scrape shows, with the time of the look.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

import structlog

from kitd.clock import Clock
from kitd.errors import KitdError

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Look(Generic[T]):
    """Something that is looked at again and again; `seen` is None until that worked once."""

    def __init__(
        self, name: str, every_s: float, take: Callable[[], Awaitable[T]], clock: Clock
    ) -> None:
        self.name = name
        self.seen: T | None = None
        self.at_us = 0
        """When it was seen."""
        self._every_s = every_s
        self._take = take
        self._clock = clock
        self._failed = False

    async def keep(self) -> None:
        """Look until cancelled."""
        while True:
            await self.once()
            await asyncio.sleep(self._every_s)

    async def once(self) -> None:
        """Look now. What goes wrong is logged the first time, and what was seen is kept."""
        try:
            self.seen = await self._take()
        except (KitdError, OSError) as error:
            if not self._failed:
                log.warning("metrics.look_failed", look=self.name, error=str(error) or "no answer")
            self._failed = True
            return
        except Exception:
            # A defect of what is only shown must not end what works.
            if not self._failed:
                log.exception("metrics.look_defect", look=self.name)
            self._failed = True
            return
        self._failed = False
        self.at_us = self._clock.now_us()


async def keep_looking(looks: Sequence[Look[Any]]) -> None:
    """Take all looks until cancelled."""
    async with asyncio.TaskGroup() as group:
        for look in looks:
            group.create_task(look.keep(), name=f"look at {look.name}")
