"""`kitctl jobs …`: the queue."""

from kitd.client import Client, request
from kitd.client.absence import PATIENCE_S, Absence
from kitd.client.record import Event, Job, read_mirrored
from kitd.ctl.cells import fold
from kitd.ctl.event_line import event_text
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.follow import Presence, follow_job
from kitd.ctl.format import age, elapsed, printable, size
from kitd.ctl.mirrored_text import mirrored_text
from kitd.ctl.session import Session
from kitd.ctl.table import Column, render
from kitd.errors import KitdError

_NO_JOBS = "No jobs yet. Begin with: kitctl pack DIR -t REF"
_NONE_OF_THESE = "No such jobs. All there are: kitctl jobs list"
_MAX_NAME_CHARS = 200
_PAGE = 500
"""What one call returns at most."""


def list_jobs(
    session: Session,
    *,
    state: str | None,
    kind: str | None,
    project: str | None,
    limit: int | None,
) -> int:
    """Show jobs, newest first."""
    jobs: list[Job] = []
    with session.connect() as client:
        while True:
            wanted = None if limit is None else min(limit - len(jobs), _PAGE)
            before = jobs[-1].id if jobs else None
            page = client.call(
                request.list_jobs(
                    state=state, kind=kind, project=project, limit=wanted, before=before
                )
            )
            jobs += page
            if limit is None or len(jobs) >= limit or len(page) < _PAGE:
                break
        if not jobs and project is not None:
            _note_unknown(session, client, project)
    is_filtered = (state, kind, project) != (None, None, None)
    columns = (
        Column("JOB", is_right=True),
        Column("KIND"),
        Column("STATE", paint=session.terminal.paint_state),
        Column("PROJECT", can_shrink=True, least=12, leaves=3),
        Column("CREATED", leaves=2),
        Column("TOOK", is_right=True, leaves=1),
        Column("REFERENCE", can_shrink=True, keeps_end=True, least=20),
    )
    rows = [
        (
            str(job.id),
            job.kind,
            job.state,
            job.project or "-",
            age(job.created, session.now_s),
            elapsed(job.started, job.finished, session.now_s),
            job.reference or "-",
        )
        for job in jobs
    ]
    lines = render(columns, rows, width=session.terminal.width) if rows else []
    lines = lines or [_NONE_OF_THESE if is_filtered else _NO_JOBS]
    session.terminal.show([job.document for job in jobs], "\n".join(lines))
    return ExitCode.DONE


def _note_unknown(session: Session, client: Client, project: str) -> None:
    """Say so where there is no such project, as after a slip of the finger."""
    names = [each.name for each in client.call(request.list_projects())]
    if project in names:
        return
    from difflib import get_close_matches  # noqa: PLC0415 - only a mistake needs it

    near = get_close_matches(project[:_MAX_NAME_CHARS], names, n=1)
    hint = f"did you mean {near[0]}?" if near else "see: kitctl projects list"
    session.terminal.note(printable(f"warning: there is no project {project} ({hint})"))


def show_job(session: Session, *, job: int) -> int:
    """Show one job."""
    with session.connect() as client:
        answer = client.call(request.get_job(job))
    session.terminal.show(answer.document, _describe(session, answer))
    return ExitCode.DONE


def wait_job(session: Session, *, job: int, timeout: float | None) -> int:
    """Wait until a job has ended; fail if it did."""
    with session.connect() as client:
        ended = follow_job(session, client, job, timeout)
    session.terminal.show(ended.document, _describe(session, ended))
    return ExitCode.DONE if ended.state == "succeeded" else ExitCode.FAILED


def cancel_job(session: Session, *, job: int) -> int:
    """Stop a job, or keep it from starting."""
    with session.connect() as client:
        answer = client.call(request.cancel_job(job))
    session.terminal.show(answer.document, f"job {answer.id} is {printable(answer.state)}")
    return ExitCode.DONE


def retry_job(session: Session, *, job: int) -> int:
    """Run a failed or cancelled job again."""
    with session.connect() as client:
        answer = client.call(request.retry_job(job))
    session.terminal.show(answer.document, f"job {answer.id} is {printable(answer.state)}")
    return ExitCode.DONE


def show_log(session: Session, *, job: int, follow: bool) -> int:
    """Show the events of a job; with `follow` until it has ended."""
    terminal = session.terminal
    with session.connect() as client:
        if follow:
            return _follow_log(session, client, job)
        events = client.call(request.log_job(job))
    text = "\n".join(event_text(event, terminal.width) for event in events) or "No events."
    terminal.show([event.document for event in events], text)
    return ExitCode.DONE


def _follow_log(session: Session, client: Client, job: int) -> int:
    shown = 0
    presence, absence = Presence(session.terminal, f"job {job}: "), Absence(PATIENCE_S, job)
    while True:
        try:
            # It says when to look again; the log is what is shown, so nothing comes twice.
            with client.subscribe(job=job) as subscription:
                while True:
                    current = subscription.call(request.get_job(job))
                    absence.end(current)
                    presence.confirm()
                    for event in subscription.call(request.log_job(job)):
                        if event.seq > shown:
                            _show_event(session, event)
                            shown = event.seq
                    if current.is_terminal:
                        return ExitCode.DONE
                    while not isinstance(subscription.read(), Event):
                        pass
        except KitdError as error:
            absence.pause_s(error)
            presence.wait(error)


def _show_event(session: Session, event: Event) -> None:
    session.terminal.show_line(event.document, event_text(event, session.terminal.width))


def _describe(session: Session, job: Job) -> str:
    """Return what there is to say about a job, a fact a line."""
    facts = [
        ("job", f"{job.id} ({job.kind})"),
        ("state", job.state),
        ("project", job.project),
        ("reference", job.reference),
        ("created", job.created),
        ("started", job.started),
        ("finished", job.finished),
        ("took", elapsed(job.started, job.finished, session.now_s)),
        ("attempt", f"{job.attempt} of {job.max_attempts}"),
        ("next run", job.run_at if job.state == "scheduled" else None),
        ("digest", str(job.result["digest"]) if job.result and "digest" in job.result else None),
    ]
    if job.kind == "mirror" and job.result is not None:
        facts.append(("tags", mirrored_text([read_mirrored(job.result)])))
    if job.progress is not None:
        done, total = size(job.progress.bytes), size(job.progress.total)
        facts.append(("progress", f"{job.progress.phase}, {done} of {total}"))
    if job.error is not None:
        facts.append(("error", job.error.message))
        facts.append(("hint", job.error.hint))
    return "\n".join(
        line
        for name, text in facts
        if text
        for line in fold(f"{name:<10} {printable(text)}", session.terminal.width, indent=" " * 11)
    )
