"""Where a command's words go: results to stdout, everything said on the way to stderr."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from kitd.ctl.error import UnwritableOutputError
from kitd.ctl.format import printable

_USUAL_WIDTH, _USUAL_HEIGHT = 80, 24
_COLOURS = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "dim": "2"}
_STATE_COLOURS = {
    "degraded": "yellow",
    "stopping": "yellow",
    "running": "cyan",
    "packing": "cyan",
    "pushing": "cyan",
    "failed": "red",
    "malformed": "red",
    "blocked": "red",
    "held": "yellow",
    "ignored": "dim",
    "cancelled": "dim",
    "superseded": "dim",
    "skipped": "yellow",
    "conflict": "yellow",
    "deleted": "yellow",
    "gone": "yellow",
}
"""What is as it should be has none: colour is for what somebody looks for."""


class Terminal:
    """The two streams of a process, and what may be done to them."""

    def __init__(
        self,
        stdout: TextIO,
        stderr: TextIO,
        environ: Mapping[str, str],
        *,
        json_only: bool,
        quiet: bool,
    ) -> None:
        self._stdout = stdout
        self._stderr = stderr
        self.json_only = json_only
        self._quiet = quiet
        self._environ = environ
        self.width = None if json_only else _width(stdout, environ)
        self.has_progress = stderr.isatty() and not quiet and not _is_dumb(environ)
        self._has_colour = not json_only and _wants_colour(stdout, environ)

    @property
    def progress_width(self) -> int:
        """The cells of a line of the terminal that shows progress, as it is now."""
        return _width(self._stderr, self._environ) or _USUAL_WIDTH

    @property
    def has_screen(self) -> bool:
        """Whether results go to a terminal that can be drawn on anywhere."""
        return self.width is not None and not _is_dumb(self._environ)

    @property
    def screen_size(self) -> tuple[int, int]:
        """The columns and lines of the terminal, as they are now."""
        return (
            _width(self._stdout, self._environ) or _USUAL_WIDTH,
            _measured(self._stdout, self._environ, "LINES", 1) or _USUAL_HEIGHT,
        )

    def draw_screen(self, text: str) -> None:
        """Send a text to the terminal as it is. Raises `UnwritableOutputError`."""
        left = text.encode(self._stdout.encoding or "utf-8", "replace")
        with _telling():
            while left:
                left = left[os.write(self._stdout.fileno(), left) :]

    def tell(self, text: str) -> None:
        """Print lines. Raises `UnwritableOutputError`, and `BrokenPipeError` if nobody reads."""
        with _telling():
            print(text, file=self._stdout, flush=True)

    def show(self, document: Any, text: str) -> None:
        """Print a result: the one JSON document, or the text that says the same."""
        self.tell(json.dumps(document, indent=2) if self.json_only else text)

    def show_file(self, document: Any, content: str) -> None:
        """Print a result that is a file's content: as it is, but harmless where a terminal is."""
        if self.json_only:
            self.show(document, content)
        elif self.width is None:
            ending = "" if content.endswith("\n") else "\n"
            with _telling():
                # A Kitfile is UTF-8, whatever the locale is.
                self._stdout.buffer.write(f"{content}{ending}".encode("utf-8", "replace"))
                self._stdout.flush()
        else:
            self.tell("\n".join(printable(line) for line in content.splitlines()))

    def show_line(self, document: Any, text: str) -> None:
        """Print one of a stream of results: a JSON object a line, or a line of text."""
        compact = json.dumps(document, separators=(",", ":")) if self.json_only else text
        self.tell(compact)

    def note(self, text: str) -> None:
        """Say something on the way, unless `--quiet`."""
        if not self._quiet:
            self.complain(text)

    def complain(self, text: str) -> None:
        """Say what went wrong."""
        # If it cannot be said, there is nobody to whom that could be said.
        with suppress(OSError):
            print(text, file=self._stderr, flush=True)

    def draw(self, line: str) -> None:
        """Replace the line that shows progress; an empty one removes it."""
        # Past Python's buffer, which a handler of a signal must not enter a second time.
        drawn = f"\r\x1b[K{line}".encode(self._stderr.encoding or "utf-8", "replace")
        with suppress(OSError):
            os.write(self._stderr.fileno(), drawn)

    def paint(self, colour: str, text: str) -> str:
        """Return the text in a colour, where there are colours."""
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self._has_colour else text

    def paint_state(self, state: str) -> str:
        """Return the state of a job, a project or the daemon in its colour."""
        colour = _STATE_COLOURS.get(state)
        return state if colour is None else self.paint(colour, state)


@contextmanager
def _telling() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UnwritableOutputError(error) from error


def _is_dumb(environ: Mapping[str, str]) -> bool:
    """Whether nothing is known of what the terminal can do."""
    return environ.get("TERM", "") in ("", "dumb")


def _wants_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether to colour: on terminals that can, unless somebody wants it otherwise.

    `NO_COLOR` (no-color.org) beats `FORCE_COLOR` and `CLICOLOR_FORCE` (bixense.com/clicolors).
    """
    if environ.get("NO_COLOR"):
        return False
    if any(environ.get(name, "0") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        return True
    return stream.isatty() and not _is_dumb(environ)


def _width(stream: TextIO, environ: Mapping[str, str]) -> int | None:
    """Return the width of a terminal in cells, or None where the stream is none."""
    # shutil has this too, and costs a command a tenth of its start-up.
    if not stream.isatty():
        return None
    return _measured(stream, environ, "COLUMNS", 0) or _USUAL_WIDTH


def _measured(stream: TextIO, environ: Mapping[str, str], name: str, side: int) -> int:
    """Return one side of a terminal, which the environment may overrule; 0 where nobody knows."""
    given = environ.get(name, "")
    if given.isascii() and given.isdigit() and int(given) > 0:
        return int(given)
    try:
        return os.get_terminal_size(stream.fileno())[side]
    except OSError:
        return 0
