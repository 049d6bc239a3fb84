"""What a failed attempt means for its job. Pure: the caller draws the random number."""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from kitd.errors import Disposition, KitdError
from kitd.queue.job import Failure, Job


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter: uniform in 0 … min(cap, base * 2^attempts)."""

    max_attempts: int
    base_s: float = 2.0
    cap_s: float = 900.0

    def delay_s(self, attempt: int, draw: float) -> float:
        """Return the wait after the `attempt`-th attempt failed; `draw` is uniform in [0, 1)."""
        # The exponent is bounded so that a patient job does not overflow a float.
        return draw * min(self.cap_s, self.base_s * 2.0 ** min(attempt - 1, 32))


class PartlyDoneError(KitdError):
    """Some of what an attempt was to do is done; `result` tells of all of it."""

    def __init__(self, message: str, *, hint: str | None, result: msgspec.Struct) -> None:
        super().__init__(message, hint=hint)
        self.result = result


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The job has failed."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class ComeBack:
    """The job runs again after `delay_s`; `burned` says whether the attempt counts.

    `crashed` says that a process died of it, which is counted apart.
    """

    failure: Failure
    delay_s: float
    burned: bool
    crashed: bool = False


@dataclass(frozen=True, slots=True)
class StepAside:
    """The job ends unfinished, and whatever asked for it asks again."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing new begins until there is room; then this job runs again, unburned."""

    failure: Failure
    delay_s: float


@dataclass(frozen=True, slots=True)
class Die:
    """kitd ends. The job stays running in the ledger, where the next life finds it."""


Verdict = GiveUp | ComeBack | StepAside | Pause | Die

SNOOZE_S = 2.0
"""How long a job waits whose input moved under it: the time a project takes to settle. The wait
doubles with every attempt of the job that did not count, whatever ended it; a project that comes
to rest earlier wakes its job. The wait of a job that finds no room grows in the same way: one that
is too large for the disk does not fill it all day."""
MAX_SNOOZE_S = 120.0

MAX_CRASHES = 3
"""So many deaths in a row, and a job is set aside."""
SUSPECT_CRASHES = 2
"""From here on a job runs only where no other suspect runs, so that the next death tells which of
them it was."""


def failure_of(error: KitdError) -> Failure:
    """Return what a person reads about an error."""
    result = msgspec.json.encode(error.result) if isinstance(error, PartlyDoneError) else None
    return Failure(error.code, error.message, error.hint, result)


def poison(job_id: int, last: str) -> Failure:
    """Return why a job was set aside; `last` says how its last attempt ended."""
    return Failure(
        "poison",
        f"set aside: {MAX_CRASHES} times in a row a process died while it ran; at last: {last}",
        f"kitctl jobs retry {job_id} once the cause is gone",
    )


def blamed(running: Iterable[Job]) -> tuple[Job, ...]:
    """Return those of the jobs that ran when kitd died that may have been the cause.

    One that was a suspect before is: the others only happened to be there.
    """
    jobs = tuple(running)
    return tuple(job for job in jobs if job.crashes >= SUSPECT_CRASHES) or jobs


def judge(error: KitdError, job: Job, policy: RetryPolicy, draw: float) -> Verdict:
    """Decide what follows a failed attempt; `draw` is uniform in [0, 1)."""
    failure = failure_of(error)
    match error.disposition:
        case Disposition.SNOOZE:
            return ComeBack(failure, _snooze_s(job), burned=False)
        case Disposition.PAUSE:
            return Pause(failure, _snooze_s(job))
        case Disposition.STEP_ASIDE:
            return StepAside(failure)
        case Disposition.FATAL:
            return Die()
        case Disposition.RETRY if error.retry_after_s is not None:
            # Spread, because others were told the same; the more often it came in vain, the wider.
            wait_s = error.retry_after_s + draw * _snooze_s(job)
            return ComeBack(failure, wait_s, burned=False)
        case Disposition.CRASH if job.crashes + 1 >= MAX_CRASHES:
            return GiveUp(poison(job.id, error.message))
        case Disposition.RETRY | Disposition.CRASH if job.attempt < job.max_attempts:
            crashed = error.disposition is Disposition.CRASH
            return ComeBack(
                failure, policy.delay_s(job.attempt, draw), burned=True, crashed=crashed
            )
        case _:
            return GiveUp(failure)


def _snooze_s(job: Job) -> float:
    unburned = job.claim - job.attempt
    return min(MAX_SNOOZE_S, SNOOZE_S * 2.0 ** min(max(unburned, 0), 32))
