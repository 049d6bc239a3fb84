"""Pull: copy a kit, or any other artifact, and what refers to it to the cache under its name.

The kits that it builds on come along, each to its own repository. Nobody has named these: their
tags are left alone where they name what is not pushed yet, or what somebody has just let them name.

Layers that nobody asked for, that are larger than what is kept here, or that the disk has no room
for stay where they are. The cache remembers where that is; whoever unpacks them gets them from
there.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial

import msgspec

from kitd.blocking import run_blocking
from kitd.content.copy import copy_graph
from kitd.content.referrers import copy_referrers
from kitd.content.store import ByteStream, ContentNotFoundError, Fetcher
from kitd.content.verify import read, read_manifest
from kitd.errors import Disposition, KitdError
from kitd.jobs.parents import fetch_kit, parent_of
from kitd.jobs.port import HeldCache, Ports
from kitd.jobs.transfer import Bytes, TransferResult
from kitd.modelkit.chain import Trail, of_parent
from kitd.modelkit.config_blob import MAX_CONFIG_BYTES
from kitd.modelkit.errors import InvalidConfigError, UnsupportedKitError
from kitd.modelkit.filter import Filter, parse_filter
from kitd.modelkit.kit import read_kit
from kitd.modelkit.kitfile import model_reference
from kitd.modelkit.media_type import kit_format
from kitd.modelkit.unpack_plan import plan_unpack
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.manifest import Manifest
from kitd.oci.media_type import is_manifest
from kitd.oci.reference import Reference, Repository, parse_reference
from kitd.oci.repository_glob import RepositoryGlob, parse_repository_glob
from kitd.queue.effect import (
    Effect,
    Emit,
    FollowTags,
    KitSummary,
    MoveTags,
    RecordElsewhere,
    RecordLocation,
    RecordManifest,
)
from kitd.queue.job import Lane, Progress
from kitd.queue.kind import Done, JobContext, JobKind
from kitd.queue.retry import RetryPolicy


class PullArgs(msgspec.Struct, frozen=True, kw_only=True):
    """A reference with a registry, a tag or a digest; with `filters` only what they select.

    `parents` are globs of the repositories that the kits it builds on may come from.
    """

    reference: str
    filters: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()


class _Selective:
    """The cache, which is not given everything: `left` is what stays where it is."""

    def __init__(
        self, held: HeldCache, is_wanted: Callable[[Descriptor], bool], keeps: Callable[[int], bool]
    ) -> None:
        self._held = held
        self._is_wanted = is_wanted
        self._keeps = keeps
        self.left: dict[Digest, Descriptor] = {}

    def fetch(
        self, target: Descriptor, *, offset: int = 0
    ) -> AbstractAsyncContextManager[ByteStream]:
        return self._held.fetch(target, offset=offset)

    async def exists(self, target: Descriptor) -> bool:
        return await self._held.exists(target)

    async def push(self, target: Descriptor, source: Fetcher) -> int:
        """Make content present unless it is to stay where it is."""
        if is_manifest(target.media_type) or await self._held.exists(target):
            return await self._held.push(target, source)
        if self._is_wanted(target) and await self._is_kept(target):
            try:
                return await self._held.push(target, source)
            except KitdError as error:
                # Others took the room meanwhile.
                if error.disposition is not Disposition.PAUSE or _is_small(target):
                    raise
                # Under this job's lease it would stay, and leave no room for the config either.
                await self._held.give_up(target)
        self.left[target.digest] = target
        return 0

    async def _is_kept(self, target: Descriptor) -> bool:
        return _is_small(target) or await run_blocking(self._keeps, target.size)


def _is_small(target: Descriptor) -> bool:
    """Whether it may be a config, without which nobody can tell what a kit is."""
    return target.size <= MAX_CONFIG_BYTES


@dataclass(frozen=True, slots=True)
class _Pulled:
    """One kit that came, and what is to be written down about it."""

    reference: Reference
    root: Descriptor
    received_bytes: int
    skipped_bytes: int
    referrers: int
    notes: tuple[str, ...]
    effects: tuple[Effect, ...]


async def run(args: PullArgs, context: JobContext, ports: Ports) -> Done:
    """Pull once. Raises `KitdError`."""
    reference = parse_reference(args.reference)
    held = ports.cache.hold()
    context.when_over(held.release)
    attempt = _Attempt(context, ports, held)
    filters = tuple(map(parse_filter, args.filters))
    first = await attempt.pull(reference, filters)
    wanted = of_parent(filters) if filters else ()
    notes: list[str] = []
    parents: tuple[_Pulled, ...] = ()
    if args.parents and wanted is not None:
        globs = tuple(map(parse_repository_glob, args.parents))
        parents = await attempt.pull_parents(first, wanted, globs, notes)
    kits = (first, *parents)
    return Done(
        TransferResult(
            digest=first.root.digest,
            reference=str(reference),
            tags=() if reference.tag is None else (reference.tag,),
            bytes=Bytes(
                received=sum(kit.received_bytes for kit in kits),
                skipped=sum(kit.skipped_bytes for kit in kits),
            ),
            referrers=sum(kit.referrers for kit in kits),
            parents=tuple(str(kit.reference) for kit in parents),
            notes=(*(note for kit in kits for note in kit.notes), *notes),
        ),
        tuple(effect for kit in kits for effect in kit.effects),
    )


class _Attempt:
    """One attempt at a kit and those it builds on."""

    def __init__(self, context: JobContext, ports: Ports, held: HeldCache) -> None:
        self._context = context
        self._ports = ports
        self._held = held

    async def pull_parents(
        self,
        kit: _Pulled,
        filters: Sequence[Filter],
        allowed: Sequence[RepositoryGlob],
        notes: list[str],
    ) -> tuple[_Pulled, ...]:
        """Pull the kits that a kit builds on, as far as they can be reached; `notes` say how far.

        Raises `ReferenceCycleError`, `TooManyParentsError`, `KitdError`.
        """
        trail = Trail.begin([kit.reference], kit.root.digest)
        pulled: list[_Pulled] = []
        parent = await parent_of(self._ports.cache, kit.root)
        while parent is not None:
            trail = trail.to(parent)
            repository = parent.repository
            if repository.is_local:
                try:
                    root = await self._ports.catalog.resolve(repository, parent.identifier)
                except ContentNotFoundError:
                    notes.append(
                        f"it builds on {parent}, which names no registry and is not in the cache:"
                        " pull it from where it is and give it that name with kitctl tag"
                    )
                    break
            elif not any(glob.matches(repository) for glob in allowed):
                notes.append(f"it builds on {parent}, where kitd may not go for who asked")
                break
            elif (ahead := await self._ahead(parent)) is not None:
                notes.append(
                    f"it builds on {parent}, which was left alone: here it is {ahead.digest},"
                    " which is not pushed"
                )
                root = ahead
            else:
                former = await self._named(parent)
                pulled.append(
                    await self.pull(parent, filters, tag=partial(FollowTags, former=former))
                )
                root = pulled[-1].root
                now = await self._named(parent)
                if parent.tag and now not in (former, root.digest):
                    notes.append(f"{parent} names {now} by now and was left alone")
            trail = trail.at(root.digest)
            parent = await parent_of(self._ports.cache, root)
        return tuple(pulled)

    async def _ahead(self, parent: Reference) -> Descriptor | None:
        """Return what a parent's tag names here, if that would be lost by going after its registry.

        Nobody asked for the parent by name. Raises `KitdError`.
        """
        here = parent.tag and await self._ports.catalog.unpushed(parent.repository, parent.tag)
        if not here:
            return None
        try:
            there = await (await self._ports.remote(parent.repository)).resolve(parent.identifier)
        except ContentNotFoundError:
            return here
        return None if there.digest == here.digest else here

    async def _named(self, reference: Reference) -> Digest | None:
        try:
            found = await self._ports.catalog.resolve(reference.repository, reference.identifier)
        except ContentNotFoundError:
            return None
        return found.digest

    async def pull(
        self,
        reference: Reference,
        filters: Sequence[Filter],
        *,
        tag: Callable[[Repository, tuple[str, ...], Digest], Effect] = MoveTags,
    ) -> _Pulled:
        """Pull one kit; `tag` makes the effect that names it. Raises `KitdError`."""
        ports = self._ports
        remote = await ports.remote(reference.repository)
        root = await remote.resolve(reference.identifier)

        def progress(done_bytes: int, total_bytes: int) -> None:
            self._context.report(Progress("pulling", done_bytes, total_bytes))

        unwanted = await _unwanted(remote, root, filters)
        cache = _Selective(self._held, lambda blob: blob.digest not in unwanted, ports.keeps)
        report = await copy_graph(
            remote, cache, root, concurrency=ports.transfers, progress=progress
        )
        referred = await copy_referrers(
            remote,
            cache,
            report.manifests,
            listed=remote.referrers,
            resolve=remote.resolve,
            concurrency=ports.transfers,
        )
        effects: list[Effect] = []
        elsewhere: set[Digest] = set()
        for node in (*report.manifests, *referred.manifests):
            manifest = await read_manifest(ports.cache, node)
            summary = await summarize(ports.cache, manifest)
            effects.append(RecordManifest(reference.repository, node, manifest, summary))
            effects.append(RecordLocation(node.digest, reference.repository))
            left = tuple(child.digest for child in manifest.children if child.digest in cache.left)
            if left:
                elsewhere.update(left)
                effects.append(RecordElsewhere(node.digest, left, reference.repository))
        left_bytes = sum(cache.left[digest].size for digest in elsewhere)
        tags = () if reference.tag is None else (reference.tag,)
        effects.append(tag(reference.repository, tags, root.digest))
        named = {"repository": str(reference.repository), "tags": list(tags)}
        effects.append(Emit("kit.pulled", f"kit:{root.digest}", named))
        return _Pulled(
            reference=reference,
            root=root,
            received_bytes=report.sent_bytes + referred.sent_bytes,
            skipped_bytes=report.skipped_bytes + referred.skipped_bytes - left_bytes,
            referrers=len(referred.copies),
            notes=(
                *referred.notes,
                *(
                    f"{blob.digest} of {blob.size} bytes stays in {reference.repository}"
                    for blob in cache.left.values()
                ),
            ),
            effects=tuple(effects),
        )


async def _unwanted(
    remote: Fetcher, root: Descriptor, filters: Sequence[Filter]
) -> frozenset[Digest]:
    """Return the layers of a kit that filters leave out; none where there is no filter."""
    if not filters:
        return frozenset()
    try:
        manifest, kit = await fetch_kit(remote, root)
    except UnsupportedKitError:
        return frozenset()
    wanted = await run_blocking(plan_unpack, manifest, kit.kitfile, filters)
    needed = {layer.target.digest for layer in wanted}
    needed.update(() if manifest.config is None else (manifest.config.digest,))
    return frozenset(layer.digest for layer in manifest.layers) - needed


async def summarize(source: Fetcher, manifest: Manifest) -> KitSummary | None:
    """Return what the ledger notes of a ModelKit or ModelPack; None for other artifacts."""
    config = manifest.config
    if config is None or config.size > MAX_CONFIG_BYTES or kit_format(manifest) is None:
        return None
    content = await read(source, config, max_bytes=MAX_CONFIG_BYTES)
    try:
        kitfile = (await run_blocking(read_kit, manifest, content)).kitfile
    except InvalidConfigError:
        # It was copied byte for byte and may be a newer tool's: what it says is just not known.
        return None
    package, parent = kitfile.package, model_reference(kitfile)
    return KitSummary(
        package.name,
        package.authors[0] if package.authors else "",
        parent=parent and parent.with_default_tag(),
    )


def _key(args: PullArgs) -> str:
    # Who wants all of it is not content with a part.
    return " ".join((args.reference, *args.filters, *(f">{glob}" for glob in args.parents)))


PULL: JobKind[PullArgs, Ports] = JobKind(
    name="pull",
    lane=Lane.PULL,
    args=PullArgs,
    retry=RetryPolicy(max_attempts=8),
    key=_key,
    lock=lambda args: args.reference,
    run=run,
)
