"""`kitctl webhooks …`: what registries told."""

from typing import Any

from kitd.client import request
from kitd.client.protocol import Document
from kitd.ctl.cells import fold
from kitd.ctl.error import UsageError
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.format import age, plural, printable, rfc3339, size
from kitd.ctl.session import Session
from kitd.ctl.table import Column, render

_PAGE = 500
_REPLAYED_AT_ONCE = 100
"""What one call takes at most."""
_USUAL = 50
_NONE_OF_THESE = "No such deliveries. All there are: kitctl webhooks list"
_NO_SENDERS = (
    "No deliveries, and nobody who sends any. Name registries in the configuration, under webhooks:"
    " and then kitctl reload"
)


def list_deliveries(
    session: Session, *, source: str | None, state: str | None, limit: int | None
) -> int:
    """Show deliveries, newest first."""
    wanted = _USUAL if limit is None else limit
    deliveries: list[dict[str, Any]] = []
    with session.connect() as client:
        while True:
            at_most = min(wanted - len(deliveries), _PAGE)
            before = deliveries[-1]["id"] if deliveries else None
            page = client.call(
                request.list_deliveries(source=source, state=state, limit=at_most, before=before)
            )
            found = page.get("deliveries") or []
            deliveries += found
            if len(deliveries) >= wanted or len(found) < at_most:
                break
    is_filtered = (source, state) != (None, None)
    if deliveries:
        lines = _table(session, deliveries)
    else:
        lines = fold(_nothing(page, is_filtered=is_filtered), session.terminal.width)
    lines += [*_unread(page), *_refused(page)]
    session.terminal.show({**page, "deliveries": deliveries}, "\n".join(lines))
    return ExitCode.DONE


def replay(
    session: Session, *, deliveries: list[int], since: str | float | None, source: str | None
) -> int:
    """Have deliveries read again; fails if one cannot be, or is as malformed as before."""
    if bool(deliveries) == (since is not None):
        hint = "kitctl webhooks replay ID..., or kitctl webhooks replay --since 2h"
        raise UsageError("webhooks replay takes either numbers or --since", hint=hint)
    if source is not None and since is None:
        raise UsageError("--source goes with --since", hint="kitctl webhooks replay --help")
    replays: list[dict[str, Any]] = []
    with session.connect() as client:
        if since is not None:
            start = since if isinstance(since, str) else rfc3339(session.now_s - since)
            last: int | None = 0
            while last is not None:
                asked = request.replay_deliveries(since=start, source=source, after=last)
                document = client.call(asked)
                replays += document.get("replays") or []
                last = document.get("last")
        else:
            for first in range(0, len(deliveries), _REPLAYED_AT_ONCE):
                ids = deliveries[first : first + _REPLAYED_AT_ONCE]
                replays += client.call(request.replay_deliveries(ids)).get("replays") or []
    lines = [_replayed(each) for each in replays] or [_NONE_OF_THESE]
    session.terminal.show({"replays": replays}, "\n".join(lines))
    return ExitCode.FAILED if any(map(_failed, replays)) else ExitCode.DONE


def _nothing(document: Document, *, is_filtered: bool) -> str:
    """Return what to say instead of an empty table."""
    if is_filtered:
        return _NONE_OF_THESE
    if not (sources := document.get("sources")):
        return _NO_SENDERS
    paths = ", ".join(f"/hooks/{source['name']}" for source in sources)
    return printable(f"No deliveries yet. Have registries post them to: {paths}")


def _table(session: Session, deliveries: list[dict[str, Any]]) -> list[str]:
    columns = (
        Column("DELIVERY", is_right=True),
        Column("SOURCE", can_shrink=True, least=10),
        Column("RECEIVED", leaves=3),
        Column("STATE", paint=session.terminal.paint_state),
        Column("CHANGES", is_right=True, leaves=2),
        Column("JOBS", can_shrink=True, leaves=4),
        Column("SIZE", is_right=True, leaves=1),
        Column("REASON", can_shrink=True, least=10),
    )
    rows = [
        (
            str(each["id"]),
            str(each["source"]),
            age(each["received"], session.now_s),
            str(each["state"]),
            str(each["changes"]),
            ",".join(map(str, each["jobs"])) or "-",
            size(each["bytes"]),
            each["reason"] or "-",
        )
        for each in deliveries
    ]
    return render(columns, rows, width=session.terminal.width)


def _unread(document: Document) -> list[str]:
    """Return a line for each sender whose events no mirror follows."""
    return [
        printable(f"{source['name']}: no mirror reads {source['registry']}: nothing follows")
        for source in document.get("sources") or []
        if not source["mirrors"]
    ]


def _refused(document: Document) -> list[str]:
    """Return a line for each sender that was refused: it may have another secret."""
    return [
        printable(
            f"{source['name']}: refused {plural(source['refused'], 'time')} since kitd started"
        )
        for source in document.get("sources") or []
        if source["refused"]
    ]


def _failed(replayed: dict[str, Any]) -> bool:
    delivery = replayed["delivery"]
    return delivery is None or delivery["state"] == "malformed"


def _replayed(replayed: dict[str, Any]) -> str:
    delivery, error = replayed["delivery"], replayed["error"]
    if delivery is None:
        return printable(f"{replayed['id']}: {error['message']}")
    jobs = ", ".join(f"job {job}" for job in delivery["jobs"])
    rest = jobs or delivery["reason"] or f"{plural(delivery['changes'], 'change')}, no job"
    return printable(f"{replayed['id']}: {delivery['state']}: {rest}")
