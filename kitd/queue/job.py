"""A job: one row of the ledger, one thing to be done, at most one attempt at a time."""

import enum
from dataclasses import dataclass, field


class JobState(enum.StrEnum):
    """Where a job is. The transitions are in `kitd.queue.transition`."""

    SCHEDULED = "scheduled"
    READY = "ready"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


WAITING = frozenset({JobState.SCHEDULED, JobState.READY})
TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.SUPERSEDED})


class Lane(enum.StrEnum):
    """Which slots a job uses; `workers:` in the configuration says how many each lane has."""

    PACK = "pack"
    PUSH = "push"
    PULL = "pull"
    MIRROR = "mirror"
    COLLECT = "collect"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt ended, as a person will read it."""

    code: str
    message: str
    hint: str | None = None
    result: bytes | None = None
    """What became of the parts that the attempt had, where it had some: a result, as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """A wish for a job. Equal wishes become one job: see `kitd.queue.transition.admit`."""

    kind: str
    lane: Lane
    key: str
    """At most one job of this key waits."""
    lock: str
    """At most one job of this lock runs."""
    args: bytes
    """The kind's arguments, JSON with sorted keys: equal bytes are equal wishes."""
    max_attempts: int
    project: str | None = None
    reference: str | None = None
    priority: int = 0
    """Higher runs first; people's requests are above automatic ones."""
    why: str = ""
    """What asked for it, for people: the job's first event says so."""
    asked_by: int | None = None
    """The user id of the person who asked for it; None where kitd did."""
    needs: str | None = None
    """The manifest that has to stay in the cache until the job has ended."""
    mirror: str | None = None
    """The mirror of the configuration that it is a part of."""

    @property
    def owner(self) -> str:
        """Behind whose other jobs it waits: its project's, else those of whoever asked for it.

        What nobody asked for waits behind the rest of its mirror, and behind nothing of another.
        """
        if self.project is not None:
            return f"project:{self.project}"
        if self.asked_by is not None:
            return f"user:{self.asked_by}"
        return "kitd" if self.mirror is None else f"mirror:{self.mirror}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as the ledger holds it. Times are microseconds since the epoch, UTC."""

    id: int
    kind: str
    lane: Lane
    key: str
    lock: str
    state: JobState
    args: bytes
    project: str | None
    reference: str | None
    priority: int
    attempt: int
    """Attempts that were started and not interrupted by kitd itself."""
    max_attempts: int
    run_at_us: int
    created_us: int
    started_us: int | None = None
    finished_us: int | None = None
    epoch: int | None = None
    """The daemon's life in which the running attempt was started: half of its fence."""
    claim: int = 0
    """Counts every start, burned or not: the other half of the fence."""
    cancel_requested: bool = False
    result: bytes | None = None
    error: Failure | None = None
    superseded_by: int | None = None
    followed_by: tuple[int, ...] = ()
    """The jobs that its end asked for."""
    crashes: int = 0
    """Deaths of kitd or of its worker while it ran, since an attempt last ended in good order."""
    asked_by: int | None = None
    needs: str | None = None
    owner: str = ""
    turn: int = 0
    """Among those of its lane and priority the job with the lowest runs first."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running attempt is; in memory only."""

    phase: str
    done_bytes: int = 0
    total_bytes: int = 0


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """Jobs by state, for people."""

    by_state: dict[JobState, int] = field(default_factory=dict)

    def of(self, state: JobState) -> int:
        """Return how many jobs are in `state`."""
        return self.by_state.get(state, 0)
