"""All endpoints of the configuration in force, each with a task of its own."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import NoReturn, Protocol

import aiohttp
import structlog

from kitd.config.model import NotificationConfig
from kitd.errors import Disposition, KitdError
from kitd.outbox.post import open_session
from kitd.outbox.sender import Sender, Surroundings

LEDGER_PAUSE_S = 5.0
"""Before a ledger that did not take a change is asked again."""

log = structlog.get_logger(__name__)


class Cursors(Protocol):
    """Which endpoints there are, as the ledger has them."""

    async def keep(self, names: Collection[str], /) -> Mapping[str, int]:
        """Keep these and forget all others; return the cursor of each."""
        ...


@dataclass(frozen=True, slots=True)
class _Running:
    config: NotificationConfig
    task: asyncio.Task[NoReturn]


class Notifier:
    """Starts and stops the senders as the configuration changes. Belongs to one event loop."""

    def __init__(
        self,
        wanted: Callable[[], Mapping[str, NotificationConfig]],
        cursors: Cursors,
        surroundings: Surroundings,
    ) -> None:
        self._wanted = wanted
        self._cursors = cursors
        self._surroundings = surroundings
        self._changed = asyncio.Event()
        self._running: dict[str, _Running] = {}

    def reload(self) -> None:
        """Look at the configuration again. Does not wait."""
        self._changed.set()

    async def run(self) -> NoReturn:
        """Tell all endpoints of events until cancelled.

        Raises an `ExceptionGroup` with what kitd must not go on after.
        """
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            session: aiohttp.ClientSession | None = None
            while True:
                self._changed.clear()
                wanted = self._wanted()
                await self._stop_all_but(wanted)
                cursors = await self._keep(wanted)
                if wanted and session is None:
                    session = await stack.enter_async_context(await open_session())
                for name, config in wanted.items():
                    if name not in self._running:
                        assert session is not None
                        sender = Sender(name, config, cursors[name], session, self._surroundings)
                        task = group.create_task(sender.run(), name=f"notifications {name}")
                        self._running[name] = _Running(config, task)
                await self._changed.wait()

    async def _stop_all_but(self, wanted: Mapping[str, NotificationConfig]) -> None:
        """End the senders of endpoints that are gone or were changed."""
        ended = [name for name, one in self._running.items() if wanted.get(name) != one.config]
        tasks = [self._running.pop(name).task for name in ended]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _keep(self, names: Collection[str]) -> Mapping[str, int]:
        while True:
            try:
                return await self._cursors.keep(names)
            except KitdError as error:
                if error.disposition is Disposition.FATAL:
                    raise
                log.warning("notifications.not_kept", code=error.code, error=error.message)
                await self._surroundings.sleep(LEDGER_PAUSE_S)
