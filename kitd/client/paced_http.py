"""Requests to servers that may send slowly, for ever, or what nobody asked for.

The timeout of a socket bounds one wait only: who sends a byte now and then keeps a reader for ever.
Here the waits are added up. How long the reader itself takes, as for a slow disk, does not count.
"""

import http.client
import io
import socket
import time
import urllib.request
from typing import Any

WINDOW_S = 60.0
"""For how long a server may say nothing, and how long all its headers may take."""
LEAST_BYTES = 60 << 10
"""What has to come in every such time: one KiB a second."""
MAX_HEADER_BYTES = 1 << 20
"""Of everything that comes before a body, every `100 Continue` as well."""


class Pace:
    """Adds up how long a server was waited for, and what came. Pure.

    What it raises is a `TimeoutError` where too little came, and an `OSError` for endless headers.
    """

    def __init__(self) -> None:
        self._is_header = True
        self._waited_s = 0.0
        self._bytes = 0

    def begin_body(self) -> None:
        """Count anew: all headers have come."""
        self._is_header = False
        self._waited_s, self._bytes = 0.0, 0

    def left_s(self) -> float:
        """Return how long the next wait may take, which is never 0."""
        return max(WINDOW_S - self._waited_s, 0.001)

    def take(self, waited_s: float, count: int) -> None:
        """Note that so many bytes came after such a wait. Raises `OSError`."""
        self._waited_s += waited_s
        self._bytes += count
        if self._is_header and self._bytes > MAX_HEADER_BYTES:
            raise OSError(f"its headers have more than {MAX_HEADER_BYTES} bytes")
        if self._waited_s < WINDOW_S:
            return
        if self._is_header or self._bytes < LEAST_BYTES:
            raise TimeoutError(f"only {self._bytes} bytes came in {WINDOW_S:.0f} seconds")
        self._waited_s, self._bytes = 0.0, 0


class _PacedReader(io.RawIOBase):
    def __init__(self, connection: socket.socket, pace: Pace) -> None:
        super().__init__()
        self._connection = connection
        self._raw = connection.makefile("rb", buffering=0)
        self._pace = pace

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(self._pace.left_s())
        begun_s = time.monotonic()
        count = self._raw.readinto(buffer) or 0
        self._pace.take(time.monotonic() - begun_s, count)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *rest: Any, **options: Any) -> None:
        super().__init__(sock, *rest, **options)
        self.fp.close()
        self._pace = Pace()
        self.fp = io.BufferedReader(_PacedReader(sock, self._pace))

    def begin(self) -> None:
        super().begin()
        self._pace.begin_body()


class _Connection(http.client.HTTPConnection):
    response_class: type[http.client.HTTPResponse] = _Response


class _TlsConnection(http.client.HTTPSConnection):
    response_class: type[http.client.HTTPResponse] = _Response


class _Plain(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req)


class _Tls(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_TlsConnection, req)


def ask(request: urllib.request.Request) -> http.client.HTTPResponse:
    """Ask for what is at an http: or https: URL; the answer has the headers, and a body to read.

    Redirects are not followed: they are a `urllib.error.HTTPError` with an unread body, as is all
    else that is no success. Raises `OSError` and `http.client.HTTPException`, also while it is
    read.
    """
    opener = urllib.request.OpenerDirector()
    # The usual handlers but for that of redirects, which reads a body of any length into memory.
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Plain(),
        _Tls(),
    ):
        opener.add_handler(handler)
    response: http.client.HTTPResponse = opener.open(request, timeout=WINDOW_S)
    return response


def body_size(response: http.client.HTTPResponse) -> int | None:
    """Return how many bytes the body has; None where that is not said, or not for all of it.

    A status like 206 is a part only, and in a transfer coding the bytes are not those of the file
    (RFC 9110, section 15.3.7; RFC 9112, section 6.3).
    """
    lengths = response.headers.get_all("Content-Length", [])
    if response.status != http.client.OK or len(lengths) != 1:
        return None
    length = lengths[0]
    if "Transfer-Encoding" in response.headers or len(length) >= 20:
        return None
    return int(length) if length.isascii() and length.isdigit() else None
