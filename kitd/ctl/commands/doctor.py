"""`kitctl doctor`: what is wrong, and the command that mends it.

The daemon looks at itself and what it needs. Where it cannot be asked, that is what is wrong, and
the socket is looked at from here.
"""

import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from kitd import __version__
from kitd.client import request
from kitd.client.connection import socket_path
from kitd.client.error import (
    AccessDeniedError,
    ArgumentError,
    DaemonUnreachableError,
    DeadlineExceededError,
    ProtocolError,
)
from kitd.client.record import Check
from kitd.config.places import SYSTEM_SOCKET, InvalidPlaceError
from kitd.ctl.cells import fold
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.format import printable
from kitd.ctl.session import Session
from kitd.ctl.table import Column, render
from kitd.ctl.terminal import Terminal

HELLO_S = 5.0
"""After this a daemon that took the connection hangs."""
EXAMINATION_S = 60.0
AUDIT_S = 360.0
QUIET_S = 1.0
"""After this a person is told that something happens."""


def examine(session: Session, *, audit: bool) -> int:
    """Show what was looked at; fails if anything is wrong."""
    try:
        place = socket_path(session.socket)
        checks = _ask(session, place, audit=audit)
    except (ArgumentError, InvalidPlaceError) as error:
        fix = "name the daemon's socket by an absolute path: --socket PATH, or unset KITD_SOCKET"
        checks = (_wrong("connection", error.message, error.hint or fix),)
    session.terminal.show(
        {"checks": [check._asdict() for check in checks]}, "\n".join(_lines(session, checks))
    )
    return ExitCode.DONE if all(check.ok for check in checks) else ExitCode.FAILED


def _ask(session: Session, place: str, *, audit: bool) -> Sequence[Check]:
    """Return what the daemon found, or what can be seen of it from here."""
    try:
        with session.connect() as client, _patience(session.terminal):
            hello = client.call(request.hello(f"kitctl/{__version__}"), timeout_s=HELLO_S)
            asked = request.doctor(audit=audit)
            found = client.call(asked, timeout_s=AUDIT_S if audit else EXAMINATION_S)
    except (AccessDeniedError, DaemonUnreachableError) as error:
        unreachable = _wrong("connection", error.message, error.hint)
        return (unreachable, *(look(place) for look in _FROM_OUTSIDE))
    except (DeadlineExceededError, ProtocolError) as error:
        fix = f"systemctl {_of_user(place)}restart kitd; or end it, and: kitd serve"
        text = f"{place} takes connections, and kitd does not answer as it should: {error.message}"
        return (_wrong("connection", text, fix), _service(place))
    return (_same_version(str(hello.get("version"))), *found)


def _wrong(name: str, detail: str, fix: str | None) -> Check:
    return Check(name, ok=False, detail=detail, fix=fix)


def _same_version(running: str) -> Check:
    if running == __version__:
        return Check(name="kitctl", ok=True, detail=__version__, fix=None)
    text = f"kitctl is {__version__}, kitd is {running}"
    return _wrong("kitctl", text, "restart kitd")


def _socket(place: str) -> Check:
    """Look at what is where the daemon should listen."""
    name, user = "socket", os.geteuid()
    try:
        status = os.stat(place)
    except OSError as error:
        text = f"{place}: {error.strerror}"
        return _wrong(name, text, "name another with --socket or KITD_SOCKET")
    if not stat.S_ISSOCK(status.st_mode):
        return _wrong(name, f"{place} is no socket", f"rm {place}")
    mode = f"{stat.S_IMODE(status.st_mode):04o}"
    if not os.access(place, os.W_OK):
        text = f"{place} belongs to user {status.st_uid}, mode {mode}; you are user {user}"
        fix = "rpc.mode and rpc.access in kitd's configuration let others in"
        return _wrong(name, text, fix)
    text = f"{place} is there, and nobody answers: kitd has ended without removing it, or is ending"
    return _wrong(name, text, "start kitd: it takes the place of the old one")


def _service(place: str) -> Check:
    """Say where kitd's own words are."""
    of_user = _of_user(place)
    fix = f"systemctl {of_user}status kitd; journalctl {of_user}-u kitd -n 50; or: kitd serve"
    return _wrong("service", "what kitd said last is in its log", fix)


def _of_user(place: str) -> str:
    return "" if place == SYSTEM_SOCKET else "--user "


_FROM_OUTSIDE: tuple[Callable[[str], Check], ...] = (_socket, _service)


@contextmanager
def _patience(terminal: Terminal) -> Iterator[None]:
    """Say that something happens if it takes long, in front of a person."""
    if not terminal.has_progress:
        yield
        return
    waiting = threading.Timer(QUIET_S, terminal.draw, ["looking at everything ..."])
    waiting.daemon = True
    waiting.start()
    try:
        yield
    finally:
        waiting.cancel()
        waiting.join()
        terminal.draw("")


def _lines(session: Session, checks: Sequence[Check]) -> list[str]:
    terminal = session.terminal

    def paint(cell: str) -> str:
        return terminal.paint("green" if cell.startswith("ok") else "red", cell)

    columns = (Column("", paint=paint), Column("CHECK"), Column("FOUND", can_shrink=True))
    rows = [("ok" if check.ok else "wrong", check.name, check.detail) for check in checks]
    lines = render(columns, rows, width=terminal.width)
    faults = [check for check in checks if not check.ok]
    if not faults:
        return [*lines, "", "nothing is wrong"]
    # What mends something is to be copied, so that it is never cut.
    lines += ["", "to mend it:"]
    for check in faults:
        lines += fold(printable(f"  {check.name}: {check.detail}"), terminal.width, indent="    ")
        lines.append(printable(f"    {check.fix}"))
    return lines
