"""`kitctl import`: a kit of a model or a dataset of a hub."""

import os
from collections.abc import Sequence

from kitd.client import request
from kitd.ctl.error import UsageError
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.follow import complete_job
from kitd.ctl.format import plural, printable, size
from kitd.ctl.session import Session

MAX_KITFILE_BYTES = 256 << 10


def import_kit(
    session: Session,
    *,
    repository: str,
    tag: str | None,
    file: str | None,
    ref: str | None,
    include: Sequence[str],
    exclude: Sequence[str],
    detach: bool,
) -> int:
    """Fetch a repository of the hub, write a Kitfile for it unless one is given, and pack it."""
    asked = request.import_kit(
        repository,
        reference=tag,
        kitfile=None if file is None else _read(file),
        revision=ref,
        include=include,
        exclude=exclude,
    )
    with session.connect() as client:
        job = client.call(asked)
        if detach:
            session.terminal.show({"job": job.id}, str(job.id))
            return ExitCode.DONE
        done = complete_job(session, client, job.id)
    document = {"job": done.id, **(done.result or {})}
    for warning in document.get("warnings") or ():
        session.terminal.note(f"warning: {printable(str(warning))}")
    name = printable(f"{document.get('reference')}@{document.get('digest')}")
    received = document.get("received") or 0
    text = (
        f"imported {printable(str(document.get('source')))} as {name}: "
        f"{plural(document.get('files') or 0, 'file')}, {size(received)} received"
    )
    session.terminal.show(document, text)
    return ExitCode.DONE


def _read(path: str) -> str:
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as f:
            content = f.read(MAX_KITFILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > MAX_KITFILE_BYTES:
        raise UsageError(f"{path} is larger than 256 KiB")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text in UTF-8") from error
