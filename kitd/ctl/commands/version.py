"""`kitctl version`."""

from kitd import __version__
from kitd.client import request
from kitd.client.error import DaemonUnreachableError
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.format import printable
from kitd.ctl.session import Session


def show_version(session: Session) -> int:
    """Show the versions of this program and of the daemon, if one runs."""
    try:
        with session.connect() as client:
            daemon = client.call(request.hello(f"kitctl/{__version__}")).get("version")
    except DaemonUnreachableError:
        daemon = None
    running = f"kitd {printable(str(daemon))}" if daemon else "kitd is not running"
    session.terminal.show(
        {"kitctl": __version__, "kitd": daemon}, f"kitctl {__version__}\n{running}"
    )
    return ExitCode.DONE
