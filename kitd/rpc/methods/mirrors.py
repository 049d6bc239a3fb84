"""`mirrors.*`: what is copied between registries, how that stands, and copying now."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated

import msgspec

from kitd.clock import rfc3339
from kitd.config.quantity import format_duration
from kitd.errors import NotFoundError
from kitd.jobs.mirror.kind import MIRROR
from kitd.jobs.survey import SURVEY
from kitd.ledger.job_ledger import JobFilter
from kitd.ledger.mirror_ledger import EdgeRow, RuleCounts
from kitd.mirror.order import MirrorOrder, MirrorWish, Selection, TargetOrder
from kitd.mirror.route import TAG
from kitd.mirror.rule import Rule
from kitd.mirror.schedule import Interval, Schedule
from kitd.oci.reference import Reference, parse_reference
from kitd.oci.repository_glob import canonical
from kitd.queue.fact import MirrorAsked, MirrorDue
from kitd.queue.job import JobRequest, JobState
from kitd.rpc.error import DeniedError, InvalidParamsError
from kitd.rpc.fairness import Cost
from kitd.rpc.method import Context, Method, Params, method
from kitd.rpc.methods.access import is_admin, require_mirrorable, require_surveyor
from kitd.rpc.methods.ask import ask, enqueue
from kitd.rpc.methods.idempotency import Idempotent
from kitd.rpc.methods.services import Services, StartTimes
from kitd.rpc.methods.wire import Nothing, Queued, WireJob, wire_job
from kitd.rpc.peer import Role

_MAX_RUNNING = 200
"""Jobs that are looked through for those of mirrors."""
Glob = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class WireMirror(msgspec.Struct, frozen=True, kw_only=True):
    """A mirror of the configuration and how it stands. Times are RFC 3339, UTC.

    `targets` have their template of tags after a colon, where it is not that of the source's own
    names. `edges` are tags at targets: so many are known, `failed` when last tried, are in
    `conflicts`, are `gone` from the source.
    """

    name: str
    source: str
    repositories: tuple[str, ...]
    targets: tuple[str, ...]
    schedule: str | None
    last_started: str | None
    """By its schedule."""
    next_start: str | None
    edges: int
    failed: int
    conflicts: int
    gone: int
    last_equal: str | None
    """When a target was last seen to have what the source has."""
    running: tuple[int, ...]
    """Its jobs that run now."""


class MirrorList(msgspec.Struct, frozen=True):
    """All mirrors, in the order of the configuration."""

    mirrors: tuple[WireMirror, ...]


class EdgeQuery(Params, frozen=True, kw_only=True):
    """One mirror, and how many of its edges."""

    name: str
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100


class WireConflict(msgspec.Struct, frozen=True):
    """What both ends named when both had moved on."""

    source_digest: str
    target_digest: str


class WireEdgeError(msgspec.Struct, frozen=True):
    """Why a tag could not be copied when that was last tried."""

    code: str
    message: str


class WireEdge(msgspec.Struct, frozen=True, kw_only=True):
    """A tag of a source and the one of a target that follows it. Times are RFC 3339, UTC.

    Both ends are without a tag where all of a source could not be looked at.

    `state` is `failed`, `conflict`, `gone` (from the source), `equal` or, where the ends were never
    seen equal, `unknown`; `digest` is what both named when they were.
    """

    source: str
    target: str
    state: str
    digest: str | None
    last_equal: str | None
    gone_since: str | None
    conflict: WireConflict | None
    error: WireEdgeError | None


class EdgeList(msgspec.Struct, frozen=True):
    """Edges, those in trouble first; `total` is how many tags there are at targets."""

    edges: tuple[WireEdge, ...]
    total: int


class RunParams(Idempotent, frozen=True, kw_only=True):
    """A mirror, and how it is to go about it this time.

    With `thorough` both ends are looked at, whatever is remembered of them; `allow_deletes` agrees
    to deletions that look like an accident, and is for admins.
    """

    name: str
    dry_run: bool = False
    thorough: bool = False
    allow_deletes: bool = False


class Started(msgspec.Struct, frozen=True):
    """The jobs that do it; one of kind `survey` names those that it leads to in `followed_by`."""

    jobs: tuple[WireJob, ...]


class CopyParams(Idempotent, frozen=True, kw_only=True):
    """Both ends of a copy: repositories, or one tag and what it is called at the target.

    `tags` are globs of the tags that are meant; all without them.
    """

    source: str
    target: str
    tags: Annotated[tuple[Glob, ...], msgspec.Meta(max_length=64)] = ()
    dry_run: bool = False


async def list_mirrors(context: Context[Services], params: Nothing) -> MirrorList:
    """List the mirrors of the configuration and how they stand."""
    services = context.services
    counts = await services.mirror_ledger.counts()
    starts = await services.mirrors.start_times()
    running = await _running(services)
    return MirrorList(
        tuple(
            _wire_mirror(
                rule,
                counts.get(rule.name, RuleCounts(0, 0, 0, 0, None)),
                starts.get(rule.name, StartTimes()),
                running.get(rule.name, ()),
            )
            for rule in services.mirrors.rules
        )
    )


async def edges(context: Context[Services], params: EdgeQuery) -> EdgeList:
    """List what is known of the tags of a mirror, those in trouble first."""
    services = context.services
    rule = _find(services.mirrors.rules, params.name)
    rows = await services.mirror_ledger.rows(rule.name, params.limit)
    counts = (await services.mirror_ledger.counts()).get(rule.name)
    return EdgeList(tuple(map(_wire_edge, rows)), 0 if counts is None else counts.edges)


async def run(context: Context[Services], params: RunParams) -> Started:
    """Look now at all that a mirror concerns, and copy what is missing."""
    mirrors = context.services.mirrors
    rule = _find(mirrors.rules, params.name)
    if params.allow_deletes and not is_admin(context):
        raise DeniedError(
            f"deletions of the mirror {rule.name} that look like an accident are allowed by admins",
            hint="run it without them, or ask an admin of kitd",
        )
    wish = MirrorWish(
        thorough=params.thorough, dry_run=params.dry_run, allow_deletes=params.allow_deletes
    )
    requests = mirrors.follow(MirrorDue(rule=rule.name, wish=wish, by_person=True))
    for request in requests:
        _require_allowed(context, request)
    return Started(tuple([wire_job(await enqueue(context, request)) for request in requests]))


async def copy(context: Context[Services], params: CopyParams) -> Queued:
    """Copy tags of one repository to another, between registries."""
    source, target = parse_reference(params.source), parse_reference(params.target)
    _require_copyable(source, target)
    if source.tag is None and target.tag is not None:
        raise InvalidParamsError(
            f"{target} is one tag, and {source} names all of its own",
            hint=f"name one of the source's too: {source}:{target.tag}",
        )
    if source.tag is not None and params.tags:
        raise InvalidParamsError(
            f"{source} is one tag already", hint="leave it out, or leave out --tags"
        )
    order = MirrorOrder(
        rule=None,
        source=str(source.repository),
        target=TargetOrder(repository=str(target.repository), tag=target.tag or TAG),
        tags=None if source.tag is None else (source.tag,),
        select=Selection(include=params.tags) if params.tags else Selection(),
        wish=MirrorWish(dry_run=params.dry_run),
    )
    require_mirrorable(context, order)
    return await ask(context, MirrorAsked(order))


def _require_copyable(source: Reference, target: Reference) -> None:
    for end, text in ((source, "source"), (target, "target")):
        if end.digest is not None:
            raise InvalidParamsError(
                f"{end} is no {text} of a mirror: it names a digest", hint="name a tag, or none"
            )
        if end.repository.is_local:
            raise InvalidParamsError(
                f"{end} names no registry",
                hint=f"name one, such as registry.example.com/{end.repository.name};"
                " what is in the cache is copied by kitctl push",
            )
    if canonical(source.repository) == canonical(target.repository):
        raise InvalidParamsError(
            f"{source.repository} is the source and the target", hint="name another target"
        )


def _require_allowed(context: Context[Services], request: JobRequest) -> None:
    """Check that the caller may have a job of a mirror done. Raises `DeniedError`."""
    if request.kind == MIRROR.name:
        require_mirrorable(context, msgspec.json.decode(request.args, type=MIRROR.args))
    else:
        require_surveyor(context)


def _find(rules: Sequence[Rule], name: str) -> Rule:
    """Return the mirror of a name. Raises `NotFoundError`."""
    for rule in rules:
        if rule.name == name:
            return rule
    near = get_close_matches(name[:80], [rule.name for rule in rules], n=1)
    raise NotFoundError(
        f"there is no mirror {name[:80]!r} in the configuration",
        hint=f"did you mean {near[0]}?" if near else "kitctl mirror list shows what there is",
    )


async def _running(services: Services) -> Mapping[str, tuple[int, ...]]:
    """Return the jobs that run, by the mirror that they are of."""
    found: dict[str, tuple[int, ...]] = {}
    for kind in (MIRROR, SURVEY):
        wanted = JobFilter(state=JobState.RUNNING, kind=kind.name, limit=_MAX_RUNNING)
        for job in await services.jobs.list(wanted):
            rule = msgspec.json.decode(job.args, type=kind.args).rule
            if rule is not None:
                found[rule] = (*found.get(rule, ()), job.id)
    return found


def _wire_mirror(
    rule: Rule, counts: RuleCounts, starts: StartTimes, running: tuple[int, ...]
) -> WireMirror:
    return WireMirror(
        name=rule.name,
        source=rule.route.source,
        repositories=rule.route.repositories,
        targets=tuple(
            target.repository if target.tag == TAG else f"{target.repository}:{target.tag}"
            for target in rule.route.targets
        ),
        schedule=_schedule_text(rule.schedule),
        last_started=_time(starts.last_us),
        next_start=_time(starts.next_us),
        edges=counts.edges,
        failed=counts.failed,
        conflicts=counts.conflicts,
        gone=counts.gone,
        last_equal=_time(counts.equal_us),
        running=running,
    )


def _schedule_text(schedule: Schedule | None) -> str | None:
    """Return a schedule as the configuration has it."""
    if isinstance(schedule, Interval):
        return format_duration(schedule.every_s)
    return None if schedule is None else str(schedule)


def _wire_edge(row: EdgeRow) -> WireEdge:
    source, target = row.edge.ends
    error = None
    if row.error_code is not None:
        error = WireEdgeError(row.error_code, row.error_message or "")
    conflict = None if row.conflict is None else WireConflict(*row.conflict.split(" ", 1))
    return WireEdge(
        source=source,
        target=target,
        state=_state(row),
        digest=row.digest,
        last_equal=_time(row.equal_us),
        gone_since=_time(row.gone_us),
        conflict=conflict,
        error=error,
    )


def _state(row: EdgeRow) -> str:
    if row.error_code is not None:
        return "failed"
    if row.conflict is not None:
        return "conflict"
    if row.gone_us is not None:
        return "gone"
    return "unknown" if row.equal_us is None else "equal"


def _time(at_us: int | None) -> str | None:
    return None if at_us is None else rfc3339(at_us)


METHODS: tuple[Method[Services], ...] = (
    method("mirrors.list", Role.READ, Nothing, MirrorList, list_mirrors, cost=Cost.LEDGER),
    method("mirrors.edges", Role.READ, EdgeQuery, EdgeList, edges, cost=Cost.LEDGER),
    method("mirrors.run", Role.SUBMIT, RunParams, Started, run),
    method("mirrors.copy", Role.SUBMIT, CopyParams, Queued, copy),
)
