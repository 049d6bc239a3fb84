"""`kitctl why`."""

from kitd.client import request
from kitd.ctl.cells import fold
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.format import printable
from kitd.ctl.session import Session


def explain(session: Session, *, subject: str) -> int:
    """Say why a project waits, a job ran or a blob is kept."""
    with session.connect() as client:
        answer = client.call(request.why(subject))
    reasons = [
        str(reason.get("text")) for reason in answer.get("reasons") or [] if "text" in reason
    ]
    width = session.terminal.width
    lines = fold(printable(f"{subject}:"), width)
    for reason in reasons or ["nothing is known about it"]:
        lines += fold(printable(f"  {reason}"), width, indent="    ")
    session.terminal.show(answer, "\n".join(lines))
    return ExitCode.DONE
