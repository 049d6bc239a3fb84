"""`kitctl pack`, `push` and `pull`: the commands that start a job and wait for it."""

import os
from collections.abc import Callable
from typing import Any

from kitd.client import request
from kitd.client.record import Job
from kitd.client.request import Request
from kitd.ctl.error import UsageError
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.follow import complete_job
from kitd.ctl.format import plural, printable, size
from kitd.ctl.session import Session


def pack(  # noqa: PLR0913 - one for each of the command's options
    session: Session,
    *,
    directory: str,
    tag: str,
    kitfile: str | None,
    compression: str | None,
    layer_format: str | None,
    model_pack: bool,
    push: bool,
    detach: bool,
) -> int:
    """Pack a directory; with `push` wait for the push as well."""
    path = os.path.abspath(directory)
    asked = request.pack(
        path,
        tag,
        kitfile=None if kitfile is None else _below(path, kitfile),
        compression=compression,
        layer_format=layer_format,
        model_pack=model_pack or None,
        source_date_epoch=_source_date_epoch(),
        push=push or None,
    )
    return make_kit(session, asked, _packed, push=push, detach=detach)


def make_kit(
    session: Session,
    asked: Request[Job],
    told: Callable[[dict[str, Any]], str],
    *,
    push: bool,
    detach: bool,
) -> int:
    """Have a kit made, and wait for its push as well with `push`; `told` is the line about it."""
    with session.connect() as client:
        job = client.call(asked)
        if detach:
            return show_started(session, job)
        done = complete_job(session, client, job)
        document = document_of(done)
        note_warnings(session, document)
        lines = [told(document)]
        if push:
            for follower in done.followed_by:
                document["push"] = document_of(complete_job(session, client, follower))
                lines.append(movement("pushed", document["push"]))
    session.terminal.show(document, "\n".join(lines))
    return ExitCode.DONE


def _source_date_epoch() -> int | None:
    """Return the seconds that the environment wants instead of the time, for equal digests."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise UsageError(
            f"SOURCE_DATE_EPOCH is {text[:40]!r}", hint="set it to seconds since 1970, or unset it"
        )
    return int(text)


def _below(directory: str, file: str) -> str:
    """Return a file as the daemon takes it: relative to the directory if it lies there."""
    path = os.path.abspath(file)
    return os.path.relpath(path, directory) if path.startswith(f"{directory}/") else path


def push(
    session: Session, *, reference: str, target: str | None, with_parents: bool, detach: bool
) -> int:
    """Copy a kit from the cache to a registry."""
    asked = request.push(reference, target, with_parents=with_parents or None)
    return _transfer(session, asked, "pushed", detach=detach)


def pull(session: Session, *, reference: str, detach: bool) -> int:
    """Copy a kit from its registry to the cache."""
    return _transfer(session, request.pull(reference), "pulled", detach=detach)


def _transfer(session: Session, asked: Request[Job], done: str, *, detach: bool) -> int:
    with session.connect() as client:
        job = client.call(asked)
        if detach:
            return show_started(session, job)
        document = document_of(complete_job(session, client, job))
    note_warnings(session, document)
    session.terminal.show(document, movement(done, document))
    return ExitCode.DONE


def show_started(session: Session, job: Job) -> int:
    """Show a job that nobody waits for."""
    session.terminal.show({"job": job.id}, str(job.id))
    return ExitCode.DONE


def document_of(job: Job) -> dict[str, Any]:
    """Return a job's result as `--json` shows it."""
    return {"job": job.id, **(job.result or {})}


def note_warnings(session: Session, document: dict[str, Any]) -> None:
    """Say what is to be said about a result."""
    for warning in (*(document.get("warnings") or ()), *(document.get("notes") or ())):
        session.terminal.note(f"warning: {printable(str(warning))}")


def _packed(document: dict[str, Any]) -> str:
    layers = document.get("layers") or []
    total = size(sum(layer.get("size", 0) for layer in layers))
    reused = sum(1 for layer in layers if layer.get("reused"))
    what = "unchanged" if document.get("unchanged") else "packed"
    sent = document.get("sent")
    return (
        f"{what} {_name(document)}: {plural(len(layers), 'layer')}, {total}"
        + (f", {reused} reused" if reused else "")
        + (f", {size(sent)} sent" if sent else "")
    )


def movement(done: str, document: dict[str, Any]) -> str:
    """Return what was pushed or pulled, as a line."""
    moved = document.get("bytes") or {}
    facts = [
        f"{size(moved[kind])} {kind}"
        for kind in ("sent", "received", "mounted", "skipped")
        if moved.get(kind)
    ]
    if referrers := document.get("referrers"):
        facts.append(f"with {plural(referrers, 'referrer')}")
    if parents := document.get("parents"):
        facts.append(f"with {', '.join(printable(str(parent)) for parent in parents)}")
    return f"{done} {_name(document)}" + (f": {', '.join(facts)}" if facts else "")


def _name(document: dict[str, Any]) -> str:
    return printable(f"{document.get('reference')}@{document.get('digest')}")
