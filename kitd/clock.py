"""Time, injected: wall clock for what people read, monotonic clock for what waits."""

import time
from datetime import datetime, timedelta
from typing import Protocol

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC, and meant not to say so


class Clock(Protocol):
    """Where kitd's adapters get the time from; pure code is handed numbers."""

    def now_us(self) -> int:
        """Microseconds since the epoch, UTC. May jump."""
        ...

    def monotonic_s(self) -> float:
        """Seconds since some start. Never jumps."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_us(self) -> int:
        """Microseconds since the epoch, UTC."""
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        """Seconds since the machine started."""
        return time.monotonic()


def rfc3339(at_us: int) -> str:
    """Return a time as kitd shows it: RFC 3339, UTC, milliseconds."""
    at = _EPOCH + timedelta(microseconds=at_us)
    # Without the offset, which is written as a letter; strftime takes ten times as long.
    return f"{at.isoformat(timespec='milliseconds')}Z"
