"""Who asked for what, in the log: every call while there are few, and their number when many come.

A line costs more than all else that a small call does, because writing it lets other threads run;
and a log of thousands of lines a second is read by nobody.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass

import structlog

log = structlog.get_logger(__name__)

LINES_PER_S = 20


@dataclass(frozen=True, slots=True)
class _Calls:
    """What is counted together."""

    method: str
    uid: int
    outcome: str


class CallLog:
    """Logs the calls of all connections of a server. Belongs to one event loop."""

    def __init__(self) -> None:
        self.ended: Counter[tuple[str, bool]] = Counter()
        """All calls, those that only read as well, by method and whether they went well."""
        self._lines = 0
        self._more: Counter[_Calls] = Counter()
        self._second: asyncio.TimerHandle | None = None

    def note(self, method: str, uid: int, pid: int, outcome: str) -> None:
        """Log a call that has ended, or count it."""
        if self._second is None:
            self._second = asyncio.get_running_loop().call_later(1.0, self._end_second)
        if self._lines < LINES_PER_S:
            self._lines += 1
            log.info("rpc.call", method=method, uid=uid, pid=pid, outcome=outcome)
        else:
            self._more[_Calls(method, uid, outcome)] += 1

    def _end_second(self) -> None:
        """Say how many calls had no line of their own."""
        more, self._more, self._lines, self._second = self._more, Counter(), 0, None
        for calls, count in more.most_common(LINES_PER_S):
            log.info(
                "rpc.calls",
                method=calls.method,
                uid=calls.uid,
                outcome=calls.outcome,
                count=count,
            )
