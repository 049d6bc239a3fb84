"""`system.*`: who the daemon is, how it is, what it can do, and why things are as they are."""

import os
from collections.abc import Iterator

import msgspec

from kitd import __version__
from kitd.clock import rfc3339
from kitd.errors import KitdError, NotFoundError
from kitd.jobs.mirror.kind import MIRROR
from kitd.jobs.mirror.report import MirrorResult
from kitd.oci.digest import Digest, InvalidDigestError, parse_digest
from kitd.queue.job import JobState
from kitd.rpc.fairness import Cost
from kitd.rpc.method import Context, Method, Params, method
from kitd.rpc.methods.cache import stats
from kitd.rpc.methods.idempotency import Idempotent
from kitd.rpc.methods.services import Services
from kitd.rpc.methods.wire import (
    Empty,
    Facts,
    Nothing,
    Reloaded,
    WireCache,
    WireCheck,
    WireProject,
    WireReason,
)
from kitd.rpc.peer import Role
from kitd.store.blob_store import StoreError

SHORT_DIGITS, MAX_DIGITS = 12, 64
"""Digits of a digest that tables show, and that there are."""
MAX_EDGES = 20
"""Tags that `why` tells of."""
CACHE_AGE_S = 60.0
"""How old what `status` says of what could be collected may be."""


class Hello(Params, frozen=True):
    """Who calls, for the log."""

    client: str | None = None


class Greeting(msgspec.Struct, frozen=True, kw_only=True):
    """Which daemon answers: `instance` names the ledger, `epoch` this start."""

    protocol: int
    version: str
    instance: str
    epoch: int
    role: str
    head_seq: int


class Health(msgspec.Struct, frozen=True):
    """Whether the daemon takes work, and what hinders it."""

    ready: bool
    degraded: tuple[WireReason, ...]


class Examination(Params, frozen=True):
    """Whether the history of every job is to be replayed as well, which may take a minute."""

    audit: bool = False


class Findings(msgspec.Struct, frozen=True):
    """Everything that was looked at."""

    checks: tuple[WireCheck, ...]


class WireDaemon(msgspec.Struct, frozen=True, kw_only=True):
    """The process. `state` is `ready`, `degraded` or `stopping`."""

    version: str
    instance: str
    pid: int
    state: str
    uptime_s: float


class WireQueue(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs by state."""

    ready: int
    running: int
    scheduled: int
    failed: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at a glance."""

    daemon: WireDaemon
    projects: tuple[WireProject, ...]
    queue: WireQueue
    cache: WireCache | None
    """None where its disk cannot be looked at; `degraded` says why."""
    degraded: tuple[str, ...]


class Subject(Params, frozen=True):
    """A project's name, a job's id, a digest or its first twelve digits and more."""

    subject: str


class Why(msgspec.Struct, frozen=True):
    """The reasons, each with a `text` for people and facts for programs."""

    subject: str
    reasons: tuple[Facts, ...]


async def hello(context: Context[Services], params: Hello) -> Greeting:
    """Introduce oneself and learn which daemon this is."""
    services = context.services
    return Greeting(
        protocol=1,
        version=__version__,
        instance=services.life.instance,
        epoch=services.life.epoch,
        role=context.access.role.label,
        head_seq=await services.events.head_seq(),
    )


async def ping(context: Context[Services], params: Nothing) -> Empty:
    """Answer at once."""
    return Empty()


async def health(context: Context[Services], params: Nothing) -> Health:
    """Tell whether the daemon takes work, what hinders it, and what mends that."""
    services = context.services
    reasons = await services.doctor.reasons(await services.projects.list())
    return Health(not services.stopping(), tuple(reasons))


async def doctor(context: Context[Services], params: Examination) -> Findings:
    """Look at the daemon and all that it needs, and say what mends what is wrong."""
    return Findings(tuple(await context.services.doctor.examine(audit=params.audit)))


async def status(context: Context[Services], params: Nothing) -> Status:
    """Tell how the daemon, its projects, its queue and its cache are."""
    services = context.services
    projects = tuple(await services.projects.list())
    degraded = tuple(reason.text for reason in await services.doctor.reasons(projects))
    state = "stopping" if services.stopping() else "degraded" if degraded else "ready"
    counts = await services.jobs.counts()
    return Status(
        daemon=WireDaemon(
            version=__version__,
            instance=services.life.instance,
            pid=os.getpid(),
            state=state,
            uptime_s=round(services.monotonic_s() - services.started_s, 1),
        ),
        projects=projects,
        queue=WireQueue(
            ready=counts.of(JobState.READY),
            running=counts.of(JobState.RUNNING),
            scheduled=counts.of(JobState.SCHEDULED),
            failed=counts.of(JobState.FAILED),
        ),
        cache=await _cache(services),
        degraded=degraded,
    )


async def _cache(services: Services) -> WireCache | None:
    try:
        return await stats(services, max_age_s=CACHE_AGE_S)
    except StoreError:
        return None


async def reload(context: Context[Services], params: Idempotent) -> Reloaded:
    """Apply the configuration as it is now, as a whole or not at all."""
    return await context.services.reload()


async def why(context: Context[Services], params: Subject) -> Why:
    """Explain a project's state, a job's fate, or what a blob is kept for."""
    services, subject = context.services, params.subject
    if subject.isdecimal() and len(subject) < SHORT_DIGITS:
        reasons = await _why_job(services, int(subject))
    elif ":" in subject:
        reasons = await _why_blob(services, subject)
    else:
        try:
            reasons = await _why_project(services, subject)
        except NotFoundError:
            if (digest := await _digest_from(services, subject)) is None:
                raise
            reasons = await _why_blob(services, digest)
    return Why(subject, reasons)


async def _digest_from(services: Services, text: str) -> Digest | None:
    """Return the digest that begins with these digits, as tables show it; None if none does."""
    if not SHORT_DIGITS <= len(text) <= MAX_DIGITS or set(text) - set("0123456789abcdef"):
        return None
    found = await services.catalog.digests_from(f"sha256:{text}", limit=2)
    if len(found) > 1:
        raise KitdError(f"more than one digest begins with {text}", hint="write more of it")
    return found[0] if found else None


async def _why_project(services: Services, name: str) -> tuple[Facts, ...]:
    project = await services.projects.get(name)
    text = f"{name} is {project.state}"
    # What holds it back is the reason, and is told with all that does.
    if project.reason and not project.holds:
        text += f": {project.reason}"
    reasons: list[Facts] = [{"text": text, "state": project.state}]
    reasons += [
        {"text": f"{hold.path}: {hold.detail}", "gate": hold.gate, "path": hold.path}
        for hold in project.holds
    ]
    reasons += [{"text": f"warning: {warning}"} for warning in project.warnings]
    for job in await services.jobs.latest(name):
        text = f"job {job.id} ({job.kind}) {job.state}"
        if job.error is not None:
            text += f": {job.error.message}"
        reasons.append({"text": text, "job": job.id, "state": job.state})
    if len(reasons) == 1 and project.last_digest is None:
        reasons.append({"text": "nothing has been packed yet"})
    return tuple(reasons)


async def _why_job(services: Services, job_id: int) -> tuple[Facts, ...]:
    job = await services.jobs.job(job_id)
    text = f"job {job.id} ({job.kind}) is {job.state}, attempt {job.attempt} of {job.max_attempts}"
    reasons: list[Facts] = [{"text": text, "state": job.state}]
    if job.error is not None:
        reasons.append({"text": job.error.message, "code": job.error.code, "hint": job.error.hint})
    if job.kind == MIRROR.name and job.result is not None:
        reasons += _why_edges(msgspec.json.decode(job.result, type=MirrorResult))
    if job.superseded_by is not None:
        reasons.append({"text": f"job {job.superseded_by} took its place"})
    for event in await services.events.of_job(job_id):
        said = event.data.get("message") or event.data.get("why")
        text = f"{rfc3339(event.at_us)} {event.type}" + (f": {said}" if said else "")
        reasons.append({"text": text, "seq": event.seq})
    return tuple(reasons)


def _why_edges(result: MirrorResult) -> Iterator[Facts]:
    """Yield what stands in a mirror's way, tag by tag."""
    hindered = [edge for edge in result.edges if edge.why is not None]
    for edge in hindered[:MAX_EDGES]:
        text = f"{edge.source} -> {edge.target} {edge.action}: {edge.why}"
        yield {"text": text, "source": edge.source, "target": edge.target, "action": edge.action}
    if len(hindered) > MAX_EDGES:
        yield {"text": f"and {len(hindered) - MAX_EDGES} more tags"}


async def _why_blob(services: Services, text: str) -> tuple[Facts, ...]:
    try:
        digest = parse_digest(text)
    except InvalidDigestError as error:
        raise KitdError(
            f"{text[:80]} is no project, job or digest",
            hint="kitctl why takes a project's name, a job's number or a digest",
        ) from error
    names = await services.catalog.names_of(digest)
    size = services.store.size_of(digest)
    if not names and size is None:
        raise NotFoundError(f"{digest} is not in the cache")
    held = {"text": f"{size} bytes in the cache" if size is not None else "not in the cache"}
    decided = tuple(
        {"text": f"a collection would {'remove' if each.goes else 'keep'} it: {each.why}"}
        for each in (await services.collector.forecast()).decisions
        if each.digest == digest
    )
    places = await services.catalog.places(digest) if size is None else ()
    away = ({"text": f"it is in {place}", "repository": str(place)} for place in places)
    if not names:
        return (held, *decided)
    parts = ({"text": f"part of {name}", "reference": str(name)} for name in names)
    return (held, *parts, *away, *decided)


METHODS: tuple[Method[Services], ...] = (
    method("system.hello", Role.READ, Hello, Greeting, hello),
    method("system.ping", Role.READ, Nothing, Empty, ping),
    method("system.health", Role.READ, Nothing, Health, health, cost=Cost.OUTSIDE),
    method("system.status", Role.READ, Nothing, Status, status, cost=Cost.OUTSIDE),
    method("system.doctor", Role.READ, Examination, Findings, doctor, cost=Cost.OUTSIDE),
    method("system.reload", Role.ADMIN, Idempotent, Reloaded, reload),
    method("system.why", Role.READ, Subject, Why, why, cost=Cost.OUTSIDE),
)
