"""`kitctl unpack`: files of a kit, written with the caller's own rights."""

import os
from collections.abc import Sequence
from pathlib import Path

from kitd.client import Client, request
from kitd.client.error import RpcError
from kitd.client.placement import Existing
from kitd.client.record import Progress, UnpackPlan
from kitd.client.reference import has_registry
from kitd.client.unpack import unpack
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
) -> int:
    """Unpack a kit, pulling what is wanted of it first if the cache does not know it."""
    if overwrite and ignore_existing:
        raise UsageError("--overwrite and --ignore-existing exclude each other")
    existing = Existing.REFUSE
    if overwrite or ignore_existing:
        existing = Existing.OVERWRITE if overwrite else Existing.KEEP
    target = Path(os.path.abspath(dir or "."))
    with session.connect() as client, ProgressLine(session.terminal) as line:
        plan = _plan(session, client, reference, filter)
        for note in plan.notes:
            session.terminal.note(f"warning: {printable(note)}")
        total = sum(layer.size for layer in plan.layers)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            line.update(Progress("unpacking", done, total))

        extraction = unpack(client, plan, target, existing=existing, progress=advance)
    document = {"digest": plan.digest, "files": extraction.files, "bytes": extraction.bytes}
    text = (
        f"unpacked {printable(plan.reference)}@{printable(plan.digest)} to {target}: "
        f"{plural(extraction.files, 'file')}, {size(extraction.bytes)}"
    )
    session.terminal.show(document, text)
    return ExitCode.DONE


def _plan(session: Session, client: Client, reference: str, filters: Sequence[str]) -> UnpackPlan:
    asked = request.plan_unpack(reference, filters)
    try:
        return client.call(asked)
    except RpcError as error:
        if error.code != "not_found" or not has_registry(reference):
            raise
    session.terminal.note(f"pulling {reference}")
    pulled = client.call(request.pull(reference, filters))
    complete_job(session, client, pulled.id)
    return client.call(asked)
