"""`kitctl version`."""

from kitd import __version__
from kitd.client import request
from kitd.client.error import DaemonUnreachableError
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.format import printable
from kitd.ctl.session import Session
from kitd.errors import KitdError

ANSWER_S = 5.0
"""After this it is told that kitd does not answer."""


def show_version(session: Session) -> int:
    """Show the versions of this program and of the daemon, if one runs and answers."""
    daemon = None
    try:
        with session.connect() as client:
            hello = client.call(request.hello(f"kitctl/{__version__}"), timeout_s=ANSWER_S)
        daemon = hello.get("version")
        running = f"kitd {daemon}"
    except DaemonUnreachableError:
        running = "kitd is not running"
    except KitdError as error:
        running = f"kitd: {error.message}"
    session.terminal.show(
        {"kitctl": __version__, "kitd": daemon}, f"kitctl {__version__}\n{printable(running)}"
    )
    return ExitCode.DONE
