"""Pull: copy a kit, or any other artifact, and what refers to it to the cache under its name."""

import msgspec

from kitd.blocking import run_blocking
from kitd.content.copy import copy_graph
from kitd.content.referrers import copy_referrers
from kitd.content.store import Fetcher
from kitd.content.verify import read, read_manifest
from kitd.jobs.port import Ports
from kitd.jobs.transfer import Bytes, TransferResult
from kitd.modelkit.config_blob import MAX_CONFIG_BYTES, parse_config
from kitd.modelkit.errors import InvalidConfigError
from kitd.modelkit.media_type import is_modelkit
from kitd.oci.manifest import Manifest
from kitd.oci.reference import parse_reference
from kitd.queue.effect import (
    Effect,
    Emit,
    KitSummary,
    MoveTags,
    RecordLocation,
    RecordManifest,
)
from kitd.queue.job import Lane, Progress
from kitd.queue.kind import Done, JobContext, JobKind
from kitd.queue.retry import RetryPolicy


class PullArgs(msgspec.Struct, frozen=True, kw_only=True):
    """A reference with a registry, a tag or a digest."""

    reference: str


async def run(args: PullArgs, context: JobContext, ports: Ports) -> Done:
    """Pull once. Raises `KitdError`."""
    reference = parse_reference(args.reference)
    remote = await ports.remote(reference.repository)
    root = await remote.resolve(reference.identifier)

    def progress(done_bytes: int, total_bytes: int) -> None:
        context.report(Progress("pulling", done_bytes, total_bytes))

    held = ports.cache.hold()
    context.when_over(held.release)
    report = await copy_graph(remote, held, root, concurrency=ports.transfers, progress=progress)
    referred = await copy_referrers(
        remote,
        held,
        report.manifests,
        listed=remote.referrers,
        resolve=remote.resolve,
        concurrency=ports.transfers,
    )
    effects: list[Effect] = []
    for node in (*report.manifests, *referred.manifests):
        manifest = await read_manifest(ports.cache, node)
        summary = await summarize(ports.cache, manifest)
        effects.append(RecordManifest(reference.repository, node, manifest, summary))
        effects.append(RecordLocation(node.digest, reference.repository))
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
                skipped=report.skipped_bytes + referred.skipped_bytes,
            ),
            referrers=len(referred.copies),
            notes=referred.notes,
        ),
        tuple(effects),
    )


async def summarize(source: Fetcher, manifest: Manifest) -> KitSummary | None:
    """Return what `list` shows about a ModelKit; None for other artifacts."""
    config = manifest.config
    if config is None or config.size > MAX_CONFIG_BYTES or not is_modelkit(manifest):
        return None
    content = await read(source, config, max_bytes=MAX_CONFIG_BYTES)
    try:
        package = (await run_blocking(parse_config, content)).package
    except InvalidConfigError:
        # It was copied byte for byte and may be a newer tool's: what it says is just not known.
        return None
    return KitSummary(package.name, package.authors[0] if package.authors else "")


PULL: JobKind[PullArgs, Ports] = JobKind(
    name="pull",
    lane=Lane.PULL,
    args=PullArgs,
    retry=RetryPolicy(max_attempts=8),
    key=lambda args: args.reference,
    lock=lambda args: args.reference,
    run=run,
)
