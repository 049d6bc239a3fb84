"""Projects as a table, for `status` and `projects list`."""

from collections.abc import Callable, Sequence

from kitd.client.record import Project
from kitd.ctl.cells import fold
from kitd.ctl.format import age, printable, short_digest
from kitd.ctl.session import Session
from kitd.ctl.table import Column, render

_NO_PROJECTS = "No projects yet. Watch one with: kitctl projects add NAME PATH -t REF"


def project_lines(session: Session, projects: Sequence[Project]) -> list[str]:
    """Return a table of projects, and why those that are stuck are."""
    if not projects:
        return [_NO_PROJECTS]
    terminal = session.terminal
    lines = table_lines(projects, session.now_s, terminal.width, terminal.paint_state)
    reasons = [
        line
        for project in projects
        if project.reason
        for line in fold(
            printable(f"  {project.name}: {project.reason}"), terminal.width, indent="    "
        )
    ]
    return lines + reasons


def table_lines(
    projects: Sequence[Project],
    now_s: float,
    width: int | None,
    paint_state: Callable[[str], str],
) -> list[str]:
    """Return a table of projects: its header, and a line for each."""
    columns = (
        Column("PROJECT", can_shrink=True, least=16),
        Column("STATE", paint=paint_state),
        Column("LAST KIT", leaves=1),
        Column("PACKED", leaves=3),
        Column("REFERENCE", can_shrink=True, keeps_end=True, least=20, leaves=2),
    )
    rows = [
        (
            project.name,
            project.state,
            short_digest(project.last_digest) if project.last_digest else "-",
            age(project.last_packed, now_s),
            project.reference,
        )
        for project in projects
    ]
    return render(columns, rows, width=width)
