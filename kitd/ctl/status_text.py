"""What `kitctl status` says of the daemon, its queue and its cache. Pure."""

from typing import Protocol

from kitd.client.record import Status
from kitd.ctl.cells import fold, shorten
from kitd.ctl.format import duration, plural, printable, size

_JOB_STATES = ("running", "ready", "scheduled", "failed")


class Painter(Protocol):
    """What colours texts, or leaves them as they are."""

    def paint(self, colour: str, text: str) -> str:
        """Return the text in a colour."""

    def paint_state(self, state: str) -> str:
        """Return a state in its colour."""


def first_line(status: Status, width: int | None, painter: Painter) -> str:
    """Return how the daemon is, in a line."""
    daemon = status.daemon
    state = printable(str(daemon.get("state")))
    uptime_s = daemon.get("uptime_s")
    uptime = duration(uptime_s) if isinstance(uptime_s, int | float) else "-"
    version = printable(str(daemon.get("version")))
    line = f"kitd {version} is {state}, up {uptime}, pid {daemon.get('pid')}"
    line = line if width is None else shorten(line, width)
    return line.replace(f"is {state}", f"is {painter.paint_state(state)}", 1)


def degraded_lines(status: Status, width: int | None) -> list[str]:
    """Return what hinders the daemon, whole."""
    lines: list[str] = []
    for reason in status.degraded:
        lines += fold(f"  degraded: {printable(reason)}", width, indent="    ")
    return lines


def foot_lines(status: Status, width: int | None) -> list[str]:
    """Return how many jobs there are, and how much the cache holds."""
    cache, indent = status.cache, " " * 8
    queue = ", ".join(f"{status.queue.get(state, 0)} {state}" for state in _JOB_STATES)
    lines = fold(f"queue   {queue}", width, indent=indent)
    if isinstance(count := cache.get("blobs"), int):
        stored, shared = (_size(cache.get(f"{kind}_bytes")) for kind in ("physical", "shared"))
        facts = f"cache   {plural(count, 'blob')}, {stored} on disk, {shared} shared"
        lines += fold(facts, width, indent=indent)
    return lines


def _size(count: object) -> str:
    return size(count) if isinstance(count, int) else "-"
