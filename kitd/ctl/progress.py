"""One line that shows how far a job is, drawn over itself."""

import math
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, NamedTuple, Self

from kitd.client.record import Progress
from kitd.ctl.cells import cells_of, shorten
from kitd.ctl.format import duration, printable, size
from kitd.ctl.terminal import Terminal

REDRAW_S = 0.1
TICK_S = 1.0
"""How often it is drawn where nothing is heard: a rate falls while nothing moves."""
SMOOTHING_S = 4.0
"""What was moved so long ago counts a third of what is moved now."""
MIN_RATE_S = 1.0
MIN_LEFT_S = 2.0
"""After so long a rate is told, and the time that is left."""
SAMPLE_S = 0.2
"""For at least so long bytes are counted before they are a rate."""
STALL_S = 5.0
"""Where nothing moved for so long, nothing is known of when it will end."""
JUMP = 10
"""How many times the usual rate nothing that is moved reaches."""
MAX_LEFT_S = 100 * 86400.0

_MAX_SAMPLES = 64
_GAP = "  "
_BARS = ((100, 24), (70, 14), (0, 8))
"""The cells of a bar on a terminal of at least so many columns: it never changes under way."""


class Rate:
    """Bytes a second, smoothed: an average in which what is longer ago counts less.

    What came far faster than most else was moved by nobody, as what was there already: it is no
    part of the average.
    """

    def __init__(self, now_s: float, count: int) -> None:
        self._begin(now_s, count)

    def _begin(self, now_s: float, count: int) -> None:
        self._began_s = self._moved_s = self._sampled_s = now_s
        self._count = self._sampled = count
        self._samples: list[_Sample] = []

    def add(self, now_s: float, count: int) -> None:
        """Note how many bytes were moved by now; fewer than before begin anew."""
        if count < self._count:
            self._begin(now_s, count)
        if count > self._count:
            self._moved_s, self._count = now_s, count
        passed_s = now_s - self._sampled_s
        if passed_s >= SAMPLE_S:
            self._samples.append(_Sample(passed_s, (count - self._sampled) / passed_s))
            del self._samples[:-_MAX_SAMPLES]
            self._sampled_s, self._sampled = now_s, count

    def at(self, now_s: float) -> float | None:
        """Return the rate now, 0 where nothing moves, or None where it is too early to tell."""
        if now_s - self._moved_s >= STALL_S:
            return 0.0
        if now_s - self._began_s < MIN_RATE_S or not self._samples:
            return None
        limit = JUMP * _usual([each.rate for each in self._samples if each.rate > 0])
        # Since the last sample nothing was moved.
        age_s = max(now_s - self._sampled_s, 0.0)
        weights, moved = 1 - math.exp(-age_s / SMOOTHING_S), 0.0
        for sample in reversed(self._samples):
            older_s = age_s + sample.passed_s
            weight = math.exp(-age_s / SMOOTHING_S) - math.exp(-older_s / SMOOTHING_S)
            if sample.rate <= limit:
                weights += weight
                moved += weight * sample.rate
            age_s = older_s
        return moved / weights if weights > 0 else None

    def left_s(self, now_s: float, total: int) -> float | None:
        """Return the seconds until `total` bytes are moved, or None where that cannot be told."""
        rate = self.at(now_s)
        if rate is None or now_s - self._began_s < MIN_LEFT_S or total <= self._count:
            return None
        return (total - self._count) / rate if rate * MAX_LEFT_S > total - self._count else None


class _Sample(NamedTuple):
    """For how long bytes were counted, and how many there were a second."""

    passed_s: float
    rate: float


def _usual(rates: list[float]) -> float:
    """Return a rate that a quarter of them reach: those of a few jumps are not among them."""
    return sorted(rates)[(len(rates) - 1) * 3 // 4] if rates else 0.0


def progress_line(
    progress: Progress, rate: float | None, width: int, left_s: float | None = None
) -> str:
    """Return the line for a progress at `rate` bytes a second, at most `width` cells.

    What tells least is left out where there is no room for all.
    """
    phase = printable(progress.phase)
    parts: list[tuple[int, str]] = [(0, phase)] if phase else []
    if progress.total > 0:
        done = min(progress.bytes, progress.total)
        cells = next(cells for columns, cells in _BARS if width >= columns - 1)
        full = cells * done // progress.total
        parts.append((3, f"[{'#' * full}{'-' * (cells - full)}]"))
        parts.append((1, f"{100 * done // progress.total:3}%"))
        parts.append((4, _of(done, progress.total)))
    elif progress.bytes > 0:
        parts.append((1, size(progress.bytes)))
    if rate is not None and rate >= 1:
        parts.append((5, f"{size(int(rate))}/s"))
    elif rate is not None and 0 < progress.bytes != progress.total:
        parts.append((5, "stalled"))
    if left_s is not None:
        parts.append((2, f"{_whole(math.ceil(left_s))} left"))
    while len(parts) > 1 and cells_of(_GAP.join(text for _, text in parts)) > width:
        parts.remove(max(parts))
    return shorten(_GAP.join(text for _, text in parts), width)


def _whole(seconds: int) -> str:
    return f"{seconds}s" if seconds < 10 else duration(seconds)


def _of(done: int, total: int) -> str:
    """Return `1.5 of 4.0 GiB`, or both units where they differ."""
    first, last = size(done), size(total)
    number, _, unit = first.partition(" ")
    return f"{number if unit == last.partition(' ')[2] else first} of {last}"


class ProgressLine:
    """Draws progress on a terminal and nothing elsewhere; leaving it removes the line."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._progress: Progress | None = None
        self._rate = Rate(0.0, 0)
        self._drawn_at = 0.0
        self._restore: Callable[[], None] | None = None

    def update(self, progress: Progress) -> None:
        """Show a progress, unless the last one was drawn a moment ago."""
        if not self._terminal.has_progress:
            return
        now = time.monotonic()
        if self._progress is None or progress.phase != self._progress.phase:
            self._rate = Rate(now, progress.bytes)
        self._rate.add(now, progress.bytes)
        self._progress = progress
        if now - self._drawn_at >= REDRAW_S:
            self._draw(now)

    def clear(self) -> None:
        """Remove the line."""
        self._progress = None
        if self._drawn_at:
            self._terminal.draw("")
            self._drawn_at = 0.0

    def _draw(self, now: float) -> None:
        if self._progress is None:
            return
        self._drawn_at = now
        # The last cell stays free: writing it makes some terminals wrap.
        width = self._terminal.progress_width - 1
        left_s = self._rate.left_s(now, self._progress.total)
        self._terminal.draw(progress_line(self._progress, self._rate.at(now), width, left_s))

    def _signalled(self, _number: int, _frame: FrameType | None) -> None:
        self._draw(time.monotonic())

    def _ended(self, number: int, _frame: FrameType | None) -> None:
        """End by a signal after all, but not in the middle of a line."""
        from kitd.ctl.ending_signals import end_by  # noqa: PLC0415 - as below

        self.clear()
        end_by(number)

    def __enter__(self) -> Self:
        if self._terminal.has_progress:
            self._restore = _drawn_by_signals(self._signalled, self._ended)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._restore is not None:
            self._restore()
        self.clear()


def _drawn_by_signals(
    draw: Callable[[int, FrameType | None], Any], end: Callable[[int, FrameType | None], Any]
) -> Callable[[], None]:
    """Have a resize and a clock call `draw`, and what ends kitctl `end`; return what undoes that.

    The main thread waits in calls that block, which a signal interrupts and Python takes up again.
    """
    import signal  # noqa: PLC0415 - only terminals need it

    handlers = {signal.SIGWINCH: draw, signal.SIGALRM: draw}
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        # Whoever has something else to take back does so.
        if signal.getsignal(number) is signal.SIG_DFL:
            handlers[number] = end
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    timer = signal.setitimer(signal.ITIMER_REAL, TICK_S, TICK_S)

    def restore() -> None:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        for number, handler in previous.items():
            signal.signal(number, handler)

    return restore
