"""Whether a job's events can have happened, one after the other, and led to what it is now. Pure.

The events of a job are replayed against `kitd.queue.transition`. Where the first of them are no
longer held, the job may have been in any state before, and whatever cannot follow from one of
those is found all the same.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from kitd.queue.job import TERMINAL, WAITING, JobState
from kitd.queue.transition import TRANSITIONS, Signal

PREFIX = "job."
"""Events of a job that tell of something else, such as an effect, have other types."""
CREATED = "job.created"
STARTED = "job.started"

_SIGNALS: Mapping[str, Signal] = {
    "job.due": Signal.DUE,
    STARTED: Signal.CLAIM,
    "job.succeeded": Signal.SUCCEED,
    "job.failed": Signal.FAIL,
    "job.retrying": Signal.BACK_OFF,
    "job.interrupted": Signal.INTERRUPT,
    "job.cancelled": Signal.CANCEL,
    "job.superseded": Signal.SUPERSEDE,
    "job.retried": Signal.RETRY,
}
_STEPS: Mapping[str, Mapping[JobState, JobState]] = {
    **{
        event: {state: then for (state, when), then in TRANSITIONS.items() if when is signal}
        for event, signal in _SIGNALS.items()
    },
    "job.joined": dict.fromkeys(WAITING, JobState.READY),
    "job.cancelling": {JobState.RUNNING: JobState.RUNNING},
}
"""What each event makes of each state in which it may happen."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that cannot be. `job` is None where it is the stream as a whole."""

    job: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Told:
    """One event of a job."""

    seq: int
    type: str


@dataclass(frozen=True, slots=True)
class Found:
    """What the job's row says: where it is, how often it was started, and what followed it."""

    state: JobState
    claim: int
    followed_by: tuple[int, ...] = ()


class _Replay:
    """A job as far as its events were read: the states that it may be in."""

    def __init__(self, job: int, *, complete: bool) -> None:
        self.possible: Collection[JobState] = ()
        """Empty until an event told of the job."""
        self.starts = 0
        self._job = job
        self._complete = complete
        self._seq = 0

    def take(self, event: Told) -> Iterator[Finding]:
        """Let an event happen; yield what is wrong with that."""
        if event.seq <= self._seq:
            yield self._finding(f"event {event.seq} follows event {self._seq}")
        self._seq = event.seq
        self.starts += event.type == STARTED
        if event.type == CREATED:
            if self.possible:
                yield self._finding(f"it was created again by event {event.seq}")
            self.possible = (JobState.READY,)
        elif event.type in _STEPS:
            yield from self._step(event, _STEPS[event.type])
        else:
            yield self._finding(f"event {event.seq} is a {event.type}, which nothing writes")

    def _step(self, event: Told, steps: Mapping[JobState, JobState]) -> Iterator[Finding]:
        if not self.possible:
            if self._complete:
                yield self._finding(f"it begins with {event.type}, event {event.seq}")
            self.possible = tuple(JobState)
        following = {steps[state] for state in self.possible if state in steps}
        if not following:
            was = self.described()
            yield self._finding(f"{event.type}, event {event.seq}, cannot follow: it was {was}")
            # From here on the event is believed, so that one mistake is one finding.
            following = set(steps.values())
        self.possible = following

    def described(self) -> str:
        """Return the states for a message."""
        return " or ".join(sorted(self.possible))

    def _finding(self, text: str) -> Finding:
        return Finding(self._job, text)


def audit_job(
    job: int, events: Iterable[Told], row: Found | None, *, complete: bool
) -> Iterator[Finding]:
    """Yield what is wrong with a job.

    `events` are those that are held, by `seq`; `row` is None where the ledger has none any more;
    `complete` says that no event was ever forgotten, of this job or another.
    """
    replay = _Replay(job, complete=complete)
    for event in events:
        if event.type.startswith(PREFIX):
            yield from replay.take(event)
    if row is None:
        if replay.possible and not TERMINAL.intersection(replay.possible):
            yield Finding(job, f"it is gone, and was {replay.described()}")
        return
    if not replay.possible:
        if complete:
            yield Finding(job, f"it is {row.state}, and no event tells of it")
    elif row.state not in replay.possible:
        yield Finding(job, f"it is {row.state}, and by its events {replay.described()}")
    elif complete and row.claim != replay.starts:
        told = f"{replay.starts} events tell of that"
        yield Finding(job, f"it was started {row.claim} times, and {told}")


def audit_followers(job: int, row: Found, *, newest: int) -> Iterator[Finding]:
    """Yield the followers of a job that never were; `newest` is the highest number ever given.

    One that is not there any more was forgotten: it had ended, or `audit_job` finds it.
    """
    for follower in row.followed_by:
        if not 0 < follower <= newest:
            yield Finding(job, f"it is followed by job {follower}, which never was")
