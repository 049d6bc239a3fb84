"""Addresses to listen on: `127.0.0.1:8470`, `[::1]:8470`, `localhost:8470`, `unix:/run/x.sock`.

And those of endpoints, which are URLs.
"""

import ipaddress
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from kitd.config.problem import InvalidValueError
from kitd.secret import REDACTED

MAX_SOCKET_PATH_BYTES = 107
"""`sun_path` of Linux without its final NUL (unix(7))."""

_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}))?:([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The URL of an HTTP endpoint. What follows the host may be a secret: `str()` leaves it out."""

    url: str = field(repr=False)

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        is_bare = parts.path in ("", "/") and not parts.query and not parts.fragment
        return f"{parts.scheme}://{parts.netloc}/{'' if is_bare else REDACTED}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host name or IP address, without brackets, and a port; 0 lets the system choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The absolute path of a Unix socket."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


ListenAddress = TcpAddress | UnixAddress


def parse_listen_address(text: str) -> ListenAddress:
    """Return the address, of either kind. Raises `InvalidValueError`."""
    if text.startswith("unix:"):
        return UnixAddress(check_socket_path(Path(text.removeprefix("unix:"))))
    return parse_tcp_address(text)


def parse_tcp_address(text: str) -> TcpAddress:
    """Return the address of a TCP port. Raises `InvalidValueError`."""
    match = _HOST_PORT.fullmatch(text)
    if match is None or int(match.group(2)) > 65_535:
        raise InvalidValueError(
            f"expected an address such as 127.0.0.1:8470, got {text[:60]!r}",
            hint="host:port or [IPv6 address]:port",
        )
    host, port = match.group(1), int(match.group(2))
    if host is None:
        raise InvalidValueError(
            f"{text!r} names no host",
            hint=f"127.0.0.1:{port} for this machine, 0.0.0.0:{port} for every network",
        )
    if host.startswith("["):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise InvalidValueError(f"[{host[:40]}] is not an IPv6 address") from None
    return TcpAddress(host, port)


def check_socket_path(path: Path) -> Path:
    """Return `path`, or raise `InvalidValueError` where no socket can be bound to it."""
    if not path.is_absolute() or ".." in path.parts:
        raise InvalidValueError("the path of a socket must be absolute and without '..'")
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise InvalidValueError(
            f"the path of a socket has at most {MAX_SOCKET_PATH_BYTES} bytes",
            hint="choose a shorter one, such as /run/kitd/kitd.sock",
        )
    return path
