"""The end of the log: a thread that writes lines, because a write may wait for ever.

A pipe that nobody reads from takes nothing, a full disk fails, and neither may keep kitd from
working or from ending. Whoever logs leaves his lines in a queue and goes on. Make the writer after
the last fork of the process: threads do not follow there.
"""

import os
import queue
import select
import threading
from collections.abc import Sequence

import structlog

# Its lines are returned, not written. They would wait behind others for which there is no room.
log = structlog.wrap_logger(structlog.ReturnLogger())

STDERR = 2
THREAD = "kitd-log"
MAX_LINES = 10_000
MAX_BYTES = 4 << 20
LAST_LINES_S = 1.0
"""How long the end of kitd waits for its last lines to be written."""


class _Gap:
    """Lines for which there was no room, at this place among the others."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        self.lines = 0


class LogWriter:
    """Writes lines to a descriptor, in the order in which they came.

    Lines are lost where too many wait, or the descriptor does not take them. `log.lines_lost` says
    how many as soon as it can.
    """

    def __init__(
        self, descriptor: int, *, max_lines: int = MAX_LINES, max_bytes: int = MAX_BYTES
    ) -> None:
        self._descriptor = descriptor
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        # Its `put` waits for nothing, and may interrupt itself.
        self._queue: queue.SimpleQueue[bytes | _Gap | threading.Event] = queue.SimpleQueue()
        # Nobody waits for anything while he has it. Garbage that is collected may log in between,
        # on the same thread.
        self._room = threading.RLock()
        self._lines = 0
        self._bytes = 0
        self._gap: _Gap | None = None
        """That at the end of the queue, if there is one."""
        self._lost = 0
        """Lines that the log was not told of yet. Of the thread only, as is what follows."""
        self._is_torn = False
        """Whether the last line came out in part."""
        threading.Thread(target=self._serve, name=THREAD, daemon=True).start()

    def put(self, line: str) -> None:
        """Have a line written, which ends with its newline. Waits for nothing."""
        text = line.encode("utf-8", "backslashreplace")
        with self._room:
            if self._lines < self._max_lines and self._bytes + len(text) <= self._max_bytes:
                self._gap = None
                self._lines += 1
                self._bytes += len(text)
                self._queue.put(text)
            else:
                gap = self._gap
                if gap is None:
                    gap = self._gap = _Gap()
                    self._queue.put(gap)
                gap.lines += 1

    def flush(self, within_s: float) -> bool:
        """Wait until what was put before is written or lost; return whether that was in time."""
        reached = threading.Event()
        self._queue.put(reached)
        return reached.wait(within_s)

    def _serve(self) -> None:
        item = None
        while True:
            item = self._queue.get() if item is None else item
            match item:
                case bytes():
                    item = self._write_from(item)
                    continue
                case _Gap():
                    with self._room:
                        # More may be lost; that is another gap.
                        self._gap = None if self._gap is item else self._gap
                    self._lost += item.lines
                    self._deliver(())
                case threading.Event():
                    item.set()
            item = None

    def _write_from(self, first: bytes) -> bytes | _Gap | threading.Event | None:
        """Write a line and those that wait behind it; return what else was taken on the way.

        As many at once as a pipe takes whole, among the lines of other processes (pipe(7)).
        """
        lines, size = [first], len(first)
        item = self._waiting()
        while isinstance(item, bytes) and size + len(item) <= select.PIPE_BUF:
            lines.append(item)
            size += len(item)
            item = self._waiting()
        self._deliver(lines)
        with self._room:
            self._lines -= len(lines)
            self._bytes -= size
        return item

    def _waiting(self) -> bytes | _Gap | threading.Event | None:
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def _deliver(self, lines: Sequence[bytes]) -> None:
        """Write lines, and before them how many were lost; count those that do not come out."""
        is_whole = not self._is_torn or self._write([b"\n"]) == 1
        if is_whole and self._lost:
            notice: str = log.error("log.lines_lost", lines=self._lost)
            if is_whole := self._write([f"{notice}\n".encode()]) == 1:
                self._lost = 0
        self._lost += len(lines) - (self._write(lines) if is_whole else 0)

    def _write(self, lines: Sequence[bytes]) -> int:
        """Return how many of these lines came out: all, or the descriptor has failed."""
        text = b"".join(lines)
        done = 0
        try:
            while done < len(text):
                done += self._write_some(text[done:])
        except OSError:
            # A disk that is full, or a pipe that is closed. There is nobody to be told.
            pass
        whole = 0
        for line in lines:
            if done < len(line):
                break
            done -= len(line)
            whole += 1
        if whole or done:
            self._is_torn = done > 0
        return whole

    def _write_some(self, text: bytes) -> int:
        try:
            return os.write(self._descriptor, text)
        except BlockingIOError:
            # Another process that has it open made it so.
            ready = select.poll()
            ready.register(self._descriptor, select.POLLOUT)
            ready.poll()
            return 0
