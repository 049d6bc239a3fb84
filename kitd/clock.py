"""Time, injected: wall clock for what people read, monotonic clock for what waits."""

import time
from datetime import UTC, datetime
from typing import Protocol


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
    at = datetime.fromtimestamp(at_us / 1_000_000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"
