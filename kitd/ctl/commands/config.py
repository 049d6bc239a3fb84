"""`kitctl config …`."""

import json

from kitd.client import request
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.session import Session


def show_config(session: Session) -> int:
    """Show the effective configuration; it names files of secrets and holds none."""
    with session.connect() as client:
        config = client.call(request.show_config()).get("config")
    # JSON is YAML: what is printed can be pasted into a configuration file.
    session.terminal.show(config, json.dumps(config, indent=2))
    return ExitCode.DONE
