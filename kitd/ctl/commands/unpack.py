"""`kitctl unpack`: files of a kit, written with the caller's own rights."""

import os
from collections.abc import Sequence
from pathlib import Path

from kitd.client import request
from kitd.client.placement import Existing
from kitd.client.record import MissingKit
from kitd.client.unpack import backup_notes, complete_plan, unpack
from kitd.ctl.ending_signals import TakenBackBySignals
from kitd.ctl.error import UsageError
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.follow import complete_job
from kitd.ctl.format import plural, printable, size
from kitd.ctl.progress import ProgressLine
from kitd.ctl.session import Session


def unpack_kit(
    session: Session,
    *,
    reference: str,
    dir: str | None,  # noqa: A002 - it is the name of the option
    filter: Sequence[str],  # noqa: A002
    overwrite: bool,
    ignore_existing: bool,
    include_remote: bool,
) -> int:
    """Unpack a kit, pulling what is wanted of it first if the cache does not know it."""
    if overwrite and ignore_existing:
        raise UsageError("--overwrite and --ignore-existing exclude each other")
    existing = Existing.REFUSE
    if overwrite or ignore_existing:
        existing = Existing.OVERWRITE if overwrite else Existing.KEEP
    target = Path(os.path.abspath(dir or "."))
    with (
        TakenBackBySignals(),
        session.connect() as client,
        ProgressLine(session.terminal) as line,
    ):

        def pull(missing: MissingKit) -> None:
            session.terminal.note(f"pulling {printable(missing.reference)}")
            asked = request.pull(missing.reference, missing.filters, parents=False)
            complete_job(session, client, client.call(asked))

        plan = complete_plan(client, reference, filter, include_remote=include_remote, pull=pull)
        for note in plan.notes:
            session.terminal.note(f"warning: {printable(note)}")
        if plan.remotes and not include_remote:
            left = plural(len(plan.remotes), "remote dataset")
            session.terminal.note(f"warning: {left} left out: --include-remote fetches it as well")
        extraction = unpack(
            client,
            plan,
            target,
            existing=existing,
            stores=os.environ if include_remote else None,
            progress=line.update,
        )
    for note in backup_notes(target, extraction):
        session.terminal.note(f"warning: {note}")
    document = {"digest": plan.digest, "files": extraction.files, "bytes": extraction.bytes}
    text = (
        f"unpacked {printable(plan.reference)}@{printable(plan.digest)} to {target}: "
        f"{plural(extraction.files, 'file')}, {size(extraction.bytes)}"
    )
    session.terminal.show(document, text)
    return ExitCode.DONE
