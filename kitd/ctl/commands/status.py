"""`kitctl status`."""

from kitd.client import request
from kitd.ctl.error import UsageError
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.project_table import project_lines
from kitd.ctl.session import Session
from kitd.ctl.status_text import degraded_lines, first_line, foot_lines


def status(session: Session, *, watch: bool) -> int:
    """Show the daemon, its projects, its queue and its cache, once or as they are from now on."""
    terminal = session.terminal
    if watch:
        return _watch(session)
    with session.connect() as client:
        answer = client.call(request.status())
    lines = [
        first_line(answer, terminal.width, terminal),
        *degraded_lines(answer, terminal.width),
        "",
        *project_lines(session, answer.projects),
        "",
        *foot_lines(answer, terminal.width),
    ]
    terminal.show(answer.document, "\n".join(lines))
    return ExitCode.DONE


def _watch(session: Session) -> int:
    from kitd.ctl.watch import print_changes, watch_screen  # noqa: PLC0415 - status starts lighter

    if session.terminal.json_only:
        return print_changes(session)
    if not session.terminal.has_screen:
        raise UsageError(
            "status --watch draws on a terminal, and this is none",
            hint="for programs: kitctl status --watch --json",
        )
    return watch_screen(session)
