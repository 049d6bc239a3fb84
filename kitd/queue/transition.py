"""The job's state machine, as a table.

The ledger's CHECK constraints and partial indexes mirror it; a property test walks it, and holds
the ledger's SQL to it where that picks jobs by itself.
"""

import enum
from collections.abc import Mapping

from kitd.errors import KitdError
from kitd.queue.job import Job, JobRequest, JobState


class Signal(enum.StrEnum):
    """What can happen to a job."""

    DUE = "due"
    """Its time has come."""
    CLAIM = "claim"
    """A slot took it."""
    SUCCEED = "succeed"
    FAIL = "fail"
    """It cannot be done, or its attempts are used up."""
    BACK_OFF = "back_off"
    """This attempt failed; there will be another."""
    INTERRUPT = "interrupt"
    """kitd stopped or died under it: not its fault, runs again at once."""
    CANCEL = "cancel"
    SUPERSEDE = "supersede"
    """A newer wish took its place before it began."""
    RETRY = "retry"
    """A person asked for it again."""


_S = JobState
TRANSITIONS: Mapping[tuple[JobState, Signal], JobState] = {
    (_S.SCHEDULED, Signal.DUE): _S.READY,
    (_S.SCHEDULED, Signal.CANCEL): _S.CANCELLED,
    (_S.SCHEDULED, Signal.SUPERSEDE): _S.SUPERSEDED,
    (_S.READY, Signal.CLAIM): _S.RUNNING,
    (_S.READY, Signal.CANCEL): _S.CANCELLED,
    (_S.READY, Signal.SUPERSEDE): _S.SUPERSEDED,
    (_S.RUNNING, Signal.SUCCEED): _S.SUCCEEDED,
    (_S.RUNNING, Signal.FAIL): _S.FAILED,
    (_S.RUNNING, Signal.BACK_OFF): _S.SCHEDULED,
    (_S.RUNNING, Signal.INTERRUPT): _S.READY,
    (_S.RUNNING, Signal.CANCEL): _S.CANCELLED,
    (_S.RUNNING, Signal.SUPERSEDE): _S.SUPERSEDED,
    (_S.FAILED, Signal.RETRY): _S.READY,
    (_S.CANCELLED, Signal.RETRY): _S.READY,
}
"""`running` + `supersede` happens when an attempt wants to come back while a newer job waits, and
when it steps aside because its reason is gone."""


class IllegalTransitionError(KitdError):
    """The job's state does not allow this."""

    code = "conflict"


class FencedError(KitdError):
    """The attempt is no longer the job's current one; its outcome is dropped."""

    code = "fenced"


def step(state: JobState, signal: Signal) -> JobState:
    """Return the state that follows. Raises `IllegalTransitionError`."""
    following = TRANSITIONS.get((state, signal))
    if following is None:
        raise IllegalTransitionError(f"a job that is {state} cannot {signal.replace('_', ' ')}")
    return following


class Admission(enum.Enum):
    """What becomes of a wish when a job of the same key waits already."""

    INSERT = enum.auto()
    """Nothing waits: a new job."""
    JOIN = enum.auto()
    """The waiting job does the same: it will serve both."""
    REPLACE = enum.auto()
    """The waiting job is out of date: it is superseded by a new one."""
    REFUSE = enum.auto()
    """A job that does the same was set aside, and nobody but kitd itself asks for it again."""


def admit(request: JobRequest, waiting: Job | None, set_aside: Job | None) -> Admission:
    """Decide how a wish meets the jobs of the same key: one that waits, one that was set aside."""
    if waiting is not None:
        return Admission.JOIN if waiting.args == request.args else Admission.REPLACE
    if set_aside is not None and set_aside.args == request.args and request.asked_by is None:
        return Admission.REFUSE
    return Admission.INSERT
