"""A command that takes back what it began when it is told to end, and ends by the signal then.

No generator is behind it: a signal that comes in a function of `contextlib`, before or after the
body, would raise where nobody takes it for what it is.
"""

import signal
from types import FrameType
from typing import Self

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class _EndedBySignal(BaseException):
    """Unwinds the command; no `except Exception` stops it."""


class TakenBackBySignals:
    """Has SIGTERM and SIGHUP unwind the body; then the process ends by the signal after all.

    Each one raises: the first may have come where Python drops what is raised, as in `__del__`.
    One that is ignored, as under `nohup`, stays so.
    """

    def __init__(self) -> None:
        self._caught: list[int] = []
        self._received: int | None = None
        self._is_in_body = False

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                self._caught.append(number)
                signal.signal(number, self._receive)
        self._is_in_body = True
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._is_in_body = False
        # An error that says what could not be taken back is worth more than the signal.
        if self._received is not None and kind in (None, _EndedBySignal):
            _end(self._received)
        for number in self._caught:
            signal.signal(number, signal.SIG_DFL)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self._is_in_body or _is_at_an_edge(frame):
            # There is nothing to unwind yet, or any more.
            _end(number)
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


def _end(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
