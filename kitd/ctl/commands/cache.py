"""`kitctl cache …`."""

from typing import Any

from kitd.client import request
from kitd.client.protocol import Document
from kitd.client.record import Job
from kitd.client.request import Request
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.follow import complete_job
from kitd.ctl.format import plural, printable, short_digest, size
from kitd.ctl.session import Session
from kitd.ctl.table import Column, render

_MEANINGS = {
    "physical_bytes": "on disk",
    "logical_bytes": "if every kit had its own copy",
    "shared_bytes": "saved by sharing",
    "evictable_bytes": "could be removed",
}
_COLUMNS = (
    Column("ACTION"),
    Column("WHAT", leaves=1),
    Column("SIZE", is_right=True),
    Column("NAME", can_shrink=True, keeps_end=True, least=16),
    Column("WHY", can_shrink=True, least=12, leaves=2),
)
_NOTHING = "The cache has nothing to decide about. What it holds: kitctl cache stats"


def show_stats(session: Session) -> int:
    """Show how much the cache holds and shares."""
    with session.connect() as client:
        stats = client.call(request.cache_stats())
    lines = [f"{stats.get('blobs'):>10}   blobs"]
    lines += [
        f"{size(stats[name]):>10}   {meaning}"
        for name, meaning in _MEANINGS.items()
        if isinstance(stats.get(name), int)
    ]
    session.terminal.show(stats, "\n".join(lines))
    return ExitCode.DONE


def collect(session: Session, *, dry_run: bool, detach: bool) -> int:
    """Collect the cache, or tell what that would do."""
    if dry_run:
        return _show_plan(session)
    document = _complete(session, request.collect_cache(), detach=detach)
    if document is not None:
        if document.get("advice"):
            session.terminal.note(f"warning: {printable(str(document['advice']))}")
        session.terminal.show(document, _collected(document))
    return ExitCode.DONE


def verify(session: Session, *, repair: bool, detach: bool) -> int:
    """Hash the cache again; fails where damage is left."""
    document = _complete(session, request.verify_cache(repair=repair), detach=detach)
    if document is None:
        return ExitCode.DONE
    session.terminal.show(document, "\n".join(_verified(document)))
    return ExitCode.FAILED if document.get("unrepaired") else ExitCode.DONE


def pin(session: Session, *, reference: str) -> int:
    """Keep a kit whatever the limits."""
    return _show_pin(session, request.pin_kit(reference), "pinned")


def unpin(session: Session, *, reference: str) -> int:
    """Let a kit be collected again."""
    return _show_pin(session, request.unpin_kit(reference), "unpinned")


def _show_pin(session: Session, asked: Request[Document], done: str) -> int:
    with session.connect() as client:
        pinned = client.call(asked)
    name = printable(f"{pinned.get('reference')}@{pinned.get('digest')}")
    session.terminal.show(pinned, f"{done} {name}")
    return ExitCode.DONE


def _complete(session: Session, asked: Request[Job], *, detach: bool) -> dict[str, Any] | None:
    """Return what the job came to; None where nobody waits for it."""
    with session.connect() as client:
        job = client.call(asked)
        if not detach:
            ended = complete_job(session, client, job)
            return {"job": ended.id, **(ended.result or {})}
    session.terminal.show({"job": job.id}, str(job.id))
    return None


def _show_plan(session: Session) -> int:
    with session.connect() as client:
        plan = client.call(request.plan_collection())
    decisions = plan.get("decisions") or []
    rows = [
        (
            str(decision["action"]),
            str(decision["kind"]),
            size(decision["bytes"]),
            _name(decision),
            str(decision["why"]),
        )
        for decision in decisions
    ]
    lines = render(_COLUMNS, rows, width=session.terminal.width) if rows else [_NOTHING]
    if plan.get("omitted"):
        lines.append(f"… and {plan['omitted']} more")
    lines.append(f"would free {size(plan.get('freed_bytes', 0))}")
    if plan.get("over_bytes"):
        lines.append(f"{size(plan['over_bytes'])} more than the limits allow would be left")
    session.terminal.show(plan, "\n".join(lines))
    return ExitCode.DONE


def _name(decision: dict[str, Any]) -> str:
    """Return a kit's name; of a blob what `kitctl why` takes is too long, and its start enough."""
    name, digest = str(decision["name"]), str(decision["digest"])
    return short_digest(digest) if name == digest else name.replace(digest, short_digest(digest))


def _collected(document: dict[str, Any]) -> str:
    kits = document.get("kits") or []
    line = f"freed {size(document.get('freed_bytes', 0))}: {plural(len(kits), 'kit')}"
    line += f", {plural(document.get('blobs', 0), 'blob')}; {size(document.get('kept_bytes', 0))}"
    return f"{line} kept"


def _verified(document: dict[str, Any]) -> list[str]:
    checked, count = document.get("checked", 0), document.get("bytes", 0)
    damaged = document.get("damaged") or []
    lines = [f"checked {plural(checked, 'blob')}, {size(count)}: {len(damaged)} damaged"]
    repaired = set(document.get("repaired") or ())
    for damage in damaged:
        digest, kits = str(damage["digest"]), ", ".join(damage["kits"]) or "no kit"
        mended = ", repaired" if digest in repaired else ""
        lines.append(printable(f"{digest} {damage['why']}{mended}; needed by {kits}"))
    if document.get("unrepaired"):
        lines.append("mend it with kitctl cache verify --repair, or pull or pack the kits again")
    return lines
