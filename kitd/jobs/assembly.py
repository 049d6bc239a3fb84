"""The course of a pack: build the layers, assemble the kit, name it.

Equal content never makes a new kit. Each kind of job that ends in a kit of files goes this way.
"""

import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

import msgspec

from kitd.blocking import run_blocking
from kitd.caller import Caller
from kitd.config.tag_template import Omission, TagContext, parse_tag_template, render_tag
from kitd.content.store import CollectedError
from kitd.content.verify import read, read_manifest
from kitd.errors import Disposition, KitdError
from kitd.jobs.port import HeldCache, PackSettings, Ports
from kitd.modelkit.chain import require_no_cycle
from kitd.modelkit.config_blob import MAX_CONFIG_BYTES, parse_config
from kitd.modelkit.dialect import Dialect
from kitd.modelkit.manifest import (
    content_key,
    encode_manifest,
    encode_modelpack_manifest,
    unpack_warnings,
)
from kitd.modelkit.media_type import CONFIG, MODELPACK_CONFIG, KitFormat
from kitd.modelkit.modelpack import as_modelpack_layers, encode_modelpack_config
from kitd.oci.descriptor import Descriptor, describe
from kitd.oci.digest import Digest, digest_of
from kitd.oci.manifest import parse_manifest
from kitd.oci.media_type import OCI_MANIFEST
from kitd.oci.reference import Reference, Repository, parse_reference, parse_repository
from kitd.packing.order import Advanced, Packed, PackedLayer
from kitd.queue.effect import (
    Effect,
    Emit,
    KitSummary,
    MoveTags,
    NoteParent,
    RecordElsewhere,
    RecordManifest,
    RecordPack,
)
from kitd.queue.fact import KitPacked
from kitd.queue.job import Progress
from kitd.queue.kind import Done, JobContext


class PackArgs(msgspec.Struct, frozen=True, kw_only=True):
    """What to pack; `tags` are templates, `repository` is `registry/name`.

    `model_pack` makes a ModelPack and no ModelKit of the layers; like all that is None, it is as
    the configuration says. `source_date_epoch` are the
    seconds that stand in for the time.

    With a `fingerprint` only the state that settled is packed, without one whatever is there. With
    a `reader` nothing is packed that he could not read himself. `is_guest` as in `Project`.
    """

    project: str | None
    path: str
    kitfile: str | None
    repository: str
    tags: tuple[str, ...]
    push: bool
    compression: str | None
    layer_format: str | None = None
    model_pack: bool | None = None
    source_date_epoch: int | None = None
    fingerprint: str | None = None
    reader: Caller | None = None
    is_guest: bool = False


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


def created_at(seconds: int | None, now_us: int) -> datetime:
    """Return the time that a new kit bears; `seconds` is what was asked for instead of now."""
    return datetime.fromtimestamp(now_us // 1_000_000 if seconds is None else seconds, UTC)


@dataclass(frozen=True, slots=True)
class _Form:
    """How the kit is described: the same layers make a ModelKit in a dialect, or a ModelPack."""

    dialect: Dialect
    layers: tuple[Descriptor, ...]
    key: Digest
    is_modelpack: bool


def _form(args: PackArgs, packed: Packed, settings: PackSettings, created_s: int | None) -> _Form:
    """Return the form that was asked for. Raises `UnsupportedKitError` where there is none."""
    dialect, layers, config = _dialect(args, settings), _layers(packed), _config(packed)
    if _is_modelpack(args, settings):
        layers = as_modelpack_layers(layers)
        key = content_key(config, layers, KitFormat.MODELPACK, created_s=created_s)
    else:
        # A dialect without time is not asked for one.
        asked_s = None if dialect is Dialect.KIT_1_7 else created_s
        key = content_key(config, layers, dialect, created_s=asked_s)
    return _Form(dialect, layers, key, _is_modelpack(args, settings))


def _dialect(args: PackArgs, settings: PackSettings) -> Dialect:
    # There are no ModelPacks in the older one.
    return Dialect.CURRENT if _is_modelpack(args, settings) else settings.dialect


def _is_modelpack(args: PackArgs, settings: PackSettings) -> bool:
    return settings.model_pack if args.model_pack is None else args.model_pack


async def _assemble(
    form: _Form, packed: Packed, held: HeldCache, cli_version: str, created: datetime
) -> bytes:
    """Return the manifest's bytes; its config is in the cache then. Raises `KitdError`."""
    time = f"{created:%Y-%m-%dT%H:%M:%SZ}"
    config = _config(packed)
    if not form.is_modelpack:
        return encode_manifest(
            config, form.layers, form.dialect, cli_version=cli_version, created=time
        )
    kitfile = await read(held, config, max_bytes=MAX_CONFIG_BYTES)
    content = encode_modelpack_config(parse_config(kitfile), created=time)
    await held.put(content)
    return encode_modelpack_manifest(
        describe(MODELPACK_CONFIG, content),
        form.layers,
        cli_version=cli_version,
        created=time,
        kitfile=kitfile.decode(),
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


async def pack(args: PackArgs, context: JobContext, ports: Ports) -> Done:
    """Pack once. Raises `KitdError`."""
    settings = ports.settings

    def advanced(progress: Advanced) -> None:
        context.report(Progress("packing", progress.done_bytes, progress.total_bytes))

    held = ports.cache.hold()
    context.when_over(held.release)
    packed = await _pack(args, ports, held, advanced)
    repository = parse_repository(args.repository)
    created_s = args.source_date_epoch
    if created_s is None:
        created_s = settings.source_date_epoch
    created = created_at(created_s, ports.clock.now_us())
    form = _form(args, packed, settings, created_s)
    version = version_key(form.key, args)
    existing = await _existing(ports, held, repository, form.key)
    effects: list[Effect] = []
    target = existing
    config: Descriptor | None = _config(packed)
    parent = parse_reference(packed.parents[0]) if packed.parents else None
    if target is None:
        content = await _assemble(form, packed, held, settings.cli_version, created)
        await held.put(content)
        target = describe(OCI_MANIFEST, content)
        manifest = await run_blocking(parse_manifest, content)
        summary = KitSummary(packed.model_name, packed.author, form.key, parent)
        effects.append(RecordManifest(repository, target, manifest, summary))
        config = manifest.config
    else:
        # Nobody may have looked when it was recorded.
        effects.append(NoteParent(target.digest, parent))
        if form.is_modelpack:
            config = (await read_manifest(held, target)).config
    assert config is not None
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
    require_no_cycle((Reference(repository, tag=tag) for tag in tags), packed.parents)
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
        config=Blob(config.digest, config.size),
        layers=_result_layers(packed, form.layers),
        unchanged=existing is not None,
        sent=packed.sent_bytes,
        warnings=(*packed.warnings, *unpack_warnings(form.layers), *omitted),
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
                    args.path,
                    args.kitfile,
                    args.reader,
                    dialect=_dialect(args, ports.settings),
                    compression=args.compression,
                    layer_format=args.layer_format,
                    is_guest=args.is_guest,
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


async def _existing(
    ports: Ports, held: HeldCache, repository: Repository, key: Digest
) -> Descriptor | None:
    """Return the repository's kit with this content, if the cache still holds its manifest."""
    kit = await ports.catalog.with_content(repository, key)
    if kit is None or not await held.keep([(kit.digest, kit.size)]):
        return None
    # Asked again: only from here on no collection takes it.
    return kit if await ports.catalog.with_content(repository, key) == kit else None


def _result_layers(packed: Packed, described: Sequence[Descriptor]) -> tuple[Layer, ...]:
    return tuple(
        Layer(
            descriptor.media_type,
            layer.digest,
            layer.size,
            layer.reused,
            elsewhere=layer.repository is not None,
        )
        for layer, descriptor in zip(packed.layers, described, strict=True)
    )
