"""Pack: build the layers, assemble the kit, name it. Equal content never makes a new kit."""

import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import ClassVar

import msgspec

from kitd.caller import Caller
from kitd.config.tag_template import Omission, TagContext, parse_tag_template, render_tag
from kitd.content.store import CollectedError
from kitd.errors import Disposition, KitdError
from kitd.jobs.port import HeldCache, PackSettings, Ports
from kitd.modelkit.manifest import content_key, encode_manifest
from kitd.modelkit.media_type import CONFIG
from kitd.oci.descriptor import Descriptor, describe
from kitd.oci.digest import Digest, digest_of
from kitd.oci.manifest import parse_manifest
from kitd.oci.media_type import OCI_MANIFEST
from kitd.oci.reference import Reference, Repository, parse_repository
from kitd.packing.order import Advanced, Packed, PackedLayer
from kitd.queue.effect import (
    Effect,
    Emit,
    KitSummary,
    MoveTags,
    RecordElsewhere,
    RecordManifest,
    RecordPack,
)
from kitd.queue.fact import KitPacked
from kitd.queue.job import Lane, Progress
from kitd.queue.kind import Done, JobContext, JobKind
from kitd.queue.retry import RetryPolicy


class PackArgs(msgspec.Struct, frozen=True, kw_only=True):
    """What to pack; `tags` are templates, `repository` is `registry/name`.

    With a `fingerprint` only the state that settled is packed, without one whatever is there. With
    a `reader` nothing is packed that he could not read himself.
    """

    project: str | None
    path: str
    kitfile: str | None
    repository: str
    tags: tuple[str, ...]
    push: bool
    compression: str | None
    fingerprint: str | None = None
    reader: Caller | None = None


class NotAtRestError(KitdError):
    """The project left the state in which it came to rest; its watcher sees to the next."""

    code = "not_at_rest"
    disposition: ClassVar[Disposition] = Disposition.STEP_ASIDE


class Blob(msgspec.Struct, frozen=True):
    """A blob in a result."""

    digest: str
    size: int


class Layer(msgspec.Struct, frozen=True, rename="camel"):
    """A layer in a result; `reused` if an equal one was there before.

    `elsewhere` if it is in the registry that the kit goes to, and not in the cache.
    """

    media_type: str
    digest: str
    size: int
    reused: bool
    elsewhere: bool


class PackResult(msgspec.Struct, frozen=True, kw_only=True):
    """The kit; `unchanged` if it is the one that the project had already.

    `sent` is how many bytes of layers that are elsewhere went there now; the push skips these.
    """

    digest: str
    reference: str
    tags: tuple[str, ...]
    config: Blob
    layers: tuple[Layer, ...]
    unchanged: bool
    sent: int
    warnings: tuple[str, ...]


def _config(packed: Packed) -> Descriptor:
    return Descriptor(CONFIG, Digest(packed.config_digest), packed.config_size)


def _layer(layer: PackedLayer) -> Descriptor:
    return Descriptor(layer.media_type, Digest(layer.digest), layer.size, layer.annotations)


def _layers(packed: Packed) -> tuple[Descriptor, ...]:
    return tuple(map(_layer, packed.layers))


def created_at(settings: PackSettings, now_us: int) -> datetime:
    """Return the time that a new kit bears."""
    seconds = settings.source_date_epoch
    return datetime.fromtimestamp(now_us // 1_000_000 if seconds is None else seconds, UTC)


def assemble(packed: Packed, settings: PackSettings, created: datetime) -> bytes:
    """Return the manifest's bytes."""
    return encode_manifest(
        _config(packed),
        _layers(packed),
        settings.dialect,
        cli_version=settings.cli_version,
        created=f"{created:%Y-%m-%dT%H:%M:%SZ}",
    )


def version_key(content: Digest, args: PackArgs) -> Digest:
    """Return what two versions of a project share if the later one would change nothing.

    Covers the content and where it was to go, under which names.
    """
    return digest_of(msgspec.json.encode((content, args.repository, args.tags, args.push)))


def render_tags(
    templates: tuple[str, ...], context: TagContext
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the tags of a kit, each once, and why some templates give none."""
    rendered = [render_tag(parse_tag_template(text), context) for text in templates]
    tags = tuple(dict.fromkeys(tag for tag in rendered if isinstance(tag, str)))
    omitted = tuple(
        f"no tag from {tag.template}: {tag.reason}" for tag in rendered if isinstance(tag, Omission)
    )
    return tags, omitted


async def run(args: PackArgs, context: JobContext, ports: Ports) -> Done:
    """Pack once. Raises `KitdError`."""
    settings = ports.settings

    def advanced(progress: Advanced) -> None:
        context.report(Progress("packing", progress.done_bytes, progress.total_bytes))

    held = ports.cache.hold()
    context.when_over(held.release)
    packed = await _pack(args, ports, held, advanced)
    repository = parse_repository(args.repository)
    created = created_at(settings, ports.clock.now_us())
    key = content_key(_config(packed), _layers(packed), settings.dialect)
    version = version_key(key, args)
    existing = await _existing(ports, held, repository, key)
    effects: list[Effect] = []
    target = existing
    if target is None:
        content = assemble(packed, settings, created)
        await held.put(content)
        target = describe(OCI_MANIFEST, content)
        summary = KitSummary(packed.model_name, packed.author, key)
        effects.append(RecordManifest(repository, target, parse_manifest(content), summary))
    # A project whose content is that of its last kit keeps its kit and its tags: no new version,
    # not even by name. What a person asked for by name is named in any case, and so is a kit that
    # the repository does not have, or has no more.
    quiet = (
        existing is not None
        and args.project is not None
        and await ports.catalog.packed_version(args.project) == version
    )
    tags, omitted = render_tags(
        () if quiet else args.tags,
        TagContext(
            args.project or posixpath.basename(args.path),
            target.digest,
            created,
            package_version=packed.package_version,
            git_commit=packed.git_commit,
        ),
    )
    effects += _away(packed, target)
    effects.append(MoveTags(repository, tags, target.digest))
    if args.project is not None:
        effects.append(RecordPack(args.project, packed.fingerprint, target.digest, version))
    if existing is None:
        named = {"repository": str(Reference(repository)), "tags": list(tags)}
        effects.append(Emit("kit.packed", f"kit:{target.digest}", named))
    fact = KitPacked(
        project=args.project,
        repository=repository,
        target=target,
        tags=tags,
        push=args.push,
        priority=context.job.priority,
    )
    reference = Reference(repository, tag=tags[0]) if tags else None
    result = PackResult(
        digest=target.digest,
        reference=str(reference or Reference(repository).pinned(target.digest)),
        tags=tags,
        config=Blob(packed.config_digest, packed.config_size),
        layers=_result_layers(packed),
        unchanged=existing is not None,
        sent=packed.sent_bytes,
        warnings=(*packed.warnings, *omitted),
    )
    return Done(result, tuple(effects), () if quiet else (fact,))


async def _pack(
    args: PackArgs, ports: Ports, held: HeldCache, advanced: Callable[[Advanced], None]
) -> Packed:
    """Build what is missing. Raises `NotAtRestError` where a state was asked for that is gone."""
    destination = _destination(args)
    try:
        with _head_start(destination, ports) as send:
            return await ports.packer.pack(
                ports.settings.project(
                    args.path, args.kitfile, args.reader, compression=args.compression
                ),
                expected=args.fingerprint,
                destination=destination,
                advanced=advanced,
                built=lambda layer: send(_layer(layer)),
                keep=held.keep,
            )
    except CollectedError:
        # The project is as it was, and what is missing is built by the next attempt.
        raise
    except KitdError as error:
        if args.fingerprint is not None and error.disposition is Disposition.SNOOZE:
            raise NotAtRestError(error.message, hint="it is packed once it rests again") from error
        raise


def _destination(args: PackArgs) -> Repository | None:
    """Return the repository of a registry that the kit will be pushed to, if it will."""
    repository = parse_repository(args.repository)
    return repository if args.push and not repository.is_local else None


def _head_start(
    destination: Repository | None, ports: Ports
) -> AbstractContextManager[Callable[[Descriptor], None]]:
    """Return what sends layers on their way, if the kit will follow them."""
    if destination is None:
        return nullcontext(lambda _layer: None)
    return ports.head_start(destination)


def _away(packed: Packed, target: Descriptor) -> Iterator[RecordElsewhere]:
    """Yield where the layers are that are not in the cache."""
    away: defaultdict[str, list[Digest]] = defaultdict(list)
    for layer in packed.layers:
        if layer.repository is not None:
            away[layer.repository].append(Digest(layer.digest))
    for repository, digests in away.items():
        yield RecordElsewhere(target.digest, tuple(digests), parse_repository(repository))


def _key(args: PackArgs) -> str:
    """Return what two wishes share of which the newer replaces the older.

    They end in the same names, and nobody's wish takes the place of another user's.
    """
    if args.project is not None:
        return args.project
    reader = "" if args.reader is None else f"@{args.reader.uid}"
    return f"{args.path}>{args.repository}:{','.join(args.tags)}{reader}"


async def _existing(
    ports: Ports, held: HeldCache, repository: Repository, key: Digest
) -> Descriptor | None:
    """Return the repository's kit with this content, if the cache still holds its manifest."""
    kit = await ports.catalog.with_content(repository, key)
    if kit is None or not await held.keep([(kit.digest, kit.size)]):
        return None
    # Asked again: only from here on no collection takes it.
    return kit if await ports.catalog.with_content(repository, key) == kit else None


def _result_layers(packed: Packed) -> tuple[Layer, ...]:
    return tuple(
        Layer(
            layer.media_type,
            layer.digest,
            layer.size,
            layer.reused,
            elsewhere=layer.repository is not None,
        )
        for layer in packed.layers
    )


PACK: JobKind[PackArgs, Ports] = JobKind(
    name="pack",
    lane=Lane.PACK,
    args=PackArgs,
    # As often as a push: layers may go to a registry while they are read.
    retry=RetryPolicy(max_attempts=20),
    key=_key,
    lock=lambda args: args.path,
    run=run,
)
