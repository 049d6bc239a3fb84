"""The socket file: bound without a moment in which the wrong user could connect.

Synchronous, for a thread: everything here touches the file system.
"""

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kitd.errors import KitdError

_BACKLOG = 128
_MAX_PATH_BYTES = 107
"""`sun_path` has 108 bytes with its NUL (unix(7))."""
_PROBE_S = 2.0


class EndpointError(KitdError):
    """kitd cannot listen where it was told to."""

    code = "cannot_listen"


class AlreadyRunningError(EndpointError):
    """Another process answers at the socket."""

    code = "already_running"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A listening socket, and the file that belongs to it if kitd made one."""

    listener: socket.socket
    path: Path | None = None
    identity: tuple[int, int] | None = None
    """Device and inode of the file."""

    def close(self) -> None:
        """Stop listening and remove the file, unless it is another's by now."""
        self.listener.close()
        if self.path is not None and _identity(self.path) == self.identity:
            self.path.unlink(missing_ok=True)


def bind_endpoint(path: Path, *, mode: int, option: str = "rpc.socket") -> Endpoint:
    """Listen at `path`, whose missing parents are made 0700; `mode` is the file's.

    `option` is the key of the configuration that names it. What a dead daemon left is replaced.
    Raises `AlreadyRunningError`, `EndpointError`.
    """
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise EndpointError(
            f"cannot listen at {path}: a socket's path has at most {_MAX_PATH_BYTES} bytes",
            hint=f"set {option} to a shorter path",
        )
    with _os_errors(path):
        _make_directory(path.parent)
        with _locked(path.parent):
            _remove_dead(path, option)
            return _bind(path, mode)


def adopt_endpoint(listener: socket.socket) -> Endpoint:
    """Use a socket that the service manager listens on; its file stays. Raises `EndpointError`."""
    accepting = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if listener.family != socket.AF_UNIX or listener.type != socket.SOCK_STREAM or not accepting:
        raise EndpointError(
            "the inherited socket is not a listening Unix stream socket",
            hint="ListenStream= in kitd.socket has to be a path",
        )
    listener.settimeout(0.0)
    return Endpoint(listener)


def _bind(path: Path, mode: int) -> Endpoint:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # The file is made with the socket's mode less the umask, so it is never wider than asked;
        # the second call adds what the umask took. Nobody can connect before listen().
        os.fchmod(listener.fileno(), mode)
        listener.bind(os.fspath(path))
        path.chmod(mode)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return Endpoint(listener, path, _identity(path))


def _remove_dead(path: Path, option: str) -> None:
    """Remove a socket that nobody listens on. Raises `AlreadyRunningError`, `EndpointError`."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise EndpointError(
            f"cannot listen at {path}: something that is not a socket is there",
            hint=f"move it away, or set {option} to another path",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except TimeoutError:
            pass  # a full backlog: somebody listens
    raise AlreadyRunningError(
        f"another kitd is running at {path}", hint="kitctl status shows it; stop it first"
    )


def _make_directory(path: Path) -> None:
    # Not mkdir(parents=True), which makes parents with the default mode.
    if not path.is_dir():
        _make_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keep two daemons that start together from removing each other's new socket."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


@contextmanager
def _os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except BlockingIOError:
        raise AlreadyRunningError(
            f"another kitd is starting at {path}", hint="kitctl status shows it"
        ) from None
    except OSError as error:
        reason = error.strerror or str(error)
        hint = "check the rights of its directory" if error.errno == errno.EACCES else None
        raise EndpointError(f"cannot listen at {path}: {reason}", hint=hint) from error


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
