"""A command that takes back what it began when it is told to end, and ends by the signal then.

No generator is behind it: a signal that comes in a function of `contextlib`, before or after the
body, would raise where nobody takes it for what it is.
"""

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Self

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_Handler = Callable[[int, FrameType | None], object] | int | None


def end_as_first() -> None:
    """Let SIGTERM and SIGHUP end a command that is process 1, as that of a container is.

    From that one the kernel keeps each signal that it has no handler for (pid_namespaces(7)). The
    exit code is the one that shells give for the signal.
    """
    if os.getpid() == 1:
        for number in _SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, end_by)


class _EndedBySignal(BaseException):
    """Unwinds the command; no `except Exception` stops it."""


class TakenBackBySignals:
    """Has SIGTERM and SIGHUP unwind the body; then the process ends by the signal after all.

    Each one raises: the first may have come where Python drops what is raised, as in `__del__`.
    One that is ignored, as under `nohup`, stays so.
    """

    def __init__(self) -> None:
        self._caught: list[tuple[int, _Handler]] = []
        self._received: int | None = None
        self._is_in_body = False

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            before = signal.getsignal(number)
            if before in (signal.SIG_DFL, end_by):
                self._caught.append((number, before))
                signal.signal(number, self._receive)
        self._is_in_body = True
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._is_in_body = False
        # An error that says what could not be taken back is worth more than the signal.
        if self._received is not None and kind in (None, _EndedBySignal):
            end_by(self._received)
        for number, before in self._caught:
            signal.signal(number, before)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self._is_in_body or _is_at_an_edge(frame):
            # There is nothing to unwind yet, or any more.
            end_by(number)
        self._received = number
        raise _EndedBySignal


_EDGES = (TakenBackBySignals.__enter__.__code__, TakenBackBySignals.__exit__.__code__)


def _is_at_an_edge(frame: FrameType | None) -> bool:
    """Whether a signal came where `__exit__` is called, but before its first line, or the like."""
    while frame is not None:
        if frame.f_code in _EDGES:
            return True
        frame = frame.f_back
    return False


def end_by(number: int, _: FrameType | None = None) -> None:
    """End as whoever has no handler for a signal ends by it, process 1 too."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    # Only process 1 gets here.
    os._exit(128 + number)
