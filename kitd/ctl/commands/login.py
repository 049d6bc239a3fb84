"""`kitctl login` and `logout`: a person's own logins, where docker keeps them.

The daemon is not asked to keep any, only where it would look. What is secret goes through a pipe to
a process of this user (`kitd.daemon.login`), and never onto a command line.
"""

import json
import os
import subprocess
import sys
from typing import Any

from kitd.client import request
from kitd.client.error import RpcError
from kitd.client.protocol import Document
from kitd.ctl.error import UsageError
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.format import printable
from kitd.ctl.session import Session
from kitd.errors import KitdError

LOGIN_S = 420.0
"""How long a registry (90 s), and a helper that may ask for a passphrase at each of its steps
(120 s), have altogether: they end earlier and say more."""
MAX_SECRET_BYTES = 64 * 1024


class LoginError(KitdError):
    """The process that logs in ended without an answer."""

    code = "login_failed"


def log_in(
    session: Session,
    *,
    registry: str,
    username: str | None,
    password_stdin: bool,
    password: str | None,
) -> int:
    """Try a login, and keep it where it is good."""
    if password is not None:
        raise UsageError(
            "a password on the command line is seen by everybody who runs ps",
            hint=f"pipe it in: kitctl login {registry} -u NAME --password-stdin < FILE",
        )
    if password_stdin:
        secret = _read_secret()
    else:
        username, secret = _prompt(registry, username)
    done = _run(
        {"action": "login", "registry": registry, "username": username or "", "secret": secret}
    )
    places = _places(session, str(done["registry"]))
    done["read_by_kitd"] = None if places is None else _reads(places, str(done["path"]))
    for warning in _warnings(done):
        session.terminal.note(f"warning: {printable(warning)}")
    session.terminal.show(done, "\n".join(printable(line) for line in _told(done, places)))
    return ExitCode.DONE


def log_out(session: Session, *, registry: str) -> int:
    """Forget a login."""
    done = _run({"action": "logout", "registry": registry})
    host = done["registry"]
    lines = [f"logged out of {host}" if done["was_there"] else f"not logged in to {host}"]
    lines += [f"{path} still has a login for it" for path in done["still_in"]]
    session.terminal.show(done, "\n".join(map(printable, lines)))
    return ExitCode.DONE


def _read_secret() -> str:
    content = sys.stdin.buffer.read(MAX_SECRET_BYTES + 1)
    if len(content) > MAX_SECRET_BYTES:
        raise UsageError("what is on stdin is too long for a password")
    try:
        # The newline is the editor's, or echo's.
        secret = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise UsageError("what is on stdin is not UTF-8 text") from None
    if not secret:
        raise UsageError("stdin holds no password", hint="kitctl login … --password-stdin < FILE")
    return secret


def _prompt(registry: str, username: str | None) -> tuple[str, str]:
    if not sys.stdin.isatty():
        raise UsageError(
            "there is nobody to ask for a password",
            hint=f"kitctl login {registry} -u NAME --password-stdin < FILE",
        )
    from getpass import getpass  # noqa: PLC0415 - only who is asked needs it

    try:
        if username is None:
            print("Username (none: an identity token): ", end="", file=sys.stderr, flush=True)
            username = sys.stdin.readline().strip()
        secret = getpass("Password: " if username else "Token: ")
    except EOFError:
        secret = ""
    if not secret:
        raise UsageError("no password, no login")
    return username or "", secret


def _run(asked: Document) -> dict[str, Any]:
    """Let the process do it that knows how registries are reached. Raises `KitdError`."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-m", "kitd.daemon.login"],
            input=json.dumps(asked).encode(),
            stdout=subprocess.PIPE,
            timeout=LOGIN_S,
            check=False,
        )
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        # Without the cause, which has what was asked.
        raise LoginError(f"no answer within {LOGIN_S:.0f} s", hint="try again") from None
    except (OSError, ValueError):
        raise LoginError("the process that logs in ended without an answer") from None
    if not isinstance(answer, dict):
        raise LoginError("the process that logs in gave no answer")
    if (error := answer.get("error")) is not None:
        raise RpcError(
            str(error["code"]), str(error["message"]), hint=error["hint"], retryable=False
        )
    return answer


def _places(session: Session, registry: str) -> Document | None:
    """Return where the daemon looks for the registry's credentials; None where nobody says."""
    try:
        with session.connect() as client:
            return client.call(request.registry_logins(registry))
    except KitdError:
        # A login is good for kitd when it is started, too.
        return None


def _reads(places: Document, path: str) -> bool:
    """Whether the daemon finds a login of this user in a file."""
    is_ours = places.get("uid") in (os.geteuid(), 0)
    real = {os.path.realpath(str(file)) for file in places.get("files") or ()}
    return is_ours and places.get("source") == "docker" and os.path.realpath(path) in real


def _warnings(done: Document) -> list[str]:
    warnings = [str(warning) for warning in done["warnings"]]
    if not done["tried"]:
        warnings.append(f"{done['registry']} asked for no login: whether it is good is not known")
    if done["hidden_by"] is not None:
        warnings.append(f"{done['hidden_by']} is read first, and has another login for it")
    return warnings


def _told(done: Document, places: Document | None) -> list[str]:
    registry, helper = done["registry"], done["helper"]
    who = f"as {done['username']}" if done["username"] else "with an identity token"
    where = f"kept in {done['path']}, not encrypted"
    if helper is not None:
        where = f"kept by docker-credential-{helper}, as {done['path']} says"
    return [f"logged in to {registry} {who}", where, _reader(done, places)]


def _reader(done: Document, places: Document | None) -> str:
    if places is None:
        return "kitd reads it if it runs as this user (it cannot be asked now)"
    if done["read_by_kitd"]:
        return "kitd reads it there"
    if places.get("source") != "docker":
        return f"kitd does not: registries.{done['registry']}.credentials has its own for it"
    if places.get("uid") != os.geteuid():
        return f"kitd does not: it runs as user {places.get('uid')}, whose logins are his own"
    return f"kitd does not: it reads {', '.join(map(str, places.get('files') or ()))}"
