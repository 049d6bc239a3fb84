"""How far work is, drawn where the person is: a notebook, or a terminal."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from kitd.client.record import Progress

Watch = bool | Callable[[Progress], None]
"""Whether progress is drawn, or what is called with it."""
_CELLS = 24
_REDRAW_S = 0.1


@contextmanager
def watching(watch: Watch) -> Iterator[Callable[[Progress], None]]:
    """Give what is called with each progress; what it draws is removed in the end."""
    if callable(watch):
        yield watch
    elif watch:
        display = Display()
        try:
            yield display
        finally:
            display.close()
    else:
        yield lambda _progress: None


class Display:
    """Draws the last progress over the one before it; nothing where nobody would see it."""

    def __init__(self) -> None:
        self._handle = _notebook()
        self._terminal = None if self._handle or not sys.stderr.isatty() else sys.stderr
        self._drawn_s = 0.0

    def __call__(self, progress: Progress) -> None:
        """Show a progress, unless the last one was drawn a moment ago."""
        now_s = time.monotonic()
        if now_s - self._drawn_s < _REDRAW_S:
            return
        self._drawn_s = now_s
        if self._handle is not None:
            self._handle.update(_Drawn(progress))
        elif self._terminal is not None:
            self._terminal.write(f"\r\x1b[K{describe(progress)}")
            self._terminal.flush()

    def close(self) -> None:
        """Remove what was drawn."""
        if self._handle is not None:
            self._handle.update(_Drawn(None))
        elif self._terminal is not None:
            self._terminal.write("\r\x1b[K")
            self._terminal.flush()


class _Drawn:
    """A progress, as a notebook shows it."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    def __repr__(self) -> str:
        return "" if self._progress is None else describe(self._progress)

    def _repr_html_(self) -> str:
        progress = self._progress
        if progress is None:
            return ""
        bar = ""
        if progress.total > 0:
            bar = f"<progress value='{progress.bytes}' max='{progress.total}'></progress> "
        # What kitd calls its phases is a word of its own, and no text of others.
        return f"{bar}{describe(progress)}"


def describe(progress: Progress) -> str:
    """Return one line: the phase, a bar, and how much of how much."""
    phase = "".join(character for character in progress.phase if character.isalnum())
    done, total = progress.bytes, progress.total
    if total <= 0:
        return f"{phase}  {done / 1e6:,.1f} MB" if done else phase
    share = min(done, total) / total
    full = int(_CELLS * share)
    bar = "#" * full + "-" * (_CELLS - full)
    return f"{phase}  [{bar}] {share:4.0%}  {done / 1e6:,.1f} of {total / 1e6:,.1f} MB"


def _notebook() -> Any:
    """Return a display of this notebook; None where this is none."""
    shell = sys.modules.get("IPython")
    if shell is None or "ipykernel" not in sys.modules or shell.get_ipython() is None:
        return None
    return import_module("IPython.display").display(_Drawn(None), display_id=True)
