"""What `kitctl status --watch` draws: trouble first, and as much as there is room for. Pure."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kitd.client.record import Job, Progress, Project, Status
from kitd.ctl.cells import cells_of, fold, shorten
from kitd.ctl.format import age, elapsed, printable, timestamp_s
from kitd.ctl.progress import progress_line
from kitd.ctl.project_table import table_lines
from kitd.ctl.status_text import Painter, first_line, foot_lines

RECENT_S = 86400.0
"""A job that failed longer ago is in the number of those that failed, and not shown."""
MAX_FAILED = 5
"""Of more jobs that failed lately only the number is shown."""

_IDLE, _BUSY, _STUCK = 2, 1, 0
_URGENCY = {
    "degraded": _STUCK,
    "blocked": _STUCK,
    "held": _STUCK,
    "packing": _BUSY,
    "pushing": _BUSY,
    "settling": _BUSY,
    "dirty": _BUSY,
}
_REASONS_SHARE = 4
"""The part of the height, as a divisor, that what hinders kitd may take; `status` tells all."""
_NAME_SHARE = 3
"""The part of the width, as a divisor, that the name of a job may take."""


class Pace(NamedTuple):
    """How fast a job is: bytes a second, and the seconds that are left, where they are known."""

    progress: Progress
    rate: float | None
    left_s: float | None


class View(NamedTuple):
    """All that is shown at once; `away` says that the daemon cannot be asked, and why."""

    status: Status
    running: Sequence[Job]
    failed: Sequence[Job]
    paces: Mapping[int, Pace]
    away: str | None = None
    are_all_failed: bool = True
    """Whether no more jobs failed than those of `failed`."""


class _Block(NamedTuple):
    """Things that belong together, each of one line or more, and what stands above them.

    Of `more` things only the number is told, after `how_many`, which is `at least ` or nothing.
    """

    header: list[str]
    things: list[list[str]]
    more: int = 0
    how_many: str = ""

    @property
    def height(self) -> int:
        return len(self.header) + sum(map(len, self.things)) + (self.more > 0)

    def counted(self, left: int, columns: int) -> list[str]:
        """Return the line for things that are left out, if there are any."""
        return [shorten(f"  … and {self.how_many}{left} more", columns)] if left else []


def frame_lines(view: View, now_s: float, columns: int, rows: int, painter: Painter) -> list[str]:
    """Return at most `rows` lines of at most `columns` cells."""
    head = [first_line(view.status, columns, painter)]
    if view.away is not None:
        gone = fold(printable(view.away), columns, indent="  ")
        head = [*(painter.paint("red", line) for line in gone), *head]
    head += _reasons(view.status.degraded, columns, max(rows // _REASONS_SHARE, 1))
    blocks = [
        block
        for block in (
            _failed(view, now_s, columns, painter),
            _running(view, now_s, columns),
            _projects(view.status.projects, now_s, columns, painter),
        )
        if block.things
    ]
    foot = foot_lines(view.status, columns)
    room = rows - len(head) - len(foot) - len(blocks) - 1
    lines = list(head)
    for block in _shared(blocks, room, columns):
        lines += ["", *block]
    return [*lines, "", *foot][:rows]


def _reasons(reasons: Sequence[str], columns: int, most: int) -> list[str]:
    lines = [shorten(f"  degraded: {printable(reason)}", columns) for reason in reasons]
    if len(lines) <= most:
        return lines
    more = shorten(f"  … and {len(lines) - most + 1} more: kitctl status", columns)
    return [*lines[: most - 1], more]


def _shared(blocks: Sequence[_Block], room: int, columns: int) -> list[list[str]]:
    """Return as many lines of each block as fit together: what comes first comes whole."""
    shown: list[list[str]] = []
    for position, block in enumerate(blocks):
        # Whatever comes after it has a line that says how much there is.
        share = max(room - len(blocks) + position + 1, 0)
        lines = _cut(block, share, columns)
        room -= len(lines)
        shown.append(lines)
    return [lines for lines in shown if lines]


def _cut(block: _Block, share: int, columns: int) -> list[str]:
    """Return a block in at most `share` lines, the last of which says how many things it lacks."""
    if block.height <= share:
        lines = [*block.header, *(line for thing in block.things for line in thing)]
        return [*lines, *block.counted(block.more, columns)]
    lines, left = list(block.header), len(block.things) + block.more
    for thing in block.things:
        if len(lines) + len(thing) + 1 > share:
            break
        lines += thing
        left -= 1
    if left == len(block.things) + block.more:
        lines = []
    return [*lines, *block.counted(left, columns)][-share:] if share else []


def _failed(view: View, now_s: float, columns: int, painter: Painter) -> _Block:
    recent = [job for job in view.failed if _is_recent(job, now_s)]
    lines = []
    for job in recent[:MAX_FAILED]:
        why = job.error.message if job.error is not None else "kitd gave no reason"
        text = f"job {job.id} ({job.kind} {_subject(job)}) failed {age(job.finished, now_s)}: {why}"
        line = shorten(printable(text), columns)
        lines.append(line.replace("failed", painter.paint_state("failed"), 1))
    how_many = "" if view.are_all_failed else "at least "
    return _Block([], [[line] for line in lines], len(recent) - len(lines), how_many)


def _is_recent(job: Job, now_s: float) -> bool:
    at_s = None if job.finished is None else timestamp_s(job.finished)
    return at_s is not None and now_s - at_s <= RECENT_S


def _running(view: View, now_s: float, columns: int) -> _Block:
    names = [printable(f"{job.id:>5}  {_subject(job)}") for job in view.running]
    widest = min(max(map(cells_of, names), default=0), max(columns // _NAME_SHARE, 8))
    lines = []
    for job, name in zip(view.running, names, strict=True):
        short = shorten(name, widest)
        left = f"{short}{' ' * (widest - cells_of(short))}  "
        room = max(columns - cells_of(left), 1)
        pace = view.paces.get(job.id)
        if pace is None:
            since = f"{job.kind}, for {elapsed(job.started, None, now_s)}"
            lines.append(shorten(left + shorten(since, room), columns))
        else:
            bar = progress_line(pace.progress, pace.rate, room, pace.left_s)
            lines.append(shorten(left + bar, columns))
    return _Block([], [[line] for line in lines])


def _projects(projects: Sequence[Project], now_s: float, columns: int, painter: Painter) -> _Block:
    ordered = sorted(projects, key=lambda each: (_URGENCY.get(each.state, _IDLE), each.name))
    if not ordered:
        return _Block([], [])
    header, *rows = table_lines(ordered, now_s, columns, painter.paint_state)
    things = []
    for project, row in zip(ordered, rows, strict=True):
        things.append([row])
        if project.reason and _URGENCY.get(project.state) == _STUCK:
            things[-1].append(shorten(f"  {printable(project.reason)}", columns))
    return _Block([header], things)


def _subject(job: Job) -> str:
    return job.project or job.reference or job.kind
