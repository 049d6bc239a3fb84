"""`kitctl list`, `inspect` and `info`: what kits there are and what is in them."""

import json
from collections.abc import Sequence

from kitd.client import request
from kitd.client.error import ProtocolError
from kitd.client.record import Kit
from kitd.ctl.error import UsageError
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.format import plural, printable, short_digest, size
from kitd.ctl.kit_template import fill_template, parse_template
from kitd.ctl.session import Session
from kitd.ctl.table import Column, render

REMOTE_S = 120.0
"""How long a listing may take: kitd gives up earlier, and says how far it came."""

_NONE = "<none>"
_NO_KITS = "No kits yet. Pack one with: kitctl pack DIR -t REF"
_COLUMNS = (
    Column("REPOSITORY", can_shrink=True, keeps_end=True, least=20),
    Column("TAG", can_shrink=True, least=12),
    Column("MAINTAINER", can_shrink=True, leaves=1),
    Column("NAME", can_shrink=True, least=8, leaves=2),
    Column("SIZE", is_right=True, leaves=4),
    Column("DIGEST", leaves=3),
)


def list_kits(
    session: Session,
    *,
    repository: str | None,
    remote: bool,
    filter: Sequence[str],  # noqa: A002 - it is the name of the option
    format: str | None,  # noqa: A002
) -> int:
    """Show the kits in the cache or of a registry's repository, a tag a line."""
    fields = None if format in (None, "table", "json") else parse_template(format)
    kits = _kits(session, repository, filter, remote=remote)
    documents = [kit.document for kit in kits]
    if format == "json":
        text = json.dumps(documents, indent=2)
    elif fields is not None:
        text = "".join(fill_template(fields, kit) for kit in kits).removesuffix("\n")
    else:
        text = _table(session, kits, repository)
    if text or session.terminal.json_only:
        session.terminal.show(documents, text)
    return ExitCode.DONE


def _kits(
    session: Session, repository: str | None, filters: Sequence[str], *, remote: bool
) -> Sequence[Kit]:
    if not remote:
        with session.connect() as client:
            return client.call(request.list_kits(repository, filters=filters))
    if repository is None:
        raise UsageError(
            "registries do not tell what they have: name a repository",
            hint="kitctl list --remote registry.example.com/team/model",
        )
    with session.connect() as client:
        found = client.call(
            request.list_remote_kits(repository, filters=filters), timeout_s=REMOTE_S
        )
    for note in found.notes:
        session.terminal.note(f"warning: {printable(note)}")
    if found.others:
        session.terminal.note(f"passed over {plural(found.others, 'tag')} of no kit")
    if found.omitted:
        session.terminal.note(f"warning: {plural(found.omitted, 'tag')} not looked at")
    return found.kits


def _table(session: Session, kits: Sequence[Kit], repository: str | None) -> str:
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
    return "\n".join(lines)


def inspect_kit(session: Session, *, reference: str, remote: bool) -> int:
    """Show a kit's digest, manifest and configuration."""
    with session.connect() as client:
        answer = client.call(request.inspect_kit(reference, remote=remote))
    session.terminal.show(answer, json.dumps(answer, indent=2))
    return ExitCode.DONE


def show_info(
    session: Session,
    *,
    reference: str,
    remote: bool,
    filter: str | None,  # noqa: A002 - it is the name of the option
) -> int:
    """Show a kit's Kitfile, or what a path leads to in it."""
    with session.connect() as client:
        answer = client.call(request.kit_info(reference, remote=remote, path=filter))
    text = answer.get("yaml")
    if not isinstance(text, str):
        raise ProtocolError("the daemon sent no Kitfile")
    for note in answer.get("notes") or ():
        session.terminal.note(f"warning: {printable(str(note))}")
    session.terminal.show_file(answer, text)
    return ExitCode.DONE
