"""The shapes that several methods answer with. The names are the contract with users."""

from collections.abc import Mapping

import msgspec

from kitd.clock import rfc3339
from kitd.queue.job import Failure, Job, Progress
from kitd.rpc.method import Params


class Nothing(Params, frozen=True):
    """No parameters."""


class WireProgress(msgspec.Struct, frozen=True):
    """How far a running job is; `total` is 0 where it is not known."""

    phase: str
    bytes: int
    total: int


class WireFailure(msgspec.Struct, frozen=True):
    """Why the last attempt ended."""

    code: str
    message: str
    hint: str | None


class WireJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job. Times are RFC 3339, UTC."""

    id: int
    kind: str
    state: str
    project: str | None
    reference: str | None
    attempt: int
    max_attempts: int
    created: str
    started: str | None
    finished: str | None
    run_at: str | None
    progress: WireProgress | None
    result: msgspec.Raw | None
    error: WireFailure | None
    superseded_by: int | None
    followed_by: tuple[int, ...]


def _time(at_us: int | None) -> str | None:
    return None if at_us is None else rfc3339(at_us)


def _failure(failure: Failure | None) -> WireFailure | None:
    return None if failure is None else WireFailure(failure.code, failure.message, failure.hint)


def wire_job(job: Job, progress: Progress | None = None) -> WireJob:
    """Return a job as callers see it."""
    reported = None
    if progress is not None:
        reported = WireProgress(progress.phase, progress.done_bytes, progress.total_bytes)
    return WireJob(
        id=job.id,
        kind=job.kind,
        state=job.state,
        project=job.project,
        reference=job.reference,
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        created=rfc3339(job.created_us),
        started=_time(job.started_us),
        finished=_time(job.finished_us),
        run_at=_time(job.run_at_us) if job.state == "scheduled" else None,
        progress=reported,
        result=None if job.result is None else msgspec.Raw(job.result),
        error=_failure(job.error),
        superseded_by=job.superseded_by,
        followed_by=job.followed_by,
    )


class Queued(msgspec.Struct, frozen=True):
    """The job that does it."""

    job: WireJob


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a new configuration: the keys that changed, or why nothing did."""

    applied: bool
    changed: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class Empty(msgspec.Struct, frozen=True):
    """Nothing to tell but that it is done."""


class WireLogins(msgspec.Struct, frozen=True, kw_only=True):
    """Where kitd, which runs as user `uid`, looks for the credentials of a registry.

    `source` is `docker` (what a login left in one of `files`, the first that has one), `file` (one
    that the configuration names) or `anonymous`.
    """

    uid: int
    source: str
    files: tuple[str, ...]


class WireHold(msgspec.Struct, frozen=True, kw_only=True):
    """What holds a project back: a gate, the file in question, and the gate's finding."""

    gate: str
    path: str
    detail: str


class WireProject(msgspec.Struct, frozen=True, kw_only=True):
    """A project and what it is doing."""

    name: str
    path: str
    reference: str
    tags: tuple[str, ...]
    push: bool
    state: str
    reason: str | None
    holds: tuple[WireHold, ...]
    warnings: tuple[str, ...]
    last_digest: str | None
    last_packed: str | None
    last_job: int | None
    source: str


class WireCache(msgspec.Struct, frozen=True, kw_only=True):
    """The shared blob cache, in bytes.

    `physical_bytes` is what the blobs take on disk, each once; `logical_bytes` what they would take
    if every kit had its own; `shared_bytes` the difference; `evictable_bytes` what could go, if the
    limits had no room for anything that nothing speaks for.
    """

    blobs: int
    physical_bytes: int
    logical_bytes: int
    shared_bytes: int
    evictable_bytes: int


class WireReason(msgspec.Struct, frozen=True):
    """Why the daemon cannot do all of its work, and the command or the deed that mends it."""

    code: str
    text: str
    fix: str


class WireCheck(msgspec.Struct, frozen=True):
    """One thing that was looked at; `fix` is what mends it where it is not `ok`."""

    name: str
    ok: bool
    detail: str
    fix: str | None


Facts = Mapping[str, object]
