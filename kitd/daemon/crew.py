"""The daemon's parts as tasks: one that ends ends them all, one that will not end holds up nobody.

A task group waits for its tasks however long they take. A daemon that stops must not: a thread
that hangs in a dead file system cannot be cancelled, and the process ends without it.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

import structlog

from kitd.errors import KitdError

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Crew:
    """The tasks of one daemon, by name. Belongs to one event loop."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[Any]] = {}

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run a part that is not expected to end before it is stopped."""
        assert name not in self._tasks, name
        self._tasks[name] = asyncio.create_task(work, name=name)

    @asynccontextmanager
    async def host(
        self, name: str, context: AbstractAsyncContextManager[T], *, close_s: float
    ) -> AsyncIterator[T]:
        """Open `context` in a task of its own; leave it behind where closing takes longer.

        What closes it sees the exception that the block ended with. Raises what opening and
        closing it raise.
        """
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[T] = loop.create_future()
        leaving: asyncio.Future[None] = loop.create_future()

        async def hold() -> None:
            async with context as thing:
                opened.set_result(thing)
                await leaving

        self.start(name, hold())
        task = self._tasks[name]
        try:
            await asyncio.wait([task, opened], return_when=asyncio.FIRST_COMPLETED)
            if not opened.done():
                del self._tasks[name]
                task.result()
            yield opened.result()
        except BaseException as error:
            if not opened.done():
                task.cancel()
            elif not task.done():
                leaving.set_exception(error)
            await self.ended([name], within_s=close_s, known=error)
            raise
        leaving.set_result(None)
        if not await self.ended([name], within_s=close_s):
            task.result()

    async def until(self, event: Coroutine[Any, Any, object]) -> None:
        """Wait for something while the parts run. Raises what one of them died of before that."""
        waiting = asyncio.create_task(event)
        try:
            await asyncio.wait(
                [waiting, *self._tasks.values()], return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            waiting.cancel()
        for name, task in self._tasks.items():
            if task.done():
                del self._tasks[name]
                error = None if task.cancelled() else task.exception()
                if error is None:
                    raise RuntimeError(f"the daemon's part {name} ended by itself")
                _report(name, error)
                raise error

    async def stop(self, names: Iterable[str], *, within_s: float) -> tuple[str, ...]:
        """Cancel parts and return the names of those that have not ended by then."""
        named = [name for name in names if name in self._tasks]
        for name in named:
            self._tasks[name].cancel()
        return await self.ended(named, within_s=within_s)

    async def ended(
        self, names: Iterable[str], *, within_s: float, known: BaseException | None = None
    ) -> tuple[str, ...]:
        """Wait for parts to end; return those that do not, which are nobody's from here on.

        Whatever one of them died of is logged, unless it is `known`: what it was ended with.
        """
        tasks = {name: self._tasks.pop(name) for name in names if name in self._tasks}
        if not tasks:
            return ()
        await asyncio.wait(tasks.values(), timeout=within_s)
        left = []
        for name, task in tasks.items():
            if not task.done():
                left.append(name)
            elif not task.cancelled():
                error = task.exception()
                if error is not None and not _is_only(error, known):
                    _report(name, error)
        if left:
            log.error("daemon.given_up", parts=left, after_s=within_s)
        return tuple(left)


def _is_only(error: BaseException, known: BaseException | None) -> bool:
    """Whether an error is what is known; a task group gives it back in a group of its own."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_only(each, known) for each in error.exceptions)
    return error is known


def _report(name: str, error: BaseException) -> None:
    if isinstance(error, KitdError):
        log.error("daemon.part_failed", part=name, code=error.code, error=error.message)
    else:
        log.error("daemon.part_failed", part=name, exc_info=error)
