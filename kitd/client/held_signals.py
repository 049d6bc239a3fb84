"""Signals that wait while files are given their names, and while what was begun is taken back.

Only the handler of a signal raises: Ctrl-C becomes a `KeyboardInterrupt` between any two steps of
the interpreter, also between a step and the note that it was taken. Blocking signals in one thread
is no way out: any other thread of the process may receive them, and the main thread still raises.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class HeldSignals:
    """Holds signals back, but where they are let through. Those that end a process still do so.

    In other threads than the main one nothing raises anyway, and this does nothing.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._waiting: set[int] = set()
        self._passes = False

    @contextmanager
    def let_through(self) -> Iterator[None]:
        """Let signals raise in the body, those that have waited at once."""
        self._passes = True
        try:
            self.deliver()
            yield
        finally:
            self._passes = False

    def deliver(self) -> None:
        """Let the signals that have waited raise what they raise."""
        while self._waiting:
            number = self._waiting.pop()
            self._handlers[number](number, None)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            try:
                for number in _SIGNALS:
                    handler = signal.getsignal(number)
                    if callable(handler):
                        self._handlers[number] = handler
                        signal.signal(number, self._receive)
            except BaseException:
                self._restore()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._restore()
        finally:
            # The first that is restored may raise at once: the others are not forgotten.
            self._restore()
        self.deliver()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self._passes:
            self._waiting.add(number)
            return
        # What it raises is on its way to who takes back what was begun: no second one disturbs.
        self._passes = False
        self._handlers[number](number, frame)
        self._passes = True
