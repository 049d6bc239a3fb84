"""`kitctl mirror …`: copies between registries.

A run is waited for until each of its jobs was tried once: what failed then is told, and kitd goes
on trying by itself.
"""

from collections.abc import Sequence

from kitd.client import Client, request
from kitd.client.outcome import JobFailedError
from kitd.client.record import Job, Mirror, Mirrored, MirrorEdge, MirroredTag, read_mirrored
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.follow import try_job
from kitd.ctl.format import age, plural, printable, short_digest, size, until
from kitd.ctl.mirrored_text import mirrored_text
from kitd.ctl.session import Session
from kitd.ctl.table import Column, render

_NO_MIRRORS = (
    "No mirrors yet. Add one to the configuration, with a source and targets, under mirrors:"
    " and then kitctl reload. Copy by hand with: kitctl mirror SRC DST"
)
_NO_EDGES = "Nothing is known of its tags yet. Run it with: kitctl mirror run {name}"


def copy(
    session: Session,
    *,
    source: str,
    target: str,
    tags: Sequence[str],
    dry_run: bool,
    detach: bool,
) -> int:
    """Copy tags of one repository to another."""
    with session.connect() as client:
        job = client.call(request.copy_mirror(source, target, tags=tags, dry_run=dry_run))
        if detach:
            session.terminal.show({"job": job.id}, str(job.id))
            return ExitCode.DONE
        tried = _try_all(session, client, (job,))
    return _show_run(session, source, tried)


def run(
    session: Session,
    *,
    name: str,
    dry_run: bool,
    thorough: bool,
    allow_deletes: bool,
    detach: bool,
) -> int:
    """Run a mirror of the configuration now."""
    asked = request.run_mirror(
        name, dry_run=dry_run, thorough=thorough, allow_deletes=allow_deletes
    )
    with session.connect() as client:
        jobs = client.call(asked)
        if detach:
            ids = [job.id for job in jobs]
            session.terminal.show({"jobs": ids}, "\n".join(map(str, ids)))
            return ExitCode.DONE
        tried = _try_all(session, client, jobs)
    return _show_run(session, name, tried)


def list_mirrors(session: Session) -> int:
    """Show the mirrors of the configuration."""
    with session.connect() as client:
        mirrors = client.call(request.list_mirrors())
    columns = (
        Column("MIRROR", can_shrink=True, least=10),
        Column("SOURCE", can_shrink=True, keeps_end=True, least=14, leaves=3),
        Column("TARGETS", can_shrink=True, keeps_end=True, least=14, leaves=4),
        Column("TAGS", is_right=True, leaves=1),
        Column("TROUBLE", can_shrink=True, least=8),
        Column("LAST EQUAL", leaves=5),
        Column("NEXT", leaves=2),
    )
    rows = [
        (
            mirror.name,
            _source(mirror),
            ", ".join(mirror.targets),
            str(mirror.edges),
            _trouble(mirror),
            age(mirror.last_equal, session.now_s),
            "running" if mirror.running else until(mirror.next_start, session.now_s),
        )
        for mirror in mirrors
    ]
    lines = render(columns, rows, width=session.terminal.width) if rows else [_NO_MIRRORS]
    session.terminal.show([mirror.document for mirror in mirrors], "\n".join(lines))
    return ExitCode.DONE


def list_edges(session: Session, *, name: str, limit: int | None) -> int:
    """Show what is known of the tags of a mirror, those in trouble first."""
    with session.connect() as client:
        known = client.call(request.mirror_edges(name, limit=limit))
    terminal = session.terminal
    columns = (
        Column("STATE", paint=terminal.paint_state),
        Column("SOURCE", can_shrink=True, keeps_end=True, least=20),
        Column("TARGET", can_shrink=True, keeps_end=True, least=20, leaves=4),
        Column("DIGEST", leaves=1),
        Column("LAST EQUAL", leaves=2),
        Column("WHY", can_shrink=True, least=14, leaves=3),
    )
    rows = [
        (
            edge.state,
            edge.source,
            edge.target,
            short_digest(edge.digest) if edge.digest else "-",
            age(edge.last_equal, session.now_s),
            _why(edge, session.now_s),
        )
        for edge in known.edges
    ]
    lines = (
        render(columns, rows, width=terminal.width)
        if rows
        else [printable(_NO_EDGES.format(name=name))]
    )
    if known.total > len(rows):
        lines.append(f"… and {known.total - len(rows)} more")
    terminal.show([edge.document for edge in known.edges], "\n".join(lines))
    return ExitCode.DONE


def _source(mirror: Mirror) -> str:
    if not mirror.repositories:
        return mirror.source
    globs = ",".join(mirror.repositories)
    return (
        f"{mirror.source}/{globs}" if len(mirror.repositories) == 1 else f"{mirror.source}: {globs}"
    )


def _trouble(mirror: Mirror) -> str:
    facts = [
        f"{mirror.failed} failed" if mirror.failed else "",
        plural(mirror.conflicts, "conflict") if mirror.conflicts else "",
        f"{mirror.gone} gone" if mirror.gone else "",
    ]
    return ", ".join(filter(None, facts)) or "-"


def _why(edge: MirrorEdge, now_s: float) -> str:
    if edge.error is not None:
        return edge.error
    if edge.state == "conflict":
        return "both ends have moved on"
    if edge.state == "gone":
        return f"gone from the source, noticed {age(edge.gone_since, now_s)}"
    return "-"


def _try_all(session: Session, client: Client, jobs: Sequence[Job]) -> list[Job]:
    """Return jobs, and those that follow from them, once each was tried."""
    tried: list[Job] = []
    waiting: list[int | Job] = list(jobs)
    while waiting:
        job = try_job(session, client, waiting.pop(0))
        tried.append(job)
        waiting += job.followed_by
    return tried


def _show_run(session: Session, subject: str, tried: Sequence[Job]) -> int:
    """Show what jobs came to. Raises `JobFailedError` if nothing is known but that one failed."""
    results = [
        read_mirrored(job.result)
        for job in tried
        if job.kind == "mirror" and job.result is not None
    ]
    failed = [job for job in tried if job.state != "succeeded"]
    for job in failed:
        if not job.is_terminal:
            session.terminal.note(
                f"kitd tries job {job.id} again; wait for it with: kitctl jobs wait {job.id}"
            )
    if failed and not results:
        raise JobFailedError(failed[0])
    for job in failed:
        session.terminal.complain(printable(f"kitctl: {JobFailedError(job).describe()}"))
    for note in _notes(tried):
        session.terminal.note(f"warning: {printable(note)}")
    tags = [tag for result in results for tag in result.tags]
    lines = [*_table(session, tags), _summary(subject, results)]
    session.terminal.show([tag.document for tag in tags], "\n".join(lines))
    return ExitCode.FAILED if failed else ExitCode.DONE


def _notes(jobs: Sequence[Job]) -> list[str]:
    notes = (str(note) for job in jobs for note in (job.result or {}).get("notes") or ())
    return list(dict.fromkeys(notes))


def _table(session: Session, tags: Sequence[MirroredTag]) -> list[str]:
    """Return the tags of which there is something to tell."""
    told = [tag for tag in tags if tag.action != "unchanged"]
    if not told:
        return []
    columns = (
        Column("ACTION", paint=session.terminal.paint_state),
        Column("SOURCE", can_shrink=True, keeps_end=True, least=20),
        Column("TARGET", can_shrink=True, keeps_end=True, least=20, leaves=4),
        Column("DIGEST", leaves=1),
        Column("SENT", is_right=True, leaves=2),
        Column("WHY", can_shrink=True, least=14, leaves=3),
    )
    rows = [
        (
            tag.action,
            tag.source,
            tag.target,
            short_digest(tag.digest) if tag.digest else "-",
            size(tag.bytes),
            tag.why or "-",
        )
        for tag in told
    ]
    return render(columns, rows, width=session.terminal.width)


def _summary(subject: str, results: Sequence[Mirrored]) -> str:
    line = f"{subject}: {mirrored_text(results)}"
    foreseen = any(result.dry_run for result in results)
    return printable(f"{line} (foreseen: nothing was changed)" if foreseen else line)
