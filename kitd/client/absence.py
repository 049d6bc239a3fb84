"""A daemon that is away while a job is waited for, as when it is started again.

The job is in its ledger and goes on when it is back; how long somebody waits for that has a bound.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from kitd.client.error import AccessDeniedError, DaemonUnreachableError
from kitd.client.outcome import JobFailedError
from kitd.client.record import Progress
from kitd.errors import Disposition, KitdError

PATIENCE_S = 30.0
"""How long a daemon may be away before nobody waits any longer."""
RECONNECTING = Progress("reconnecting", 0, 0)
"""What is told instead of a job's progress, each time the daemon is looked for."""

_PAUSE_S = 0.25


class JobLostError(DaemonUnreachableError):
    """The daemon was away too long to say what became of a job; `job` is its number."""

    def __init__(self, job: int, away_s: float, error: KitdError) -> None:
        super().__init__(
            f"what becomes of job {job} is not known: kitd was away for {away_s:.0f} s: {error}",
            hint=f"when it is back, wait for it with: kitctl jobs wait {job}",
        )
        self.job = job


class Absence:
    """For how long the daemon has not said how a job stands."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._since_s: float | None = None

    def end(self) -> None:
        """Note that the daemon answers."""
        self._since_s = None

    def pause_s(self, job: int, error: KitdError) -> float:
        """Return how long to wait before looking again.

        Raises `error` if that says nothing of an absence, and `JobLostError` when it was too long.
        """
        # While it starts, its socket may be there before those who may open it.
        if error.disposition is not Disposition.RETRY and not isinstance(error, AccessDeniedError):
            raise error
        now_s = time.monotonic()
        if self._since_s is None:
            self._since_s = now_s
        away_s = now_s - self._since_s
        if away_s >= self._patience_s:
            raise JobLostError(job, away_s, error) from error
        return min(_PAUSE_S, self._patience_s - away_s)


@contextmanager
def naming(job: int) -> Iterator[None]:
    """Add to whatever ends the wait for a job, as Ctrl-C does, how to find it again."""
    try:
        yield
    except (JobFailedError, JobLostError):
        raise
    except BaseException as error:
        error.add_note(f"job {job} goes on: wait for it with client.wait({job})")
        raise
