"""systemd's side of things: readiness, the watchdog and inherited sockets.

Each is a few lines of a stable protocol (sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3));
without systemd they do nothing.
"""

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping
from dataclasses import dataclass, field

_FIRST_INHERITED = 3
_SOCKET_NAME = "rpc"
"""`FileDescriptorName=` in kitd.socket."""
_VARIABLES = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
)


@dataclass(frozen=True, slots=True)
class ServiceManager:
    """What started kitd and wants to hear how it is; by default nobody."""

    address: str | None = None
    """Where it listens: a path, or a name in the abstract namespace."""
    watchdog_s: float | None = None
    """After how long without `WATCHDOG=1` it takes kitd for hung."""
    listener: socket.socket | None = field(default=None, compare=False)
    """The listening socket that it opened for kitd's clients."""

    def notify(self, *lines: str) -> None:
        """Tell it something: `READY=1`, `STATUS=…`, `WATCHDOG=1`, `STOPPING=1`. Never waits."""
        if self.address is None:
            return
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        # Nobody may listen any more; the service manager's view is not worth failing for.
        with socket.socket(socket.AF_UNIX, kind) as sock, contextlib.suppress(OSError):
            sock.sendto("\n".join(lines).encode(), self.address)

    def reloading(self) -> None:
        """Tell it that a reload begins; `READY=1` ends it."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.notify("RELOADING=1", f"MONOTONIC_USEC={now_us}")


def take_service_manager(environ: MutableMapping[str, str], pid: int) -> ServiceManager:
    """Return what the environment says of the service manager, and remove it from there.

    What kitd starts would take it for its own.
    """
    found = {name: environ.pop(name, "") for name in _VARIABLES}
    return ServiceManager(
        address=_address(found["NOTIFY_SOCKET"]),
        watchdog_s=_watchdog_s(found["WATCHDOG_USEC"], found["WATCHDOG_PID"] or str(pid), pid),
        listener=_inherited(found, pid),
    )


def _address(text: str) -> str | None:
    if not text.startswith(("/", "@")):
        return None
    return "\0" + text[1:] if text.startswith("@") else text


def _watchdog_s(patience_us: str, whose: str, pid: int) -> float | None:
    if whose != str(pid) or not (patience_us.isascii() and patience_us.isdigit()):
        return None
    return int(patience_us) / 1e6 or None


def _inherited(found: MutableMapping[str, str], pid: int) -> socket.socket | None:
    """Return the descriptor that is called `rpc`, else the first; the others are closed."""
    count = found["LISTEN_FDS"]
    if found["LISTEN_PID"] != str(pid) or not (count.isascii() and count.isdigit()):
        return None
    descriptors = range(_FIRST_INHERITED, _FIRST_INHERITED + int(count))
    names = found["LISTEN_FDNAMES"].split(":")
    named = (fd for fd, name in zip(descriptors, names, strict=False) if name == _SOCKET_NAME)
    taken = next(named, next(iter(descriptors), None))
    if taken is None:
        return None
    for other in descriptors:
        if other != taken:
            os.close(other)
    sock = socket.socket(fileno=taken)
    sock.set_inheritable(False)
    return sock
