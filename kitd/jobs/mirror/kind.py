"""Mirror: let tags of one repository follow those of another, with all that they name.

A tag moves last, once everything below it is there, and what is remembered of both ends keeps those
from being asked who have nothing new to say. A source that goes to several targets is read once:
see `kitd.content.shared`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from kitd.errors import Disposition, KitdError
from kitd.jobs.mirror.attempt import Attempt
from kitd.jobs.mirror.departed import note_departures, remove_departed
from kitd.jobs.mirror.find import Finder
from kitd.jobs.mirror.follow import Follower
from kitd.jobs.mirror.report import Report
from kitd.jobs.mirror.signed import refer_again, refer_as_told
from kitd.jobs.mirror.source import MirrorSource, Pulls
from kitd.jobs.mirror.target import MirrorTarget
from kitd.jobs.port import Ports
from kitd.mirror.edge import Edge, Removed
from kitd.mirror.order import AS_USUAL, MirrorOrder
from kitd.oci.reference import parse_repository
from kitd.oci.repository_glob import canonical
from kitd.queue.job import Lane
from kitd.queue.kind import HUMAN, Done, JobContext, JobKind
from kitd.queue.retry import RetryPolicy


async def run(order: MirrorOrder, context: JobContext, ports: Ports) -> Done:
    """Mirror once. Raises `KitdError`."""
    repository, where = parse_repository(order.source), parse_repository(order.target.repository)
    report = Report(order, context, ports.mirrors)
    memory = await ports.mirrors.edges(repository, where, order.tags)
    whole = Edge(repository, "", where, "")
    async with _told_of(report, whole, order):
        origin, remote = await ports.mirror_remote(repository), await ports.mirror_remote(where)
    pulls = Pulls(origin, repository.registry, leaves=context.job.priority < HUMAN)
    async with ports.reads.open(canonical(repository), pulls, by_many=order.by_many) as content:
        attempt = Attempt(
            order,
            MirrorSource(repository, origin, content, pulls, by_many=order.by_many),
            MirrorTarget(
                repository, where, order.target.tag, remote, memory, transfers=ports.transfers
            ),
            report,
            ports.mirrors,
            ports.clock.now_us,
        )
        finder = Finder(attempt)
        async with _told_of(report, whole, order):
            names = await finder.names()
        if attempt.sees_all and await ports.mirrors.had_no_source(repository, where):
            await report.note(Removed(whole))
        follower = Follower(attempt, finder)
        async for found in finder.batches(names):
            await follower.follow(found)
            await refer_again(attempt, found)
        await refer_as_told(attempt)
        await finder.ease(names)
        if not finder.is_absent:
            await note_departures(attempt, finder.gone)
            await remove_departed(attempt, finder.gone)
    moved_bytes = attempt.target.moved()
    if report.has_failed:
        raise report.error(moved_bytes)
    left = follower.left()
    return Done(report.result(moved_bytes), facts=() if left is None else (left,))


@asynccontextmanager
async def _told_of(report: Report, whole: Edge, order: MirrorOrder) -> AsyncIterator[None]:
    """Write down what keeps a mirror from beginning: else nobody would come back to it."""
    try:
        yield
    except KitdError as error:
        is_its_own = error.disposition in (Disposition.FAIL, Disposition.RETRY)
        if order.rule is not None and is_its_own:
            await report.fail(error, (whole,))
        raise


def _key(order: MirrorOrder) -> str:
    kind = "plan" if order.wish.dry_run else "mirror"
    if order.wish != AS_USUAL:
        # What a person wishes for is not served by what is done as usual.
        kind += f" {msgspec.json.encode(order.wish).decode()}"
    if order.rule is None:
        # Nothing but the same wish stands for what a person asked for.
        return f"{kind} {msgspec.json.encode(order).decode()}"
    what = ",".join((*(order.tags or ()), *order.manifests)) or "*"
    target = f"{order.target.repository}:{order.target.tag}"
    return f"{kind} {order.rule} {order.source} {target} {what}"


def _lock(order: MirrorOrder) -> str:
    # Mirrors that carry to each other take turns: neither sees half of what the other does.
    ends = sorted((order.source, order.target.repository))
    return " ".join(ends) + (" plan" if order.wish.dry_run else "")


MIRROR: JobKind[MirrorOrder, Ports] = JobKind(
    name="mirror",
    lane=Lane.MIRROR,
    args=MirrorOrder,
    retry=RetryPolicy(max_attempts=20),
    key=_key,
    lock=_lock,
    run=run,
    mirror=lambda args: args.rule,
)
