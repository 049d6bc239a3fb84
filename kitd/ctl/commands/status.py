"""`kitctl status`."""

from kitd.client import request
from kitd.client.record import Status
from kitd.ctl.cells import fold
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.format import duration, plural, printable, size
from kitd.ctl.project_table import project_lines
from kitd.ctl.session import Session

_JOB_STATES = ("running", "ready", "scheduled", "failed")


def status(session: Session) -> int:
    """Show the daemon, its projects, its queue and its cache."""
    with session.connect() as client:
        answer = client.call(request.status())
    session.terminal.show(answer.document, "\n".join(_lines(session, answer)))
    return ExitCode.DONE


def _lines(session: Session, status: Status) -> list[str]:
    daemon, cache = status.daemon, status.cache
    state = session.terminal.paint_state(printable(str(daemon.get("state"))))
    uptime_s = daemon.get("uptime_s")
    uptime = duration(uptime_s) if isinstance(uptime_s, int | float) else "-"
    version = printable(str(daemon.get("version")))
    lines = [f"kitd {version} is {state}, up {uptime}, pid {daemon.get('pid')}"]
    width = session.terminal.width
    for reason in status.degraded:
        lines += fold(f"  degraded: {printable(reason)}", width, indent="    ")
    lines += ["", *project_lines(session, status.projects), ""]
    queue = ", ".join(f"{status.queue.get(state, 0)} {state}" for state in _JOB_STATES)
    lines += fold(f"queue   {queue}", width, indent=" " * 8)
    if isinstance(count := cache.get("blobs"), int):
        stored, shared = (_size(cache.get(f"{kind}_bytes")) for kind in ("physical", "shared"))
        facts = f"cache   {plural(count, 'blob')}, {stored} on disk, {shared} shared"
        lines += fold(facts, width, indent=" " * 8)
    return lines


def _size(count: object) -> str:
    return size(count) if isinstance(count, int) else "-"
