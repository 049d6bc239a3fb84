"""A blocking connection to the daemon: calls, notifications and file descriptors.

One call at a time. Every wait has a deadline. A call that ended in any other way than by its answer
closes the connection: what of it was sent is not known, nor what of the answer is still to come.
Descriptors that arrive with an answer belong to who asked for them, all others are closed at once.
"""

# The module under `socket`, whose enumerations would be a tenth of the start-up of a command.
import _socket as socket
import errno
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Self

from kitd.client.error import (
    AccessDeniedError,
    ArgumentError,
    DaemonUnreachableError,
    DeadlineExceededError,
    ProtocolError,
)
from kitd.client.protocol import (
    MAX_LINE_BYTES,
    MAX_NOTIFICATIONS,
    Document,
    Notification,
    Response,
    decode_message,
    encode_request,
)
from kitd.config.places import SYSTEM_SOCKET, find_daemon
from kitd.errors import printable

CONNECT_TIMEOUT_S = 5.0
BACKLOG_PAUSE_S = 0.02
"""How long to wait while as many others connect as the socket has room for."""
MAX_DESCRIPTORS = 32
"""Descriptors of one answer."""
CHUNK_BYTES = 1 << 16

_INTEGER_BYTES = 4


def socket_path(path: str | os.PathLike[str] | None) -> str:
    """Return where to connect to, by default this user's daemon or else the system's.

    Raises `ArgumentError`, `InvalidPlaceError`.
    """
    if path is None:
        place = find_daemon(os.environ, os.getuid(), os.path.exists, _is_open)
    else:
        place = os.fspath(path)
    try:
        is_name = b"\0" not in os.fsencode(place)
    except UnicodeEncodeError:
        is_name = False
    if not is_name:
        raise ArgumentError(f"{printable(place)} is not the name of a socket")
    return place


def _is_open(path: str) -> bool:
    return os.access(path, os.W_OK)


def unreachable(path: str, error: OSError) -> DaemonUnreachableError | AccessDeniedError:
    """Return what to tell a person when connecting to the socket at `path` failed."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return AccessDeniedError(
            f"cannot open the socket {path}: permission denied",
            hint="ask the daemon's owner to add you to rpc.access",
        )
    if error.errno == errno.ENOENT:
        reason = "there is no socket"
    elif isinstance(error, (BlockingIOError, TimeoutError)):
        reason = f"it took nobody's connection for {CONNECT_TIMEOUT_S:g} s"
    else:
        reason = error.strerror or str(error)
    command = "systemctl start kitd" if path == SYSTEM_SOCKET else "kitd serve"
    hint = f"start it with: {command}"
    if error.errno != errno.ENOENT:
        hint += ", or see what is wrong with: kitctl doctor"
    return DaemonUnreachableError(f"cannot reach kitd at {path}: {reason}", hint=hint)


def ended() -> DaemonUnreachableError:
    """Return what to tell a person when the daemon hung up."""
    return DaemonUnreachableError(
        "kitd closed the connection", hint="see whether it is running: kitctl status"
    )


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors that nobody wants."""
    for descriptor in descriptors:
        os.close(descriptor)


def open_directory(path: str | None) -> Sequence[int]:
    """Return the descriptor of a directory, or none where this user cannot open it.

    Then kitd says what it has against the path, and knows better.
    """
    if path is None:
        return ()
    try:
        return (os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC),)
    except (OSError, ValueError):
        return ()


def rights(descriptors: Sequence[int]) -> list[tuple[int, int, bytes]]:
    """Return the ancillary data that sends descriptors along."""
    numbers = b"".join(
        descriptor.to_bytes(_INTEGER_BYTES, sys.byteorder) for descriptor in descriptors
    )
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)]


def _connect(sock: socket.socket, path: str) -> None:
    """Connect, also where the backlog is full at first. Raises `OSError`."""
    deadline = time.monotonic() + CONNECT_TIMEOUT_S
    sock.settimeout(0)
    while True:
        try:
            sock.connect(path)
        except BlockingIOError:
            # A full backlog: what does not block does not wait for it (connect(2), EAGAIN).
            if time.monotonic() >= deadline:
                raise
            time.sleep(BACKLOG_PAUSE_S)
        else:
            return


class Connection:
    """One connected socket. Use as a context manager, or call `close`."""

    def __init__(self, path: str) -> None:
        """Connect. Raises `DaemonUnreachableError`, `AccessDeniedError`."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._received = bytearray()
        self._scanned = 0
        self._descriptors: list[int] = []
        self._notifications: deque[Notification] = deque()
        self._last_id = 0
        try:
            _connect(self._socket, path)
        except OSError as error:
            self._socket.close()
            raise unreachable(path, error) from error
        except BaseException:
            self._socket.close()
            raise

    @property
    def is_idle(self) -> bool:
        """Whether the next call can be made: nobody hung up, and nothing was said unasked."""
        if self._socket.fileno() < 0 or self._received:
            return False
        try:
            self._socket.settimeout(0)
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def call(
        self, method: str, params: Document, *, timeout_s: float, directory: str | None = None
    ) -> Any:
        """Return the result of a call; the descriptor of `directory` goes along if it opens.

        Raises `RpcError` with the daemon's reason, `DeadlineExceededError`, `ProtocolError`,
        `DaemonUnreachableError`.
        """
        shown = open_directory(directory)
        try:
            result, descriptors = self.call_for_descriptors(
                method, params, timeout_s=timeout_s, shown=shown
            )
        finally:
            close_all(shown)
        close_all(descriptors)
        return result

    def call_for_descriptors(
        self, method: str, params: Document, *, timeout_s: float, shown: Sequence[int] = ()
    ) -> tuple[Any, list[int]]:
        """Return the result and the descriptors that came with it; the caller closes them.

        Those of `shown` go along with the request, and stay open here. Raises what `call` raises.
        """
        self._last_id += 1
        line = encode_request(self._last_id, method, params)
        deadline = time.monotonic() + timeout_s
        try:
            self._send(line, shown, deadline)
            late = f"{method}: no answer within {round(timeout_s, 2):g} s"
            response = self._response(deadline, late)
        except BaseException:
            self.close()
            raise
        # The kernel hands descriptors over with the first byte of their line, and one call is
        # under way at a time: what has arrived by now came with this answer.
        descriptors, self._descriptors = self._descriptors, []
        if response.error is None:
            return response.result, descriptors
        close_all(descriptors)
        raise response.error

    def notification(self, *, timeout_s: float) -> Notification:
        """Return the next notification, waiting for it.

        Raises `DeadlineExceededError`, `ProtocolError`, `DaemonUnreachableError`.
        """
        deadline = time.monotonic() + timeout_s
        try:
            while not self._notifications:
                message = self._receive(deadline, f"kitd was silent for {timeout_s:g} s")
                if isinstance(message, Notification):
                    return message
        except DeadlineExceededError:
            # Between two reads, so that the next one goes on here.
            raise
        except BaseException:
            self.close()
            raise
        return self._notifications.popleft()

    def fileno(self) -> int:
        """Return the descriptor that is readable when something comes."""
        return self._socket.fileno()

    def interrupt(self) -> None:
        """End the call that another thread waits for; it closes the connection."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up. Safe to call twice."""
        self._socket.close()
        close_all(self._descriptors)
        self._descriptors = []

    def _response(self, deadline: float, late: str) -> Response:
        while isinstance(message := self._receive(deadline, late), Notification):
            if len(self._notifications) >= MAX_NOTIFICATIONS:
                raise ProtocolError("kitd sent too many notifications during one call")
            self._notifications.append(message)
        # An error without an id says that the daemon could not read the request.
        if message.id != self._last_id and (message.id is not None or message.error is None):
            raise ProtocolError(f"kitd answered call {message.id!r}, which was not made")
        return message

    def _send(self, line: bytes, shown: Sequence[int], deadline: float) -> None:
        try:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            # Descriptors travel with the first byte (unix(7), SCM_RIGHTS), and only once.
            sent = self._socket.sendmsg([line], rights(shown)) if shown else 0
            self._socket.sendall(line[sent:])
        except TimeoutError as error:
            raise DeadlineExceededError("kitd does not read its socket") from error
        except OSError as error:
            raise ended() from error

    def _receive(self, deadline: float, late: str) -> Response | Notification:
        while (end := self._received.find(b"\n", self._scanned)) < 0:
            self._scanned = len(self._received)
            if self._scanned > MAX_LINE_BYTES:
                raise ProtocolError("kitd sent a line of more than 4 MiB")
            self._fill(deadline, late)
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        self._scanned = 0
        return decode_message(line)

    def _fill(self, deadline: float, late: str) -> None:
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            raise DeadlineExceededError(late)
        try:
            self._socket.settimeout(remaining_s)
            data, ancillary, flags, _ = self._socket.recvmsg(
                CHUNK_BYTES,
                socket.CMSG_SPACE(MAX_DESCRIPTORS * _INTEGER_BYTES),
                socket.MSG_CMSG_CLOEXEC,
            )
        except TimeoutError as error:
            raise DeadlineExceededError(late) from error
        except OSError as error:
            raise ended() from error
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._descriptors += [
                    int.from_bytes(payload[at : at + _INTEGER_BYTES], sys.byteorder)
                    for at in range(0, len(payload) - _INTEGER_BYTES + 1, _INTEGER_BYTES)
                ]
        if flags & socket.MSG_CTRUNC:
            raise ProtocolError(
                "not all descriptors could be received", hint="raise the limit: ulimit -n"
            )
        if not data:
            raise ended()
        self._received += data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
