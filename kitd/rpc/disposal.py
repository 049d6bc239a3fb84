"""Closing what a stranger may have had a hand in, without waiting for it in the event loop.

The last close of a file takes as long as whoever made the file likes: a socket with SO_LINGER waits
for its other end (socket(7)), a file system in user space for its server (fuse(4)). A descriptor
that somebody sent is such a file, and so is a Unix socket in which such descriptors wait unread.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial

from kitd.rpc.outbox import close_all


class Disposal:
    """Closes in a thread, one after another. Belongs to one event loop.

    A thread of its own, because one that hangs is lost to all others; and a daemon, because one
    that hangs does not keep the process from ending.
    """

    def __init__(self) -> None:
        self._left: list[Callable[[], None]] = []
        self._busy = False
        self._abandoned = False
        self._idle = asyncio.Event()

    def dispose(self, descriptors: Iterable[int]) -> None:
        """Close descriptors, soon."""
        held = tuple(descriptors)
        if held:
            self.close(partial(close_all, held))

    def close(self, close: Callable[[], None]) -> None:
        """Call this, which closes something, soon."""
        self._left.append(close)
        if not self._busy:
            self._begin()

    async def idle(self) -> None:
        """Return once everything is closed. Whoever hangs here asks for nothing else meanwhile."""
        while self._busy and not self._abandoned:
            self._idle.clear()
            await self._idle.wait()

    def abandon(self, patience_s: float) -> None:
        """Let nobody wait for longer than this."""
        asyncio.get_running_loop().call_later(patience_s, self._give_up)

    def _give_up(self) -> None:
        self._abandoned = True
        self._idle.set()

    def _begin(self) -> None:
        left, self._left = self._left, []
        self._busy = True
        arguments = (left, asyncio.get_running_loop())
        thread = threading.Thread(target=self._run, args=arguments, name="kitd-close", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # There are too many threads, and to keep it open would only end in too many files.
            self._run(*arguments)

    def _run(self, left: Sequence[Callable[[], None]], loop: asyncio.AbstractEventLoop) -> None:
        for close in left:
            close()
        # The loop may be gone by now, and nobody waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(self._ended)

    def _ended(self) -> None:
        self._busy = False
        if self._left:
            self._begin()
        else:
            self._idle.set()
