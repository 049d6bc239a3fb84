"""`kitctl config …` and `kitctl reload`."""

import json

from kitd.client import request
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.format import printable
from kitd.ctl.session import Session

_HINT = "kitd goes on with the configuration it has; check the file with: kitd check-config"


def show_config(session: Session) -> int:
    """Show the effective configuration; it names files of secrets and holds none."""
    with session.connect() as client:
        config = client.call(request.show_config()).get("config")
    # JSON is YAML: what is printed and not redacted can be pasted into a configuration file.
    session.terminal.show(config, json.dumps(config, indent=2))
    return ExitCode.DONE


def reload_config(session: Session) -> int:
    """Have kitd apply its configuration file, as a whole or not at all."""
    with session.connect() as client:
        answer = client.call(request.reload_config())
    changed = [str(key) for key in answer.get("changed") or []]
    text = f"changed: {', '.join(changed)}" if changed else "nothing changed"
    if answer.get("applied"):
        session.terminal.show(answer, printable(text))
        return ExitCode.DONE
    problems = [str(problem) for problem in answer.get("problems") or ["kitd gave no reason"]]
    if session.terminal.json_only:
        # Whoever looks for an error finds one, and whoever looks for problems all of them.
        error = {"code": "invalid_config", "message": problems[0], "hint": _HINT}
        session.terminal.show({**answer, "error": error}, "")
    for problem in problems:
        session.terminal.complain(printable(f"kitctl: {problem}"))
    return ExitCode.FAILED
