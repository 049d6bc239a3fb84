"""`kitctl events`: what happened, and what happens."""

from kitd.client import Client, request
from kitd.client.record import Event
from kitd.ctl.event_line import event_text
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.follow import Presence
from kitd.ctl.session import Session
from kitd.errors import KitdError


def show_events(session: Session, *, follow: bool, since: int | None) -> int:
    """Show recorded events; with `follow` new ones, after the recorded ones since `since`."""
    if follow:
        return _follow(session, since)
    with session.connect() as client:
        _show_recorded(session, client, since)
    return ExitCode.DONE


def _follow(session: Session, since: int | None) -> int:
    presence = Presence(session.terminal)
    last = since
    try:
        while True:
            try:
                with session.connect() as client, client.subscribe(from_seq=last) as subscription:
                    presence.confirm()
                    last = subscription.last_seq
                    for item in subscription:
                        last = subscription.last_seq
                        if isinstance(item, Event):
                            _show(session, item)
            except KitdError as error:
                presence.wait(error)
    except KeyboardInterrupt:
        # The only way to end it, and nothing to report.
        return ExitCode.INTERRUPTED


def _show_recorded(session: Session, client: Client, since: int | None) -> None:
    head_seq: int | None = None
    while True:
        page = client.call(request.read_events(from_seq=since))
        # What happens while this is printed would otherwise never let it end.
        head_seq = page.head_seq if head_seq is None else head_seq
        for event in page.events:
            _show(session, event)
            since = event.seq
        if not page.events or (since is not None and since >= head_seq):
            return


def _show(session: Session, event: Event) -> None:
    session.terminal.show_line(event.document, event_text(event, session.terminal.width))
