"""Pull: copy a kit, or any other artifact, and what refers to it to the cache under its name.

Layers that nobody asked for, that are larger than what is kept here, or that the disk has no room
for stay where they are. The cache remembers where that is; whoever unpacks them gets them from
there.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import msgspec

from kitd.blocking import run_blocking
from kitd.content.copy import copy_graph
from kitd.content.referrers import copy_referrers
from kitd.content.store import ByteStream, Fetcher
from kitd.content.verify import read, read_manifest
from kitd.errors import Disposition, KitdError
from kitd.jobs.port import HeldCache, Ports
from kitd.jobs.transfer import Bytes, TransferResult
from kitd.modelkit.config_blob import MAX_CONFIG_BYTES
from kitd.modelkit.errors import InvalidConfigError
from kitd.modelkit.filter import parse_filter
from kitd.modelkit.kit import read_kit
from kitd.modelkit.media_type import kit_format
from kitd.modelkit.unpack_plan import plan_unpack
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.manifest import Manifest
from kitd.oci.media_type import is_manifest
from kitd.oci.reference import parse_reference
from kitd.queue.effect import (
    Effect,
    Emit,
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
    """A reference with a registry, a tag or a digest; with `filters` only what they select."""

    reference: str
    filters: tuple[str, ...] = ()


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


async def run(args: PullArgs, context: JobContext, ports: Ports) -> Done:
    """Pull once. Raises `KitdError`."""
    reference = parse_reference(args.reference)
    remote = await ports.remote(reference.repository)
    root = await remote.resolve(reference.identifier)

    def progress(done_bytes: int, total_bytes: int) -> None:
        context.report(Progress("pulling", done_bytes, total_bytes))

    held = ports.cache.hold()
    context.when_over(held.release)
    unwanted = await _unwanted(remote, root, args.filters)
    cache = _Selective(held, lambda blob: blob.digest not in unwanted, ports.keeps)
    report = await copy_graph(remote, cache, root, concurrency=ports.transfers, progress=progress)
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
    effects.append(MoveTags(reference.repository, tags, root.digest))
    named = {"repository": str(reference.repository), "tags": list(tags)}
    effects.append(Emit("kit.pulled", f"kit:{root.digest}", named))
    return Done(
        TransferResult(
            digest=root.digest,
            reference=str(reference),
            tags=tags,
            bytes=Bytes(
                received=report.sent_bytes + referred.sent_bytes,
                skipped=report.skipped_bytes + referred.skipped_bytes - left_bytes,
            ),
            referrers=len(referred.copies),
            notes=(
                *referred.notes,
                *(
                    f"{blob.digest} of {blob.size} bytes stays in {reference.repository}"
                    for blob in cache.left.values()
                ),
            ),
        ),
        tuple(effects),
    )


async def _unwanted(
    remote: Fetcher, root: Descriptor, filters: tuple[str, ...]
) -> frozenset[Digest]:
    """Return the layers of a kit that filters leave out; none where there is no filter."""
    if not filters:
        return frozenset()
    manifest = await read_manifest(remote, root)
    if manifest.config is None or kit_format(manifest) is None:
        return frozenset()
    content = await read(remote, manifest.config, max_bytes=MAX_CONFIG_BYTES)
    kit = await run_blocking(read_kit, manifest, content)
    chosen = [parse_filter(text) for text in filters]
    wanted = await run_blocking(plan_unpack, manifest, kit.kitfile, chosen)
    needed = {manifest.config.digest, *(layer.target.digest for layer in wanted)}
    return frozenset(layer.digest for layer in manifest.layers) - needed


async def summarize(source: Fetcher, manifest: Manifest) -> KitSummary | None:
    """Return what `list` shows about a ModelKit or ModelPack; None for other artifacts."""
    config = manifest.config
    if config is None or config.size > MAX_CONFIG_BYTES or kit_format(manifest) is None:
        return None
    content = await read(source, config, max_bytes=MAX_CONFIG_BYTES)
    try:
        package = (await run_blocking(read_kit, manifest, content)).kitfile.package
    except InvalidConfigError:
        # It was copied byte for byte and may be a newer tool's: what it says is just not known.
        return None
    return KitSummary(package.name, package.authors[0] if package.authors else "")


def _key(args: PullArgs) -> str:
    # Who wants all of it is not content with a part.
    return " ".join((args.reference, *args.filters))


PULL: JobKind[PullArgs, Ports] = JobKind(
    name="pull",
    lane=Lane.PULL,
    args=PullArgs,
    retry=RetryPolicy(max_attempts=8),
    key=_key,
    lock=lambda args: args.reference,
    run=run,
)
