"""Proof of life: the service manager hears that kitd is alive only if each of its parts answers.

A timer of the event loop alone would prove the event loop alone. Here every part that work goes
through is asked something that it can answer only by doing what it does.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from kitd.clock import Clock
from kitd.daemon.notify import ServiceManager
from kitd.errors import KitdError

log = structlog.get_logger(__name__)

INTERVAL_S = 20.0
"""How often the parts are asked where no service manager wants to know it more often."""

Probe = Callable[[], Awaitable[object]]
"""Returns once the part has answered. An error in words (`KitdError`) is an answer as well."""


class Pulse:
    """Asks the parts, again and again, and passes it on. `run` until cancelled."""

    def __init__(
        self,
        probes: Mapping[str, Probe],
        status: Callable[[], Awaitable[str]],
        service: ServiceManager,
        clock: Clock,
    ) -> None:
        self._probes = probes
        self._status = status
        self._service = service
        self._clock = clock
        # Three chances within the time after which systemd takes kitd for hung.
        self._interval_s = min(INTERVAL_S, (service.watchdog_s or INTERVAL_S * 3) / 3)
        self._silent: tuple[str, ...] = ()

    @property
    def silent(self) -> tuple[str, ...]:
        """The parts that did not answer when they were last asked."""
        return self._silent

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            asked_s = self._clock.monotonic_s()
            await self._ask_all()
            if not self._silent:
                self._service.notify("WATCHDOG=1", f"STATUS={await self._describe()}")
            took_s = self._clock.monotonic_s() - asked_s
            await asyncio.sleep(max(0.0, self._interval_s - took_s))

    async def _ask_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            asked = {name: group.create_task(self._ask(ask)) for name, ask in self._probes.items()}
        silent = tuple(name for name, task in asked.items() if not task.result())
        for name in silent:
            if name not in self._silent:
                log.error("daemon.part_silent", part=name, after_s=round(self._interval_s, 1))
        for name in self._silent:
            if name not in silent:
                log.warning("daemon.part_answers_again", part=name)
        self._silent = silent

    async def _ask(self, ask: Probe) -> bool:
        try:
            async with asyncio.timeout(self._interval_s):
                await ask()
        except TimeoutError:
            return False
        except KitdError as error:
            log.debug("daemon.part_answered", code=error.code, error=error.message)
        return True

    async def _describe(self) -> str:
        try:
            return await self._status()
        except KitdError as error:
            return error.message
