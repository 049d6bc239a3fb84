"""One line that shows how far a job is, drawn over itself."""

import time
from types import TracebackType
from typing import Self

from kitd.client.record import Progress
from kitd.ctl.format import printable, size
from kitd.ctl.table import shorten
from kitd.ctl.terminal import Terminal

BAR_CELLS = 24
REDRAW_S = 0.1


def progress_line(progress: Progress, rate: float | None, width: int) -> str:
    """Return the line for a progress at `rate` bytes a second, at most `width` cells."""
    parts = [printable(progress.phase)]
    if progress.total > 0:
        done = min(progress.bytes, progress.total)
        full = BAR_CELLS * done // progress.total
        parts.append(f"[{'#' * full}{'-' * (BAR_CELLS - full)}] {100 * done // progress.total:3}%")
        parts.append(f"{size(done)} of {size(progress.total)}")
    elif progress.bytes > 0:
        parts.append(size(progress.bytes))
    if rate is not None and rate >= 1:
        parts.append(f"{size(int(rate))}/s")
    return shorten("  ".join(part for part in parts if part), width)


class ProgressLine:
    """Draws progress on a terminal and nothing elsewhere; leaving it removes the line."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._phase: str | None = None
        self._began: tuple[float, int] = (0.0, 0)
        self._drawn_at = 0.0

    def update(self, progress: Progress) -> None:
        """Show a progress, unless the last one was drawn a moment ago."""
        now = time.monotonic()
        if not self._terminal.has_progress or now - self._drawn_at < REDRAW_S:
            return
        if progress.phase != self._phase:
            self._phase, self._began = progress.phase, (now, progress.bytes)
        start, first = self._began
        rate = (progress.bytes - first) / (now - start) if now - start >= 1 else None
        self._drawn_at = now
        # The last cell stays free: writing it makes some terminals wrap.
        self._terminal.draw(progress_line(progress, rate, self._terminal.progress_width - 1))

    def clear(self) -> None:
        """Remove the line."""
        if self._drawn_at:
            self._terminal.draw("")
            self._drawn_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.clear()
