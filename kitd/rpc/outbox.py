"""What is on its way to one peer: whole lines, in order, with their file descriptors."""

import asyncio
import os
import socket
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kitd.rpc.limit import Limits

_AT_ONCE_BYTES = 1 << 16
"""Short lines are sent together: a system call costs more than they do."""


@dataclass(frozen=True, slots=True)
class _Line:
    content: bytes
    descriptors: tuple[int, ...]


def close_all(descriptors: Iterable[int]) -> None:
    """Close file descriptors that nobody will receive."""
    for descriptor in descriptors:
        os.close(descriptor)


class Outbox:
    """A bounded queue in front of a non-blocking socket.

    Whoever has a line waits in `put` for room, so a slow reader holds up its own connection and no
    other. One task runs `run`; descriptors are owned from `put` on.
    """

    def __init__(self, sock: socket.socket, limits: Limits) -> None:
        self._sock = sock
        self._limits = limits
        self._lines: deque[_Line] = deque()
        self._queued_bytes = 0
        self._closed = False
        self._filled = asyncio.Event()
        self._room = asyncio.Event()

    async def put(self, document: bytes, descriptors: Sequence[int] = ()) -> None:
        """Queue a line once there is room; close the descriptors if the wait is cancelled."""
        try:
            await self.room()
        except asyncio.CancelledError:
            close_all(descriptors)
            raise
        self._append(document, descriptors)

    async def room(self) -> None:
        """Return once there is room."""
        while self.is_full:
            self._room.clear()
            await self._room.wait()

    def post(self, document: bytes) -> None:
        """Queue a line although there may be no room: for few that belong together."""
        self._append(document, ())

    def close(self) -> None:
        """Let `run` return once everything is sent."""
        self._closed = True
        self._filled.set()

    def discard(self) -> None:
        """Drop what is not sent and close its descriptors."""
        for line in self._lines:
            close_all(line.descriptors)
        self._lines.clear()

    async def run(self) -> None:
        """Send until closed. Raises `OSError`; `TimeoutError` where the peer stopped reading."""
        while True:
            while not self._lines:
                if self._closed:
                    return
                self._filled.clear()
                await self._filled.wait()
            lines = self._next()
            async with asyncio.timeout(self._limits.stall_s):
                await self._send(lines)
            for _ in lines:
                close_all(self._lines.popleft().descriptors)
            self._queued_bytes -= sum(len(line.content) for line in lines)
            self._room.set()

    def _next(self) -> Sequence[_Line]:
        """Return what is sent next: several lines at once if they are short and bring nothing."""
        lines: list[_Line] = []
        count = 0
        for line in self._lines:
            count += len(line.content)
            if lines and (line.descriptors or count > _AT_ONCE_BYTES):
                break
            lines.append(line)
            if line.descriptors:
                break
        return lines

    @property
    def is_full(self) -> bool:
        """Whether the peer has to read before more is made for it."""
        return (
            len(self._lines) >= self._limits.queued_messages
            or self._queued_bytes >= self._limits.queued_bytes
        )

    def _append(self, document: bytes, descriptors: Sequence[int]) -> None:
        line = _Line(document + b"\n", tuple(descriptors))
        self._lines.append(line)
        self._queued_bytes += len(line.content)
        self._filled.set()

    async def _send(self, lines: Sequence[_Line]) -> None:
        first = lines[0]
        sent = await self._send_first(first) if first.descriptors else 0
        content = first.content if len(lines) == 1 else b"".join(line.content for line in lines)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._sock, memoryview(content)[sent:])

    async def _send_first(self, line: _Line) -> int:
        """Send the beginning of a line with its descriptors and return how much went.

        The descriptors travel with the first byte (unix(7), SCM_RIGHTS), and only once.
        """
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", line.descriptors))]
        while True:
            try:
                return self._sock.sendmsg([line.content], rights)
            except BlockingIOError:
                await _writable(self._sock)


async def _writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(sock)
