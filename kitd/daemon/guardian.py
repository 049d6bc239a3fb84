"""The main thread: it takes the signals and watches the event loop, which has a thread of its own.

Python runs signal handlers in the main thread only. A loop that lived there and hung in a system
call would hear of no signal, and nobody would be left to say so.
"""

import asyncio
import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, NoReturn

import structlog

from kitd.child import kill_children
from kitd.daemon.log_writer import LAST_LINES_S, THREAD, LogWriter

log = structlog.get_logger(__name__)

EX_SOFTWARE, EX_TEMPFAIL = 70, 75
ANSWER_S = 5.0
"""How long the loop may take to answer. It promises to be back within 50 ms."""
STOP_S = 30.0
"""How long a whole stop may take. Its phases have deadlines of their own that sum up to less."""
LEAVE_S = 1.0
"""What threads get to end after the daemon has; one in a dead file system never does."""
REPEAT_S = 60.0
"""How often a loop that hangs is reported."""
LAST_WORD_S = 3
"""What killing kitd may take, with the words that say why."""
MAX_FRAMES = 100
_STOPS = (signal.SIGTERM, signal.SIGINT)


class Guardian:
    """Runs one daemon. Make it and call `run` in the main thread.

    Meanwhile the daemon says with `on_stop` and `on_reload` what SIGTERM, SIGINT and SIGHUP do. A
    stop before that cancels it, a second one ends the process at once, as does a loop that does
    not answer to the first. It waits for no line of the log but at the end, for a moment.
    """

    def __init__(
        self,
        log_writer: LogWriter,
        *,
        answer_s: float = ANSWER_S,
        stop_s: float = STOP_S,
        leave_s: float = LEAVE_S,
    ) -> None:
        self._log_writer = log_writer
        self._answer_s = answer_s
        self._stop_s = stop_s
        self._leave_s = leave_s
        # Numbers of signals; None when the daemon has ended. Its `put` may interrupt itself.
        self._inbox: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._code = EX_SOFTWARE
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running = threading.Event()
        self._stop: Callable[[], object] = lambda: None
        self._reload: Callable[[], object] = lambda: None
        self._asked_s: float | None = None
        """When the loop was asked to answer; None if it has."""
        self._stopping_s: float | None = None
        self._reported_s: float | None = None

    def on_stop(self, stop: Callable[[], object]) -> None:
        """Have the first SIGTERM or SIGINT call `stop` on the loop."""
        self._stop = stop

    def on_reload(self, reload: Callable[[], object]) -> None:
        """Have SIGHUP call `reload` on the loop."""
        self._reload = reload

    def run(self, main: Callable[[], Coroutine[Any, Any, int]]) -> int:
        """Run the daemon and return its exit code, or end the process with it."""
        for number in (*_STOPS, signal.SIGHUP):
            signal.signal(number, lambda number, _frame: self._inbox.put(number))
        # A daemon thread: the interpreter would wait for any other.
        thread = threading.Thread(target=self._live, args=(main,), name="kitd-loop", daemon=True)
        thread.start()
        self._running.wait()
        while (message := self._next()) is not None:
            self._take(message)
        thread.join(self._leave_s)
        if thread.is_alive():
            # All is written and closed; what hangs in the kernel would keep the process for ever.
            log.warning("daemon.left_behind", threads=_names_of_others())
            self._end(self._code)
        return self._code

    def _live(self, main: Callable[[], Coroutine[Any, Any, int]]) -> None:
        try:
            with asyncio.Runner() as runner:
                self._code = runner.run(self._watched(main))
                # Said before the runner waits for tasks and threads that may never end.
                self._inbox.put(None)
        finally:
            self._inbox.put(None)
            self._running.set()

    async def _watched(self, main: Callable[[], Coroutine[Any, Any, int]]) -> int:
        task = asyncio.current_task()
        assert task is not None
        self.on_stop(task.cancel)
        self._loop = asyncio.get_running_loop()
        self._running.set()
        return await main()

    def _next(self) -> int | None:
        """Wait for a message; look after the loop all the while."""
        while True:
            try:
                return self._inbox.get(timeout=self._look())
            except queue.Empty:
                continue

    def _look(self) -> float:
        """See whether the loop answers, ask it again, and return when to look next."""
        now_s = time.monotonic()
        if self._stopping_s is not None and now_s - self._stopping_s >= self._stop_s:
            self._kill(f"the stop takes longer than {self._stop_s:g} s")
        # Read once: the loop may answer at any moment, on its own thread.
        asked_s = self._asked_s
        if asked_s is None:
            self._ask(self._answered)
        elif (silent_s := now_s - asked_s) >= self._answer_s:
            if self._stopping_s is not None:
                self._kill(f"the event loop has not answered for {silent_s:.0f} s")
            self._report(silent_s, now_s)
        return self._answer_s if self._stopping_s is None else min(0.5, self._answer_s)

    def _ask(self, answer: Callable[[], object]) -> None:
        self._asked_s = time.monotonic()
        self._call(answer)

    def _call(self, function: Callable[[], object]) -> None:
        # A loop that has just ended needs to hear nothing.
        with contextlib.suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function)

    def _answered(self) -> None:
        """Note, on the loop, that it is alive."""
        self._asked_s = None
        if self._reported_s is not None:
            self._reported_s = None
            log.warning("daemon.loop_answers_again")

    def _report(self, silent_s: float, now_s: float) -> None:
        reported_s = self._reported_s
        if reported_s is not None and now_s - reported_s < REPEAT_S:
            return
        self._reported_s = now_s
        log.error(
            "daemon.loop_stalled",
            for_s=round(silent_s, 1),
            hint="the stacks that follow show what it does; please report it",
        )
        _log_stacks()

    def _take(self, number: int) -> None:
        if number == signal.SIGHUP:
            if self._stopping_s is None:
                self._call(self._reload)
            return
        if self._stopping_s is not None:
            # The second one means it: what is running is put back at the next start.
            self._end(128 + number)
        self._stopping_s = time.monotonic()
        self._ask(self._stopped)

    def _stopped(self) -> None:
        self._answered()
        self._stop()

    def _kill(self, reason: str) -> NoReturn:
        # The kernel's timer: it ends the process even where this thread hangs.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LAST_WORD_S)
        kill_children()
        log.error(
            "daemon.killed",
            reason=reason,
            hint="the stacks that follow show what it was at; the next start recovers",
        )
        _log_stacks()
        self._end(EX_TEMPFAIL)

    def _end(self, code: int) -> NoReturn:
        kill_children()
        self._log_writer.flush(LAST_LINES_S)
        os._exit(code)


def _names_of_others() -> list[str]:
    return sorted(thread.name for thread in _others() if thread.name != THREAD)


def _others() -> Iterator[threading.Thread]:
    mine = threading.current_thread()
    return (thread for thread in threading.enumerate() if thread is not mine)


def _log_stacks() -> None:
    # Not with `faulthandler`, which writes to a descriptor and keeps the interpreter meanwhile.
    frames = sys._current_frames()  # noqa: SLF001 - public but for its name
    for thread in _others():
        if thread.ident in frames:
            log.error("daemon.stack", thread=thread.name, stack=_stack_of(frames[thread.ident]))
    # This frame is among them: they would keep each other, and what is in all of them.
    frames.clear()


def _stack_of(frame: FrameType | None) -> str:
    """Return where a thread is, innermost first. Reads no source: its disk may be what hangs."""
    lines: list[str] = []
    while frame is not None and len(lines) < MAX_FRAMES:
        code = frame.f_code
        lines.append(f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}")
        frame = frame.f_back
    return "\n".join(lines)
