"""A command that takes back what it began when it is told to end, and ends by the signal then."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class _EndedBySignal(BaseException):
    """Unwinds the command; no `except Exception` stops it."""


@contextmanager
def taken_back_by_signals() -> Iterator[None]:
    """Have SIGTERM and SIGHUP unwind the body; then the process ends by the signal after all.

    One that is ignored, as under `nohup`, stays so.
    """
    received: list[int] = []

    def unwind(number: int, _: FrameType | None) -> None:
        if not received:
            received.append(number)
            raise _EndedBySignal

    previous = {number: signal.getsignal(number) for number in _SIGNALS}
    caught = [number for number in _SIGNALS if previous[number] is signal.SIG_DFL]
    try:
        for number in caught:
            signal.signal(number, unwind)
        yield
    except _EndedBySignal:
        signal.signal(received[0], signal.SIG_DFL)
        signal.raise_signal(received[0])
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)
