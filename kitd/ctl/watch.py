"""`kitctl status --watch`: the status as it changes, drawn over itself or a document a line.

The subscription says when something happened; then all is asked for anew, at most a few times a
second. A clock draws what ages meanwhile.
"""

import os
import re
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Self

from kitd.client import Client, request
from kitd.client.absence import PATIENCE_S, is_absence
from kitd.client.error import DeadlineExceededError
from kitd.client.record import Event
from kitd.client.subscription import JobProgress, Subscription
from kitd.ctl.ending_signals import TakenBackBySignals, end_by
from kitd.ctl.error import UnwritableOutputError
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.progress import Rate
from kitd.ctl.session import Session
from kitd.ctl.terminal import Terminal
from kitd.ctl.watch_frame import Pace, View, frame_lines
from kitd.errors import KitdError

TICK_S = 1.0
PAUSE_S = 0.25
"""Between two times that all is asked for, or drawn."""
REFRESH_S = 10.0
"""What changes without an event, as the cache does, is asked for this often."""
ASKED_FAILED = 100
"""Of more jobs that failed lately the number is not known."""
_DRAIN_S = 0.002
_DRAIN_AT_MOST_S = 0.1
_CALL_S = 10.0
_SCREEN_CALL_S = 2.0
"""A key is not heard while an answer is waited for."""

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
"""The alternate screen, no cursor, no wrapping (xterm's private modes 1049, 25 and 7)."""

_KEY_OF_SEVERAL = re.compile(rb"\x1b(?:\[\[?[0-?]*[ -/]*[@-~]|O[0-?]*[@-~])")
"""What keys such as F2 and the arrows send (ECMA-48 section 5.4, and SS3 of a VT100)."""


def print_changes(session: Session) -> int:
    """Print the status as a line of JSON, and again whenever it has changed.

    Raises what `Client.call` raises, when the daemon was away for too long.
    """
    last: object = None
    away_since_s: float | None = None
    with suppress(KeyboardInterrupt):
        while True:
            try:
                with session.connect() as client, client.subscribe() as subscription:
                    while True:
                        status = client.call(request.status(), timeout_s=_CALL_S)
                        away_since_s = None
                        # Time alone is no change.
                        current = {**status.document, "daemon": {**status.daemon, "uptime_s": 0}}
                        if current != last:
                            session.terminal.show_line(status.document, "")
                            last = current
                        _await_event(subscription, time.monotonic() + REFRESH_S)
                        time.sleep(PAUSE_S)
                        list(_arrived(subscription))
            except KitdError as error:
                now_s = time.monotonic()
                away_since_s = now_s if away_since_s is None else away_since_s
                patience_s = 0.0 if last is None else PATIENCE_S
                if not is_absence(error) or now_s - away_since_s >= patience_s:
                    raise
                time.sleep(PAUSE_S)
    return ExitCode.INTERRUPTED


def watch_screen(session: Session) -> int:
    """Draw the status until a person has seen enough.

    Raises what `Client.call` raises before anything is drawn; later the daemon is waited for.
    """
    watch = _Watch(session)
    watch.look()
    with TakenBackBySignals():
        try:
            with _Screen(session.terminal) as screen:
                watch.run(screen)
        except KeyboardInterrupt:
            return ExitCode.INTERRUPTED
    return ExitCode.DONE


def _await_event(subscription: Subscription, deadline: float) -> None:
    try:
        while not isinstance(subscription.read(deadline=deadline), Event):
            pass
    except DeadlineExceededError:
        if time.monotonic() < deadline:
            raise


def _arrived(subscription: Subscription) -> Iterator[Event | JobProgress]:
    """Yield what has arrived, for a moment at most."""
    end_s = time.monotonic() + _DRAIN_AT_MOST_S
    while (now_s := time.monotonic()) < end_s:
        try:
            yield subscription.read(deadline=now_s + _DRAIN_S)
        except DeadlineExceededError:
            return


class _Watch:
    """What is known, and how it is kept up with what happens."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._view: View | None = None
        self._last: dict[int, JobProgress] = {}
        self._rates: dict[int, Rate] = {}

    def look(self) -> None:
        """Ask for everything once. Raises what `Client.call` raises."""
        with self._session.connect() as client:
            self._ask(client, _CALL_S)

    def run(self, screen: "_Screen") -> None:
        """Draw until a person ends it; a daemon that is away is waited for."""
        while True:
            try:
                with (
                    self._session.connect() as client,
                    client.subscribe(timeout_s=_SCREEN_CALL_S) as subscription,
                ):
                    self._follow(screen, client, subscription)
                    return
            except KitdError as error:
                if not is_absence(error) or self._view is None:
                    raise
                is_silent = isinstance(error, DeadlineExceededError)
                away = "kitd does not answer" if is_silent else "kitd is away"
                self._view = self._view._replace(away=f"{away}: {error.message}", running=())
                self._last, self._rates = {}, {}
            self._draw(screen)
            if screen.is_left(TICK_S):
                return

    def _follow(self, screen: "_Screen", client: Client, subscription: Subscription) -> None:
        self._ask(client, _SCREEN_CALL_S)
        asked_s, is_stale = time.monotonic(), False
        while True:
            for item in _arrived(subscription):
                if isinstance(item, JobProgress):
                    self._note(item)
                else:
                    is_stale = True
            now_s = time.monotonic()
            if is_stale or now_s - asked_s >= REFRESH_S:
                self._ask(client, _SCREEN_CALL_S)
                asked_s, is_stale = now_s, False
            self._draw(screen)
            # Whatever happens, the next frame comes no sooner.
            if screen.is_left(PAUSE_S) or screen.is_left(TICK_S - PAUSE_S, subscription):
                return

    def _ask(self, client: Client, timeout_s: float) -> None:
        status = client.call(request.status(), timeout_s=timeout_s)
        running = client.call(request.list_jobs(state="running"), timeout_s=timeout_s)
        failed = client.call(
            request.list_jobs(state="failed", limit=ASKED_FAILED), timeout_s=timeout_s
        )
        ordered = sorted(running, key=lambda job: job.id)
        self._view = View(status, ordered, failed, {}, are_all_failed=len(failed) < ASKED_FAILED)
        known = {job.id for job in running}
        self._last = {job: item for job, item in self._last.items() if job in known}
        self._rates = {job: rate for job, rate in self._rates.items() if job in known}
        for job in running:
            if job.progress is not None and job.id not in self._last:
                self._note(JobProgress(job.id, job.progress))

    def _note(self, item: JobProgress) -> None:
        now_s, before = time.monotonic(), self._last.get(item.job)
        if before is None or before.progress.phase != item.progress.phase:
            self._rates[item.job] = Rate(now_s, item.progress.bytes)
        self._rates[item.job].add(now_s, item.progress.bytes)
        self._last[item.job] = item

    def _draw(self, screen: "_Screen") -> None:
        assert self._view is not None
        now_s = time.monotonic()
        paces = {
            job: Pace(
                item.progress,
                self._rates[job].at(now_s),
                self._rates[job].left_s(now_s, item.progress.total),
            )
            for job, item in self._last.items()
        }
        screen.draw(self._view._replace(paces=paces))


class _Screen:
    """The alternate screen of a terminal, and the keys that are pressed at it."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._keyboard = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._modes = [] if self._keyboard is None else termios.tcgetattr(self._keyboard)
        self._is_entered = False
        self._view: View | None = None
        self._woken, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def draw(self, view: View) -> None:
        """Draw a frame over the last one, without a moment in which there is nothing."""
        self._view = view
        columns, rows = self._terminal.screen_size
        lines = frame_lines(view, time.time(), columns, rows, self._terminal)
        text = "\r\n".join(f"{line}\x1b[K" for line in lines)
        self._terminal.draw_screen(f"\x1b[H{text}\x1b[J")

    def is_left(self, within_s: float, subscription: Subscription | None = None) -> bool:
        """Wait for what a subscription has, or for so long; return whether a key ended it before.

        A resize is drawn meanwhile.
        """
        end_s = time.monotonic() + within_s
        while True:
            watched: list[int | Subscription] = [self._woken]
            watched += [] if self._keyboard is None else [self._keyboard]
            watched += [] if subscription is None else [subscription]
            left_s = max(end_s - time.monotonic(), 0.0)
            ready, _, _ = select.select(watched, (), (), left_s)
            if self._woken in ready:
                os.read(self._woken, 4096)
                if self._view is not None:
                    self.draw(self._view)
            if self._keyboard in ready and self._is_end_pressed():
                return True
            if subscription in ready or time.monotonic() >= end_s:
                return False

    def _is_end_pressed(self) -> bool:
        assert self._keyboard is not None
        keys = os.read(self._keyboard, 4096)
        if not keys:
            self._keyboard = None
        return b"q" in _KEY_OF_SEVERAL.sub(b"", keys).lower()

    def _enter(self) -> None:
        # Modes first: that stops whoever is not in the foreground, before anything is drawn.
        if self._keyboard is not None:
            tty.setcbreak(self._keyboard, termios.TCSADRAIN)
        self._is_entered = True
        self._terminal.draw_screen(_ENTER)

    def _leave(self) -> None:
        """Give the terminal back, if that was not done: what is on it then is the shell's."""
        if not self._is_entered:
            return
        # Who is not in the foreground any more would be stopped by what it writes.
        before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        # Of a terminal that hung up there is nothing left to give back.
        with suppress(UnwritableOutputError, BrokenPipeError, termios.error):
            self._terminal.draw_screen(_LEAVE)
            if self._keyboard is not None and _is_in_foreground(self._keyboard):
                termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._modes)
        self._is_entered = False
        signal.signal(signal.SIGTTOU, before)

    def _wake(self, _number: int, _frame: FrameType | None) -> None:
        with suppress(BlockingIOError):
            os.write(self._waker, b".")

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Give the terminal back while the shell has it (Ctrl-Z), and take it again."""
        self._leave()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
        signal.signal(number, self._stop)
        self._enter()
        self._wake(number, frame)

    def _quit(self, number: int, _frame: FrameType | None) -> None:
        """End at once, as Ctrl-Backslash asks for, but with a terminal that can be used."""
        self._leave()
        end_by(number)

    def __enter__(self) -> Self:
        signal.signal(signal.SIGWINCH, self._wake)
        signal.signal(signal.SIGTSTP, self._stop)
        signal.signal(signal.SIGQUIT, self._quit)
        self._enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)
        self._leave()
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
        os.close(self._woken)
        os.close(self._waker)


def _is_in_foreground(terminal: int) -> bool:
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        # It is not the terminal of this session: no shell has it meanwhile.
        return True
