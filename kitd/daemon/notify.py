"""systemd's side of things: readiness and inherited sockets (sd_notify(3), sd_listen_fds(3)).

Both are a few lines of a stable protocol; without systemd they do nothing.
"""

import socket
from collections.abc import Mapping

_FIRST_INHERITED = 3


def notify(environ: Mapping[str, str], *lines: str) -> None:
    """Tell systemd how the service is, if it asked: `READY=1`, `STATUS=…`, `STOPPING=1`."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    target = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto("\n".join(lines).encode(), target)
        except OSError:
            # Nobody listens any more; the service manager's view is not worth failing for.
            return


def inherited_socket(environ: Mapping[str, str], pid: int) -> socket.socket | None:
    """Return the listening socket that systemd opened for this process, if it did."""
    if environ.get("LISTEN_PID") != str(pid) or environ.get("LISTEN_FDS", "0") == "0":
        return None
    sock = socket.socket(fileno=_FIRST_INHERITED)
    sock.set_inheritable(False)
    return sock
