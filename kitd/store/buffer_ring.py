"""A ring of buffers: one thread fills them in turn while others empty what is full.

Each sink has a thread of its own and is given every buffer in order, so that hashing, writing and
whatever produces the bytes overlap. What does not fill a buffer never leaves the calling thread.
"""

import mmap
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from kitd.content.store import Chunk

BUFFER_BYTES = 1 << 20
BUFFERS = 4
"""One is filled, one hashed, one written; the fourth evens them out."""

Sink = Callable[[memoryview], object]
"""Takes the next bytes; they are overwritten some time after it returns."""


class BufferRing:
    """Hands bytes to sinks. Filled by one thread at a time. Use as a context manager.

    What a sink raises comes out of a later `fill` or `write`, and of every `drain`. All pieces
    begin on a page, and all but the last have `BUFFER_BYTES`.
    """

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks
        self._threads: Sequence[ThreadPoolExecutor] = ()
        self._buffers = [_new_buffer()]
        self._busy: list[Sequence[Future[object]]] = [()] * BUFFERS
        self._turn = 0
        self._buffer = self._buffers[0]
        self._filled = 0

    def room(self) -> memoryview:
        """Return what is free of the buffer whose turn it is; never empty."""
        return self._buffer[self._filled :]

    def fill(self, size: int) -> None:
        """Count the first `size` bytes of `room` as filled."""
        self._filled += size
        if self._filled == BUFFER_BYTES:
            self._hand_over()

    def awaited(self) -> Sequence[Future[object]]:
        """Return what a `fill` to the end of `room` would wait for; nothing once that is done."""
        return [future for future in self._busy[self._following] if not future.done()]

    def write(self, data: Chunk) -> None:
        """Copy bytes in."""
        end = self._filled + len(data)
        if end < BUFFER_BYTES:
            self._buffer[self._filled : end] = data
            self._filled = end
            return
        left = memoryview(data)
        while left:
            room = self.room()
            part = left[: len(room)]
            room[: len(part)] = part
            self.fill(len(part))
            left = left[len(part) :]

    def drain(self) -> None:
        """Hand over what is left and wait until every sink has had everything."""
        rest = self._buffer[: self._filled]
        self._filled = 0
        if self._threads:
            self._submit(rest)
            for busy in self._busy:
                for future in busy:
                    future.result()
        else:
            for sink in self._sinks:
                sink(rest)

    def close(self) -> None:
        """End the threads, without what they have not begun yet. Safe to call twice."""
        for thread in self._threads:
            thread.shutdown(wait=True, cancel_futures=True)

    @property
    def _following(self) -> int:
        return (self._turn + 1) % BUFFERS

    def _hand_over(self) -> None:
        following = self._following
        # First, so that whoever goes on after an error meets it again.
        for future in self._busy[following]:
            future.result()
        if not self._threads:
            self._threads = [ThreadPoolExecutor(1) for _ in self._sinks]
        if following == len(self._buffers):
            self._buffers.append(_new_buffer())
        self._submit(self._buffer)
        self._turn = following
        self._buffer = self._buffers[following]
        self._filled = 0

    def _submit(self, data: memoryview) -> None:
        self._busy[self._turn] = [
            thread.submit(sink, data)
            for thread, sink in zip(self._threads, self._sinks, strict=True)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _new_buffer() -> memoryview:
    # Page-aligned, as direct writes ask for. Shared with forked processes, which is mmap's default:
    # a private page that is copied because of a fork in mid-write may end up torn on the disk.
    return memoryview(mmap.mmap(-1, BUFFER_BYTES))
