"""What a failed attempt means for its job. Pure: the caller draws the random number."""

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The job has failed."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class ComeBack:
    """The job runs again after `delay_s`; `burned` says whether the attempt counts."""

    failure: Failure
    delay_s: float
    burned: bool


@dataclass(frozen=True, slots=True)
class StepAside:
    """The job ends unfinished, and whatever asked for it asks again."""

    failure: Failure


Verdict = GiveUp | ComeBack | StepAside

SNOOZE_S = 2.0
"""How long a job waits whose input moved under it: the time a project takes to settle. Each time
that it happens again the wait doubles; a project that comes to rest earlier wakes its job."""
MAX_SNOOZE_S = 120.0


def failure_of(error: KitdError) -> Failure:
    """Return what a person reads about an error."""
    return Failure(error.code, error.message, error.hint)


def judge(error: KitdError, job: Job, policy: RetryPolicy, draw: float) -> Verdict:
    """Decide what follows a failed attempt; `draw` is uniform in [0, 1)."""
    failure = failure_of(error)
    match error.disposition:
        case Disposition.SNOOZE:
            unburned = job.claim - job.attempt
            delay_s = min(MAX_SNOOZE_S, SNOOZE_S * 2.0 ** min(max(unburned, 0), 32))
            return ComeBack(failure, delay_s, burned=False)
        case Disposition.STEP_ASIDE:
            return StepAside(failure)
        case Disposition.RETRY if job.attempt < job.max_attempts:
            return ComeBack(failure, policy.delay_s(job.attempt, draw), burned=True)
        case _:
            return GiveUp(failure)
