"""Push: copy a kit and what refers to it to a repository, then move its tags there.

What the cache was not given comes from where it is, unless the repository has it already. The kits
that it builds on are looked for, and pushed where they are missing if that is asked for.
"""

from dataclasses import dataclass, replace
from functools import partial

import msgspec

from kitd.content.copy import copy_graph
from kitd.content.referrers import copy_referrers
from kitd.content.soundness import require_sound
from kitd.content.store import ContentNotFoundError, MismatchError
from kitd.errors import KitdError
from kitd.jobs.parents import parent_of
from kitd.jobs.port import Ports, Remote
from kitd.jobs.transfer import Bytes, TransferResult
from kitd.modelkit.chain import Trail
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import parse_digest
from kitd.oci.reference import Reference, Repository, parse_repository
from kitd.oci.repository_glob import parse_repository_glob
from kitd.queue.effect import Emit, RecordLocation
from kitd.queue.fact import RepositoryChanged
from kitd.queue.job import Lane, Progress
from kitd.queue.kind import Done, JobContext, JobKind
from kitd.queue.retry import RetryPolicy


class PushArgs(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest of the cache, the repository that knows what refers to it, and where it goes.

    `parents` are globs of the repositories in which the kits it builds on may be looked for.
    """

    source: str
    digest: str
    target: str
    tags: tuple[str, ...]
    parents: tuple[str, ...] = ()
    with_parents: bool = False
    """Whether those that are missing there are pushed as well."""


async def run(args: PushArgs, context: JobContext, ports: Ports) -> Done:
    """Push once. Raises `KitdError`."""
    # Whatever repository has it by now: what it needs is kept by digest.
    root = await ports.catalog.manifest(parse_digest(args.digest))
    try:
        return await _push(args, root, context, ports)
    except MismatchError:
        # On the way it may have been changed by chance, and another try may do; here it stays so.
        await require_sound(ports.cache, root)
        if args.with_parents:
            for parent in await _parents_here(root, ports):
                await require_sound(ports.cache, parent)
        raise


async def _parents_here(root: Descriptor, ports: Ports) -> list[Descriptor]:
    """Return the kits of the cache that a kit builds on, the nearest first, as far as they go."""
    found: list[Descriptor] = []
    trail = Trail.begin(digest=root.digest)
    try:
        reference = await parent_of(ports.cache, root)
        while reference is not None:
            trail = trail.to(reference)
            found.append(await ports.catalog.resolve(reference.repository, reference.identifier))
            trail = trail.at(found[-1].digest)
            reference = await parent_of(ports.cache, found[-1])
    except KitdError:
        # The next cannot be told: that one may be what is damaged.
        pass
    return found


async def _push(args: PushArgs, root: Descriptor, context: JobContext, ports: Ports) -> Done:
    source, target = parse_repository(args.source), parse_repository(args.target)
    missing, notes = await _missing_parents(args, root, ports)
    # Before the kit: who finds it finds what it builds on.
    parents = [await _push_parent(parent, context, ports) for parent in reversed(missing)]
    placed = [parent for parent, each in zip(reversed(missing), parents, strict=True) if each.named]
    remote = await ports.remote(target)
    copied = await _copy(source, root, target, remote, context, ports)
    notes += [note for each in (*parents, copied) for note in each.notes]
    moved = []
    for tag in args.tags:
        # A push that had to wait must not move a tag back that has gone on since.
        current = await _tagged(ports, args, tag)
        if source == target and current not in (None, args.digest):
            notes.append(f"{tag} names {current} by now and was left alone")
            continue
        await remote.tag(root, tag)
        moved.append(tag)
    reference = Reference(target, tag=moved[0]) if moved else Reference(target, digest=root.digest)
    changed = [
        RepositoryChanged(repository=parent.place.repository, tags=parent.tags)
        for parent in placed
        if parent.tags
    ]
    if moved:
        changed.append(RepositoryChanged(repository=target, tags=tuple(moved)))
    return Done(
        TransferResult(
            digest=root.digest,
            reference=str(reference),
            tags=tuple(moved),
            bytes=Bytes(
                sent=sum(each.sent_bytes for each in (*parents, copied)),
                mounted=sum(each.mounted_bytes for each in (*parents, copied)),
                skipped=sum(each.skipped_bytes for each in (*parents, copied)),
            ),
            referrers=sum(each.referrers for each in (*parents, copied)),
            parents=tuple(str(parent.place) for parent in reversed(placed)),
            notes=tuple(notes),
        ),
        (
            *(location for each in (*parents, copied) for location in each.locations),
            Emit("kit.pushed", f"kit:{root.digest}", {"repository": str(target), "tags": moved}),
        ),
        tuple(changed),
    )


@dataclass(frozen=True, slots=True)
class _Copied:
    """What one kit took, with its referrers."""

    sent_bytes: int
    mounted_bytes: int
    skipped_bytes: int
    referrers: int
    notes: tuple[str, ...]
    locations: tuple[RecordLocation, ...]
    named: bool = True
    """Whether it has the name under which it was to go there."""


async def _copy(
    source: Repository,
    root: Descriptor,
    target: Repository,
    remote: Remote,
    context: JobContext,
    ports: Ports,
) -> _Copied:
    """Copy a kit of the cache and what refers to it, and leave all tags alone."""

    def progress(done_bytes: int, total_bytes: int) -> None:
        context.report(Progress("pushing", done_bytes, total_bytes))

    report = await copy_graph(
        ports.reach, remote, root, concurrency=ports.transfers, progress=progress
    )
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
    return _Copied(
        sent_bytes=report.sent_bytes + referred.sent_bytes,
        mounted_bytes=remote.mounted_bytes,
        skipped_bytes=skipped_bytes,
        referrers=len(referred.copies),
        notes=referred.notes,
        locations=tuple(
            RecordLocation(node.digest, target) for node in (*report.manifests, *referred.manifests)
        ),
    )


@dataclass(frozen=True, slots=True)
class _Parent:
    """A kit of the cache that is missing where it would be looked for."""

    reference: Reference
    root: Descriptor
    place: Reference

    @property
    def tags(self) -> tuple[str, ...]:
        return () if self.place.tag is None else (self.place.tag,)


async def _push_parent(parent: _Parent, context: JobContext, ports: Ports) -> _Copied:
    remote = await ports.remote(parent.place.repository)
    source, target = parent.reference.repository, parent.place.repository
    copied = await _copy(source, parent.root, target, remote, context, ports)
    for tag in parent.tags:
        # Looked for once more: the kit may have been on its way for hours.
        there = await _named(remote, tag)
        if there is not None and there.digest != parent.root.digest:
            note = f"{parent.place} is {there.digest} by now, which is another, and was left alone"
            return replace(copied, notes=(*copied.notes, note), named=False)
        await remote.tag(parent.root, tag)
    return copied


async def _missing_parents(
    args: PushArgs, root: Descriptor, ports: Ports
) -> tuple[list[_Parent], list[str]]:
    """Return the kits to be pushed along, the nearest first, and what there is to say of others.

    A parent belongs where its reference says, or where that names no registry, in the one that the
    kit goes to. A tag that is there is never moved. From there it has to be fetched by name: that a
    registry has a repository of that name does not mean that it is the one.
    """
    missing: list[_Parent] = []
    notes: list[str] = []
    globs = [parse_repository_glob(text) for text in args.parents]
    trail = Trail.begin(digest=root.digest)
    reference = await parent_of(ports.reach, root) if globs else None
    while reference is not None:
        place, following = _place(reference, parse_repository(args.target)), None
        if not any(glob.matches(place.repository) for glob in globs):
            notes.append(f"it builds on {reference}, where kitd may not go for who asked")
            break
        try:
            trail = trail.to(reference)
            here, there = await _here(ports, reference), await _there(ports, place)
            found = here or there
            if found is not None:
                trail = trail.at(found.digest)
                source = ports.reach if here else await ports.remote(place.repository)
                following = await parent_of(source, found)
        except KitdError as error:
            if args.with_parents:
                raise
            notes.append(f"it builds on {reference}, of which nothing is known: {error.message}")
            break
        if found is None:
            notes.append(f"it builds on {reference}, which is neither in the cache nor at {place}")
            break
        if here is None:
            reference = following
            continue
        if there is None and args.with_parents:
            missing.append(_Parent(reference, here, place))
        elif there is None:
            notes.append(f"it builds on {reference}: {place} is not there; push --with-parents")
        elif there.digest != here.digest:
            notes.append(f"it builds on {reference}: {place} is {there.digest}, which is another")
        if reference != place:
            # By any tag in its repository a kit is there by its digest, too.
            name = Reference(reference.repository, tag=reference.tag)
            notes.append(
                f"it builds on {reference}, which names no registry, so that others do not find it"
                f" by themselves: kitctl pull {place}, kitctl tag {place} {name}"
            )
        reference = following
    return missing, notes


def _place(reference: Reference, target: Repository) -> Reference:
    """Return where a parent belongs."""
    repository = reference.repository
    if not repository.is_local:
        return reference
    return replace(reference, repository=Repository(target.registry, repository.name))


async def _here(ports: Ports, reference: Reference) -> Descriptor | None:
    try:
        return await ports.catalog.resolve(reference.repository, reference.identifier)
    except ContentNotFoundError:
        return None


async def _there(ports: Ports, place: Reference) -> Descriptor | None:
    return await _named(await ports.remote(place.repository), place.identifier)


async def _named(remote: Remote, identifier: str) -> Descriptor | None:
    try:
        return await remote.resolve(identifier)
    except ContentNotFoundError:
        return None


async def _tagged(ports: Ports, args: PushArgs, tag: str) -> str | None:
    try:
        return (await ports.catalog.resolve(parse_repository(args.source), tag)).digest
    except ContentNotFoundError:
        return None


def _key(args: PushArgs) -> str:
    # The newest kit takes over a waiting push to the same names; one without names is its own.
    name = f":{','.join(args.tags)}" if args.tags else f"@{args.digest}"
    # Who wants the parents there is not content without them, nor with fewer.
    along = f" with parents {' '.join(args.parents)}" if args.with_parents else ""
    return f"{args.target}{name}{along}"


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
