"""`kitctl list`, `inspect` and `info`: what kits there are and what is in them."""

import json

from kitd.client import request
from kitd.client.error import ProtocolError
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.format import printable, short_digest, size
from kitd.ctl.session import Session
from kitd.ctl.table import Column, render

_NONE = "<none>"
_NO_KITS = "No kits yet. Pack one with: kitctl pack DIR -t REF"
_COLUMNS = (
    Column("REPOSITORY", can_shrink=True),
    Column("TAG", can_shrink=True),
    Column("MAINTAINER", can_shrink=True),
    Column("NAME", can_shrink=True),
    Column("SIZE", is_right=True),
    Column("DIGEST"),
)


def list_kits(session: Session, *, repository: str | None) -> int:
    """Show the kits in the cache, a tag a line."""
    with session.connect() as client:
        kits = client.call(request.list_kits(repository))
    rows = [
        (
            kit.repository or _NONE,
            tag,
            kit.author or _NONE,
            kit.model_name or _NONE,
            size(kit.size),
            short_digest(kit.digest),
        )
        for kit in kits
        for tag in kit.tags or (_NONE,)
    ]
    none = _NO_KITS if repository is None else f"No kits of {printable(repository)}."
    lines = render(_COLUMNS, rows, width=session.terminal.width) if rows else [none]
    session.terminal.show([kit.document for kit in kits], "\n".join(lines))
    return ExitCode.DONE


def inspect_kit(session: Session, *, reference: str, remote: bool) -> int:
    """Show a kit's digest, manifest and configuration."""
    with session.connect() as client:
        answer = client.call(request.inspect_kit(reference, remote=remote))
    session.terminal.show(answer, json.dumps(answer, indent=2))
    return ExitCode.DONE


def show_info(session: Session, *, reference: str, remote: bool) -> int:
    """Show a kit's Kitfile."""
    with session.connect() as client:
        answer = client.call(request.kit_info(reference, remote=remote))
    text = answer.get("yaml")
    if not isinstance(text, str):
        raise ProtocolError("the daemon sent no Kitfile")
    for note in answer.get("notes") or ():
        session.terminal.note(f"warning: {printable(str(note))}")
    lines = [printable(line) for line in text.splitlines()]
    session.terminal.show(answer, "\n".join(lines))
    return ExitCode.DONE
