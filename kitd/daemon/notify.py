"""systemd's side of things: readiness, the watchdog and inherited sockets.

Each is a few lines of a stable protocol (sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3));
without systemd they do nothing.
"""

import socket
from collections.abc import Mapping

_FIRST_INHERITED = 3


def notify(environ: Mapping[str, str], *lines: str) -> None:
    """Tell systemd how the service is, if it asked: `READY=1`, `WATCHDOG=1`, `STOPPING=1`."""
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


def watchdog_interval_s(environ: Mapping[str, str], pid: int) -> float | None:
    """Return how often systemd wants to hear `WATCHDOG=1` from this process, if it does.

    That is half of the time after which it takes the service for hung.
    """
    patience_us = environ.get("WATCHDOG_USEC", "")
    ours = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
    if not ours or not (patience_us.isascii() and patience_us.isdigit()):
        return None
    return int(patience_us) / 2e6 or None


def inherited_socket(environ: Mapping[str, str], pid: int) -> socket.socket | None:
    """Return the listening socket that systemd opened for this process, if it did."""
    if environ.get("LISTEN_PID") != str(pid) or environ.get("LISTEN_FDS", "0") == "0":
        return None
    sock = socket.socket(fileno=_FIRST_INHERITED)
    sock.set_inheritable(False)
    return sock
