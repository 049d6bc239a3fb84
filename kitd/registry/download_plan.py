"""How a download goes on: when after a cut, over how many connections, which part next. Pure.

Times are seconds of any clock that does not jump.
"""

from dataclasses import dataclass

PROGRESS_BYTES = 1 << 20
REOPEN_AFTER_S = 60.0
SEGMENT_BYTES = 8 << 20
"""What a connection beside the first fetches with one request."""
WORTHWHILE_BYTES = 64 << 20
"""With less to come, further connections are not worth their handshakes."""
MAX_CONNECTIONS = 8
WINDOW_S = 2.0
"""How long a number of connections is watched before it is judged."""
REST_S = 60.0
"""How long no more are tried after more did not pay."""
PAYING_FACTOR = 1.25
"""What twice the connections have to bring: nothing is the network's fault, two is all of it."""
ENOUGH_BYTES_S = 256 << 20
"""One process receives little more than that, over however many connections."""


class Reopening:
    """Whether a transfer that was cut is worth asking for the rest.

    It is as long as there is progress: the first time, after a megabyte, and after a minute.
    """

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None

    def allows(self, position: int, now_s: float) -> bool:
        """Judge, and count it, if a transfer was cut at `position`."""
        last, self._last = self._last, (position, now_s)
        return (
            last is None
            or position - last[0] >= PROGRESS_BYTES
            or now_s - last[1] >= REOPEN_AFTER_S
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the content: the bytes from `start` up to and without `end`."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self.end - self.start


class Lookahead:
    """Which part is fetched next by a connection of its own, in order and without an overlap.

    What is left out between two parts is read by whoever comes there.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._planned = 0

    def next(self, position: int) -> Segment | None:
        """Return what would be next for a reader at `position`; None if that is too near the end.

        One segment is left for the reader's own connection.
        """
        start = max(self._planned, position + SEGMENT_BYTES)
        return (
            Segment(start, min(start + SEGMENT_BYTES, self._size)) if start < self._size else None
        )

    def begin(self, segment: Segment) -> None:
        """Note that what was next is being fetched."""
        self._planned = segment.end


class ConnectionCount:
    """How many connections a download has: twice as many as long as that pays.

    It pays where a server, a path or a window of TCP gives each connection only so much, and the
    reader waits for that. Half of them go where it did not, or where the server refuses.
    """

    def __init__(self, now_s: float) -> None:
        self.count = 1
        self._window_s = now_s
        self._received = 0
        self._waited_s = 0.0
        self._rate_before: float | None = None
        self._resting_until_s = now_s

    def received(self, count: int) -> None:
        """Note bytes that arrived over any connection."""
        self._received += count

    def waited(self, time_s: float) -> None:
        """Note for how long the reader waited for the next bytes."""
        self._waited_s += time_s

    def review(self, now_s: float) -> None:
        """Judge the number of connections, once a window is over."""
        passed_s = now_s - self._window_s
        if passed_s < WINDOW_S:
            return
        rate = self._received / passed_s
        before, self._rate_before = self._rate_before, None
        if before is not None and rate < before * PAYING_FACTOR:
            self.refused(now_s)
        is_waiting = self._waited_s >= passed_s / 2
        if is_waiting and rate < ENOUGH_BYTES_S and now_s >= self._resting_until_s:
            self._raise(rate)
        self._window_s, self._received, self._waited_s = now_s, 0, 0.0

    def refused(self, now_s: float) -> None:
        """Note that the server does not take so many, or that they did not pay."""
        self.count = max(1, self.count // 2)
        self._rate_before = None
        self._resting_until_s = now_s + REST_S

    def _raise(self, rate: float) -> None:
        if self.count < MAX_CONNECTIONS:
            self.count *= 2
            self._rate_before = rate
