"""Projects as a table, for `status` and `projects list`."""

from collections.abc import Sequence

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
    columns = (
        Column("PROJECT", can_shrink=True, least=16),
        Column("STATE", paint=terminal.paint_state),
        Column("LAST KIT", leaves=1),
        Column("PACKED", leaves=3),
        Column("REFERENCE", can_shrink=True, keeps_end=True, least=20, leaves=2),
    )
    rows = [
        (
            project.name,
            project.state,
            short_digest(project.last_digest) if project.last_digest else "-",
            age(project.last_packed, session.now_s),
            project.reference,
        )
        for project in projects
    ]
    reasons = [
        line
        for project in projects
        if project.reason
        for line in fold(
            printable(f"  {project.name}: {project.reason}"), terminal.width, indent="    "
        )
    ]
    return render(columns, rows, width=terminal.width) + reasons
