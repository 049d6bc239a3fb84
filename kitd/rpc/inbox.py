"""What arrives from one peer: whole lines, in order, each with the file descriptor it brought.

A descriptor belongs to the line in which the bytes end that it came with (unix(7), SCM_RIGHTS):
the kernel never hands over what was sent with one together with what was sent after it. A line
keeps one and the others are closed, so that nobody keeps more of them open here than lines.
"""

import asyncio
import socket
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from kitd.errors import KitdError
from kitd.rpc.codec import Decoder, TooLong
from kitd.rpc.disposal import Disposal
from kitd.rpc.error import TooLargeError

MAX_RECEIVED = 4
"""So many descriptors may come at once; more of them end the connection."""
MAX_LINES = 4
"""So many lines are taken at once, be they as short as can be: each is answered."""
_READ_BYTES = 1 << 14
_ANCILLARY_BYTES = socket.CMSG_SPACE(253 * array("i").itemsize)
"""As many as anybody can send at once (SCM_MAX_FD): those for which is no room the kernel would
itself close, in the thread that reads."""


class _Received(NamedTuple):
    data: bytes
    descriptors: Sequence[int]
    is_cut: bool
    """Whether there were more descriptors than this process may open."""


def receive(sock: socket.socket) -> _Received:
    """Read once from a non-blocking socket. Raises `OSError`."""
    data, ancillary, flags, _ = sock.recvmsg(_READ_BYTES, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
    return _Received(data, _descriptors_in(ancillary), bool(flags & socket.MSG_CTRUNC))


@dataclass(frozen=True, slots=True)
class Arrived:
    """A line; who takes it owns the descriptor."""

    line: bytes
    descriptor: int | None


class Inbox:
    """The receiving half of a non-blocking socket. Owns every descriptor that nobody has taken."""

    def __init__(self, sock: socket.socket, disposal: Disposal) -> None:
        self._sock = sock
        self._disposal = disposal
        self._decoder = Decoder()
        self._arrived: deque[Arrived] = deque()
        self._unfinished: int | None = None
        """The descriptor of the line that is not complete."""
        self._broken: KitdError | None = None
        self.is_at_end = False
        """Whether the peer will send no more."""
        self._loop = asyncio.get_running_loop()
        self._readable = asyncio.Event()
        self._is_listening = False

    async def ready(self) -> None:
        """Return once `poll` has something to do."""
        if self._arrived or self._broken is not None:
            return
        if not self._is_listening:
            self._is_listening = True
            # By its number: the loop describes an object that it does not know yet, which takes
            # long.
            self._loop.add_reader(self._sock.fileno(), self._noticed)
        await self._readable.wait()

    def poll(self) -> Sequence[bytes]:
        """Return the lines that `take` gives next, none where none is complete yet.

        Reads at most once, and only where no line is left. Raises `TooLargeError` for what nothing
        can be read after: a line that is too long, too many descriptors. Raises `OSError`.
        """
        if not self._arrived:
            if self._broken is not None:
                raise self._broken
            self._readable.clear()
            self._fill()
        return [arrived.line for arrived in islice(self._arrived, MAX_LINES)]

    def take(self) -> Arrived:
        """Return the next line, which is the caller's from now on."""
        return self._arrived.popleft()

    def close(self) -> None:
        """Close the descriptors that nobody has taken, and take no more lines."""
        self._stop_listening()
        held = [arrived.descriptor for arrived in self._arrived]
        held.append(self._unfinished)
        self._arrived.clear()
        self._unfinished = None
        self._disposal.dispose(descriptor for descriptor in held if descriptor is not None)

    def _noticed(self) -> None:
        # Who is about to read need not be told twice, and would be, at each turn of the loop.
        if self._readable.is_set():
            self._stop_listening()
        self._readable.set()

    def _stop_listening(self) -> None:
        if self._is_listening:
            self._is_listening = False
            self._loop.remove_reader(self._sock.fileno())

    def _fill(self) -> None:
        try:
            received = receive(self._sock)
        except BlockingIOError:
            return
        self.is_at_end = not received.data
        self._accept(received.data, received.descriptors)
        if received.is_cut or len(received.descriptors) > MAX_RECEIVED:
            self._broken = TooLargeError(
                f"more than {MAX_RECEIVED} descriptors came at once, or kitd has none left",
                hint="send one, with the first byte of the line that it belongs to",
            )

    def _accept(self, data: bytes, descriptors: Sequence[int]) -> None:
        """Take in one reading: descriptors go to the line in which it ends."""
        lines = 0
        for line in self._decoder.feed(data):
            if isinstance(line, TooLong):
                self._broken = TooLargeError(
                    f"a line has more than {line.max_bytes} bytes", hint="send smaller requests"
                )
            else:
                self._arrived.append(Arrived(line, self._unfinished))
                self._unfinished = None
                lines += 1
        if not descriptors:
            return
        first, *others = descriptors
        if self._decoder.is_within_line and self._unfinished is None:
            self._unfinished = first
        elif not self._decoder.is_within_line and lines and self._arrived[-1].descriptor is None:
            self._arrived[-1] = Arrived(self._arrived[-1].line, first)
        else:
            others.append(first)
        self._disposal.dispose(others)


def _descriptors_in(ancillary: Iterable[tuple[int, int, bytes]]) -> Sequence[int]:
    descriptors = array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content)
    return descriptors
