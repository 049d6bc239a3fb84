"""Where the configuration, the state and the socket are, from flags and the environment.

Pure, and light on purpose: `kitctl` imports this to find the daemon and reads no configuration.
That is also why the socket's default does not follow `state_dir` in the file.

A place is chosen by, in this order: a flag, kitd's own variable (`KITD_CONFIG`, `KITD_STATE_DIR`,
`KITD_SOCKET`), the file, the directory systemd gives the service (`STATE_DIRECTORY`,
`RUNTIME_DIRECTORY`), the XDG base directory in user mode, the system's directory in system mode.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from kitd.errors import KitdError

SYSTEM_CONFIG = "/etc/kitd/kitd.yaml"
SYSTEM_STATE_DIR = "/var/lib/kitd"
SYSTEM_SOCKET = "/run/kitd/kitd.sock"
LEDGER = "ledger.sqlite3"
"""In the state directory."""
CREDENTIALS = "/run/credentials/kitd.service"
"""Where systemd puts what `LoadCredential=` names: known also to who only checks a file."""


class InvalidPlaceError(KitdError):
    """The environment does not say where something is, or says it in a way that cannot be used."""

    code = "invalid_place"


# Named tuples and strings, not dataclasses and paths: importing those would cost the client more
# than all the rest here.
class Place(NamedTuple):
    """A path; an explicit one, from a flag or kitd's own variable, beats the file."""

    path: str
    is_explicit: bool


class Places(NamedTuple):
    """All places of one daemon.

    `home` is what `~` stands for in the configuration, `credentials` what `$CREDENTIALS_DIRECTORY`.
    """

    config: Place
    state_dir: Place
    socket: Place
    home: str | None
    credentials: str = CREDENTIALS


def find_places(
    environ: Mapping[str, str],
    uid: int,
    *,
    config: str | None = None,
    socket: str | None = None,
) -> Places:
    """Return the places of a daemon; `config` and `socket` are flags. Raises `InvalidPlaceError`.

    Flags are taken as they are: who has a working directory makes them absolute.
    """
    return Places(
        config=find_config(environ, uid, config),
        state_dir=find_state_dir(environ, uid),
        socket=find_socket(environ, uid, socket),
        home=_absolute(environ, "HOME"),
        credentials=_absolute(environ, "CREDENTIALS_DIRECTORY") or CREDENTIALS,
    )


def find_config(environ: Mapping[str, str], uid: int, flag: str | None = None) -> Place:
    """Return where the configuration file is or would be. Raises `InvalidPlaceError`."""
    if flag is not None:
        return Place(flag, is_explicit=True)
    if (path := _own(environ, "KITD_CONFIG")) is not None:
        return Place(path, is_explicit=True)
    if is_user_mode(environ, uid):
        path = _xdg(environ, "XDG_CONFIG_HOME", ".config") + "/kitd/kitd.yaml"
        return Place(path, is_explicit=False)
    return Place(SYSTEM_CONFIG, is_explicit=False)


def find_state_dir(environ: Mapping[str, str], uid: int) -> Place:
    """Return the directory of the ledger and the cache. Raises `InvalidPlaceError`."""
    if (path := _own(environ, "KITD_STATE_DIR")) is not None:
        return Place(path, is_explicit=True)
    if (path := _granted(environ, "STATE_DIRECTORY")) is not None:
        return Place(path, is_explicit=False)
    if is_user_mode(environ, uid):
        path = _xdg(environ, "XDG_STATE_HOME", ".local/state") + "/kitd"
        return Place(path, is_explicit=False)
    return Place(SYSTEM_STATE_DIR, is_explicit=False)


def find_socket(environ: Mapping[str, str], uid: int, flag: str | None = None) -> Place:
    """Return where the daemon listens and its clients connect. Raises `InvalidPlaceError`."""
    if flag is not None:
        return Place(flag, is_explicit=True)
    if (path := _own(environ, "KITD_SOCKET")) is not None:
        return Place(path, is_explicit=True)
    if (path := _granted(environ, "RUNTIME_DIRECTORY")) is not None:
        return Place(f"{path}/kitd.sock", is_explicit=False)
    if (path := _absolute(environ, "XDG_RUNTIME_DIR")) is not None:
        return Place(f"{path}/kitd/kitd.sock", is_explicit=False)
    if is_user_mode(environ, uid):
        return Place(f"{find_state_dir(environ, uid).path}/kitd.sock", is_explicit=False)
    return Place(SYSTEM_SOCKET, is_explicit=False)


def find_daemon(
    environ: Mapping[str, str],
    uid: int,
    exists: Callable[[str], bool],
    is_open: Callable[[str], bool],
) -> str:
    """Return the socket of the daemon that a client means who names none.

    That is the user's own. Who has none, nor a ledger of one that only does not run, means the
    system's where it `is_open` to him. Raises `InvalidPlaceError`.
    """
    own = find_socket(environ, uid)
    if own.is_explicit or exists(own.path) or not is_open(SYSTEM_SOCKET):
        return own.path
    return own.path if exists(f"{find_state_dir(environ, uid).path}/{LEDGER}") else SYSTEM_SOCKET


def is_user_mode(environ: Mapping[str, str], uid: int) -> bool:
    """Whether places belong to a user: always but for root without a session of its own."""
    return uid != 0 or _absolute(environ, "XDG_RUNTIME_DIR") is not None


def _absolute(environ: Mapping[str, str], name: str) -> str | None:
    """Return an absolute path; others are ignored, as the XDG base directory spec asks."""
    value = environ.get(name, "")
    return value if value.startswith("/") else None


def _own(environ: Mapping[str, str], name: str) -> str | None:
    """Return the path in one of kitd's own variables; empty counts as not set."""
    value = environ.get(name, "")
    if value and not value.startswith("/"):
        raise InvalidPlaceError(f"{name} is {value[:80]!r}, not an absolute path")
    return _absolute(environ, name)


def _granted(environ: Mapping[str, str], name: str) -> str | None:
    """Return the first of the directories that systemd made for the service (systemd.exec(5))."""
    first = environ.get(name, "").partition(":")[0]
    return first if first.startswith("/") else None


def _xdg(environ: Mapping[str, str], name: str, below_home: str) -> str:
    if (path := _absolute(environ, name)) is not None:
        return path
    if (home := _absolute(environ, "HOME")) is None:
        raise InvalidPlaceError(
            f"neither {name} nor HOME is set to an absolute path",
            hint="set HOME, or name each place: KITD_CONFIG, KITD_STATE_DIR, KITD_SOCKET",
        )
    return f"{home}/{below_home}"
