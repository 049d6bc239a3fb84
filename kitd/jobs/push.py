"""Push: copy a kit and what refers to it to a repository, then move its tags there.

What the cache was not given comes from where it is, unless the repository has it already.
"""

from functools import partial

import msgspec

from kitd.content.copy import copy_graph
from kitd.content.referrers import copy_referrers
from kitd.content.soundness import require_sound
from kitd.content.store import ContentNotFoundError, MismatchError
from kitd.jobs.port import Ports
from kitd.jobs.transfer import Bytes, TransferResult
from kitd.oci.reference import Reference, parse_repository
from kitd.queue.effect import Emit, RecordLocation
from kitd.queue.fact import RepositoryChanged
from kitd.queue.job import Lane, Progress
from kitd.queue.kind import Done, JobContext, JobKind
from kitd.queue.retry import RetryPolicy


class PushArgs(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest of the cache, by the repository it is known in, and where it goes."""

    source: str
    digest: str
    target: str
    tags: tuple[str, ...]


async def run(args: PushArgs, context: JobContext, ports: Ports) -> Done:
    """Push once. Raises `KitdError`."""
    source, target = parse_repository(args.source), parse_repository(args.target)
    root = await ports.catalog.resolve(source, args.digest)
    remote = await ports.remote(target)

    def progress(done_bytes: int, total_bytes: int) -> None:
        context.report(Progress("pushing", done_bytes, total_bytes))

    try:
        report = await copy_graph(
            ports.reach, remote, root, concurrency=ports.transfers, progress=progress
        )
    except MismatchError:
        # On the way it may have been changed by chance, and another try may do; here it stays so.
        await require_sound(ports.cache, root)
        raise
    mounted_bytes = remote.mounted_bytes
    skipped_bytes = report.skipped_bytes - mounted_bytes
    # Before the tags: who finds the kit by name finds its signatures, too.
    referred = await copy_referrers(
        ports.reach,
        remote,
        report.manifests,
        listed=partial(ports.catalog.referrers, source),
        resolve=partial(ports.catalog.resolve, source),
        concurrency=ports.transfers,
    )
    # Something may have been mounted for a referrer that was refused, which no report has.
    mounted_bytes = remote.mounted_bytes - mounted_bytes
    skipped_bytes += max(referred.skipped_bytes - mounted_bytes, 0)
    moved, notes = [], list(referred.notes)
    for tag in args.tags:
        # A push that had to wait must not move a tag back that has gone on since.
        current = await _tagged(ports, args, tag)
        if source == target and current not in (None, args.digest):
            notes.append(f"{tag} names {current} by now and was left alone")
            continue
        await remote.tag(root, tag)
        moved.append(tag)
    locations = [
        RecordLocation(node.digest, target) for node in (*report.manifests, *referred.manifests)
    ]
    reference = Reference(target, tag=moved[0]) if moved else Reference(target, digest=root.digest)
    return Done(
        TransferResult(
            digest=root.digest,
            reference=str(reference),
            tags=tuple(moved),
            bytes=Bytes(
                sent=report.sent_bytes + referred.sent_bytes,
                mounted=remote.mounted_bytes,
                skipped=skipped_bytes,
            ),
            referrers=len(referred.copies),
            notes=tuple(notes),
        ),
        (
            *locations,
            Emit("kit.pushed", f"kit:{root.digest}", {"repository": str(target), "tags": moved}),
        ),
        (RepositoryChanged(repository=target, tags=tuple(moved)),) if moved else (),
    )


async def _tagged(ports: Ports, args: PushArgs, tag: str) -> str | None:
    try:
        return (await ports.catalog.resolve(parse_repository(args.source), tag)).digest
    except ContentNotFoundError:
        return None


def _key(args: PushArgs) -> str:
    # The newest kit takes over a waiting push to the same names; one without names is its own.
    return f"{args.target}:{','.join(args.tags)}" if args.tags else f"{args.target}@{args.digest}"


PUSH: JobKind[PushArgs, Ports] = JobKind(
    name="push",
    lane=Lane.PUSH,
    args=PushArgs,
    retry=RetryPolicy(max_attempts=20),
    key=_key,
    # One at a time in a repository: tags move in the order in which they were asked to.
    lock=lambda args: args.target,
    run=run,
    needs=lambda args: args.digest,
)
