"""A new configuration while kitd runs: applied as a whole, or rejected as a whole.

Everything that may fail comes first (reading, checking, group look-ups, the ledger's row for each
project); from there on it is assignments on the event loop, between which nobody has a turn.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from kitd.blocking import run_blocking, uninterrupted
from kitd.config.diff import compare_configs
from kitd.config.load import Loaded
from kitd.config.model import Config, ProjectConfig
from kitd.config.problem import ConfigError
from kitd.daemon.in_force import InForce
from kitd.daemon.notify import ServiceManager
from kitd.errors import Disposition, KitdError
from kitd.queue.effect import Emit
from kitd.rpc.methods.wire import Reloaded

log = structlog.get_logger(__name__)


class RestartNeededError(KitdError):
    """A new configuration changes what only a restart can change."""

    code = "restart_needed"


class NotReloadableError(KitdError):
    """This kitd was not started from a configuration that can be read again."""

    code = "not_reloadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What a configuration is applied to besides those who read `InForce`."""

    prepare: Callable[[Config], Callable[[], None]]
    """Blocks and may raise; what it returns is called on the loop, and can only succeed."""
    redefine: Callable[[Mapping[str, ProjectConfig]], Awaitable[None]]
    """Makes the configured projects these. Raises before anything is changed, or not at all."""
    emit: Callable[[Emit], Awaitable[None]]


class Reloader:
    """Reads and applies configurations, one at a time."""

    def __init__(
        self,
        load: Callable[[], Loaded] | None,
        in_force: InForce,
        targets: Targets,
        service: ServiceManager,
    ) -> None:
        self._load = load
        self._in_force = in_force
        self._targets = targets
        self._service = service
        self._reloading = asyncio.Lock()
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Have `run` reload; what comes of it is in the log and in the events."""
        self._asked.set()

    async def run(self) -> None:
        """Reload whenever it is asked for, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            await self.reload()

    async def reload(self) -> Reloaded:
        """Apply the configuration as it is now, or nothing of it.

        A caller who goes away meanwhile does not leave half of it.
        """
        return await uninterrupted(self._reload())

    async def _reload(self) -> Reloaded:
        async with self._reloading:
            self._service.reloading()
            try:
                outcome = Reloaded(applied=True, changed=tuple(await self._apply()))
                event = Emit("config.reloaded", "daemon", {"changed": list(outcome.changed)})
            except KitdError as error:
                if error.disposition is Disposition.FATAL:
                    raise
                lines = error.lines if isinstance(error, ConfigError) else (error.describe(),)
                outcome = Reloaded(applied=False, problems=lines)
                event = Emit("config.rejected", "daemon", {"problems": list(lines)})
            finally:
                self._service.notify("READY=1")
            (log.info if outcome.applied else log.warning)(event.type, **event.data)
            try:
                await self._targets.emit(event)
            except KitdError as error:
                log.warning("config.not_noted", code=error.code, error=error.message)
            return outcome

    async def _apply(self) -> Sequence[str]:
        if self._load is None:
            raise NotReloadableError("this kitd has no configuration to read again")
        loaded = await run_blocking(self._load)
        for warning in loaded.warnings:
            log.warning("config.warning", warning=warning)
        difference = compare_configs(self._in_force.config, loaded.config)
        if difference.restart:
            raise RestartNeededError(
                f"only a restart can change {', '.join(difference.restart)}; nothing was applied",
                hint="restart kitd (systemctl restart kitd), or take that change back",
            )
        switch = await run_blocking(self._targets.prepare, loaded.config)
        await self._targets.redefine(loaded.config.projects)
        self._in_force.config = loaded.config
        switch()
        return difference.live
