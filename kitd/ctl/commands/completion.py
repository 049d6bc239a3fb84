"""`kitctl completion`."""

from kitd.ctl.completion import SCRIPTS
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.session import Session


def print_script(session: Session, *, shell: str) -> int:
    """Print the completion script of a shell."""
    script = SCRIPTS[shell]
    session.terminal.show({"shell": shell, "script": script}, script)
    return ExitCode.DONE
