"""What a check is: one function that looks at one thing and says what it found."""

from collections.abc import AsyncIterator, Callable

from kitd.doctor.patient import Patient
from kitd.rpc.methods.wire import WireCheck

Check = Callable[[Patient], AsyncIterator[WireCheck]]
"""Yields what it looked at, sound or not; its docstring's first line is what it looks for."""


def sound(name: str, detail: str) -> WireCheck:
    """Return that something is as it should be."""
    return WireCheck(name, ok=True, detail=detail, fix=None)


def wrong(name: str, detail: str, fix: str) -> WireCheck:
    """Return that something is not as it should be, and the command or the deed that mends it."""
    return WireCheck(name, ok=False, detail=detail, fix=fix)
