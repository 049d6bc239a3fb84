"""A daemon that is away while a job is waited for, as when it is started again.

The job is in its ledger and goes on when it is back; how long somebody waits for that has a bound.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from kitd.client.error import (
    AccessDeniedError,
    DaemonUnreachableError,
    DeadlineExceededError,
    RpcError,
)
from kitd.client.record import Job, Progress
from kitd.errors import Disposition, KitdError

PATIENCE_S = 30.0
"""How long a daemon may be away before nobody waits any longer."""
RECONNECTING = Progress("reconnecting", 0, 0)
"""What is told instead of a job's progress, each time the daemon is looked for."""

_PAUSE_S = 0.25


def is_absence(error: KitdError) -> bool:
    """Whether an error says that the daemon may only be away for a moment."""
    # While it starts, its socket may be there before those who may open it.
    return error.disposition is Disposition.RETRY or isinstance(error, AccessDeniedError)


class JobLostError(DaemonUnreachableError):
    """Nobody can say what became of a job; `job` is its number."""

    def __init__(self, job: int, reason: str, *, hint: str) -> None:
        super().__init__(f"what becomes of job {job} is not known: {reason}", hint=hint)
        self.job = job


class Absence:
    """For how long the daemon has not said how a job stands, and which job that is.

    A number alone is not a job: a daemon with another state has given it to another one.
    """

    def __init__(self, patience_s: float, job: int | Job) -> None:
        """Begin with a job as it was seen, or with the number of one that nobody has seen yet."""
        self._patience_s = patience_s
        self._since_s: float | None = None
        self._seen = job if isinstance(job, Job) else None
        self.job = job.id if isinstance(job, Job) else job

    def end(self, current: Job) -> None:
        """Note that the daemon says how the job stands. Raises `JobLostError` if it is another."""
        if self._seen is not None and _identity(current) != _identity(self._seen):
            raise self._another_state(f"its job {self.job} is another ({current.kind})")
        self._since_s = None
        self._seen = current

    def pause_s(self, error: KitdError) -> float:
        """Return how long to wait before looking again.

        Raises `error` if that says nothing of an absence, and `JobLostError` when it was too long
        or the daemon that is back does not know the job.
        """
        is_known = self._seen is not None or self._since_s is not None
        if isinstance(error, RpcError) and error.code == "not_found" and is_known:
            raise self._another_state(f"it has no job {self.job}") from error
        # Whoever has no room for one more is there.
        if isinstance(error, RpcError) and error.code == "queue_full":
            raise error
        if not is_absence(error) or isinstance(error, JobLostError):
            raise error
        now_s = time.monotonic()
        if self._since_s is None:
            self._since_s = now_s
        away_s = now_s - self._since_s
        if away_s >= self._patience_s:
            raise JobLostError(
                self.job,
                f"kitd was away for {away_s:.0f} s: {error}",
                hint=f"when it is back, wait for it with: kitctl jobs wait {self.job}",
            ) from error
        return min(_PAUSE_S, self._patience_s - away_s)

    def _another_state(self, difference: str) -> JobLostError:
        return JobLostError(
            self.job,
            f"kitd has another state than before: {difference}",
            hint="see what it has: kitctl jobs list",
        )


def _identity(job: Job) -> tuple[str | None, ...]:
    """Return what never changes of a job."""
    return job.created, job.kind, job.reference


@contextmanager
def naming(job: int) -> Iterator[None]:
    """Add to what ends only the wait for a job, as Ctrl-C does, how to find it again."""
    try:
        yield
    except BaseException as error:
        # Any other of kitd's errors says itself what is known of the job.
        if isinstance(error, DeadlineExceededError) or not isinstance(error, KitdError):
            error.add_note(f"job {job} goes on: wait for it with client.wait({job})")
        raise
