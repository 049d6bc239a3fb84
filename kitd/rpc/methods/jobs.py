"""`jobs.*`: how a job is doing, and what a person may do about it."""

import asyncio
from typing import Annotated

import msgspec

from kitd.blocking import uninterrupted
from kitd.ledger.job_ledger import JobFilter
from kitd.queue.job import TERMINAL, Job, JobState
from kitd.rpc.fairness import Cost
from kitd.rpc.method import Context, Method, Params, method
from kitd.rpc.methods.access import asked_today, require_own_job, require_reachable_again
from kitd.rpc.methods.events import wire_event
from kitd.rpc.methods.idempotency import Idempotent
from kitd.rpc.methods.services import Services
from kitd.rpc.methods.wire import WireJob, wire_job
from kitd.rpc.peer import Role
from kitd.rpc.subscription import Event

_STEP = 50
"""Jobs that are read at once."""
MAX_WAIT_MS = 24 * 3600 * 1000


class JobQuery(Params, frozen=True, kw_only=True):
    """Which jobs; `before` is the id that a former page ended with."""

    state: JobState | None = None
    kind: str | None = None
    project: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 50
    before: int | None = None


class JobId(Params, frozen=True):
    """One job."""

    id: int


class OwnJob(Idempotent, frozen=True, kw_only=True):
    """One job, to be changed."""

    id: int


class JobWait(Params, frozen=True):
    """One job, and how long to wait for its end."""

    id: int
    timeout_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_WAIT_MS)] | None = None


class JobPage(msgspec.Struct, frozen=True):
    """Jobs, newest first; events after `as_of_seq` may have changed them since."""

    jobs: tuple[WireJob, ...]
    as_of_seq: int


class JobEvents(msgspec.Struct, frozen=True):
    """What happened to one job, oldest first."""

    events: tuple[Event, ...]


def _wire(services: Services, job: Job) -> WireJob:
    return wire_job(job, services.running.progress_of(job.id))


async def list_jobs(context: Context[Services], params: JobQuery) -> JobPage:
    """List jobs, newest first."""
    services = context.services
    # Taken first: what happens in between is told twice rather than not at all.
    as_of_seq = await services.events.head_seq()
    found: list[WireJob] = []
    before, left = params.before, params.limit
    # Step by step, so that others have their turn in between.
    while left:
        wanted = JobFilter(
            state=params.state,
            kind=params.kind,
            project=params.project,
            before=before,
            limit=min(left, _STEP),
        )
        jobs = await services.jobs.list(wanted)
        found += (_wire(services, job) for job in jobs)
        if len(jobs) < wanted.limit:
            break
        before, left = jobs[-1].id, left - len(jobs)
    return JobPage(tuple(found), as_of_seq)


async def get(context: Context[Services], params: JobId) -> WireJob:
    """Show one job."""
    return _wire(context.services, await context.services.jobs.job(params.id))


async def wait(context: Context[Services], params: JobWait) -> WireJob:
    """Return a job once it has ended, or as it is when the time is over."""
    services = context.services
    delay_s = None if params.timeout_ms is None else params.timeout_ms / 1000
    try:
        async with asyncio.timeout(delay_s):
            while True:
                seq = await services.events.head_seq()
                job = await services.jobs.job(params.id)
                if job.state in TERMINAL:
                    break
                await services.events.wait(seq)
    except TimeoutError:
        job = await services.jobs.job(params.id)
    return _wire(services, job)


async def cancel(context: Context[Services], params: OwnJob) -> WireJob:
    """Cancel a job: at once if it waits, as soon as its attempt can be stopped if it runs."""
    await require_own_job(context, await context.services.jobs.job(params.id))
    # A caller who takes the call back must not leave an attempt that is marked and goes on.
    return _wire(context.services, await uninterrupted(_cancel(context.services, params.id)))


async def _cancel(services: Services, job_id: int) -> Job:
    job = await services.jobs.request_cancel(job_id)
    if job.state in TERMINAL:
        # It had not begun, so that no attempt tells of its end.
        services.projects.job_ended(job)
    else:
        services.running.cancel(job_id)
    return job


async def retry(context: Context[Services], params: OwnJob) -> WireJob:
    """Let a failed or cancelled job run again."""
    job = await context.services.jobs.job(params.id)
    await require_own_job(context, job)
    require_reachable_again(context, job)
    retried = await context.services.jobs.retry(params.id, asked_today(context, job))
    return _wire(context.services, retried)


async def log(context: Context[Services], params: JobId) -> JobEvents:
    """Tell what happened to a job."""
    await context.services.jobs.job(params.id)
    events = await context.services.events.of_job(params.id)
    return JobEvents(tuple(map(wire_event, events)))


METHODS: tuple[Method[Services], ...] = (
    method("jobs.list", Role.READ, JobQuery, JobPage, list_jobs, cost=Cost.LEDGER),
    method("jobs.get", Role.READ, JobId, WireJob, get),
    method("jobs.wait", Role.READ, JobWait, WireJob, wait),
    method("jobs.cancel", Role.SUBMIT, OwnJob, WireJob, cancel),
    method("jobs.retry", Role.SUBMIT, OwnJob, WireJob, retry),
    method("jobs.log", Role.READ, JobId, JobEvents, log, cost=Cost.LEDGER),
)
