"""`kits.*`: pack, push, pull, and looking into kits."""

import msgspec

from kitd.blocking import run_blocking
from kitd.config.tag_template import parse_tag_template
from kitd.content.store import ContentNotFoundError, Fetcher
from kitd.content.verify import read, read_manifest
from kitd.modelkit.config_blob import MAX_CONFIG_BYTES, parse_config, to_document
from kitd.modelkit.errors import UnsupportedKitError
from kitd.modelkit.filter import parse_filter, selects_kitfile
from kitd.modelkit.kitfile import Kitfile
from kitd.modelkit.manifest import CLI_VERSION
from kitd.modelkit.media_type import MEDIA_COMPRESSION, is_modelkit
from kitd.modelkit.unpack_plan import plan_unpack
from kitd.modelkit.yaml_writer import kitfile_to_yaml
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import parse_digest
from kitd.oci.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from kitd.oci.reference import (
    DEFAULT_TAG,
    Reference,
    parse_reference,
    parse_repository,
    parse_tagged,
)
from kitd.queue.fact import PackAsked, PackSource, PullAsked, PushAsked
from kitd.rpc.connection import MAX_SENT
from kitd.rpc.error import InvalidParamsError
from kitd.rpc.fairness import Cost
from kitd.rpc.method import Context, Method, Params, Reply, method
from kitd.rpc.methods.access import require_directory, require_kitfile, require_reachable
from kitd.rpc.methods.ask import ask
from kitd.rpc.methods.idempotency import Idempotent
from kitd.rpc.methods.services import Services
from kitd.rpc.methods.wire import Facts, Queued
from kitd.rpc.outbox import close_all
from kitd.rpc.peer import Role


class PackParams(Idempotent, frozen=True, kw_only=True):
    """A directory and what its kit is called: `reference` may be `repository:tag,tag`."""

    path: str
    reference: str
    tags: tuple[str, ...] = ()
    kitfile: str | None = None
    compression: str | None = None
    push: bool = False


class PushParams(Idempotent, frozen=True, kw_only=True):
    """A kit of the cache, and another name for it if it is not to keep its own."""

    reference: str
    target: str | None = None


class PullParams(Idempotent, frozen=True, kw_only=True):
    """A kit in a registry; with `filters` only the layers that they select are fetched."""

    reference: str
    filters: tuple[str, ...] = ()


class Repository(Params, frozen=True):
    """One repository, or all."""

    repository: str | None = None


class WireKit(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One kit of one repository; `size` is that of its layers."""

    repo: str
    digest: str
    tags: tuple[str, ...]
    model_name: str
    size: int
    author: str


class KitList(msgspec.Struct, frozen=True):
    """Kits by repository, newest first."""

    kits: tuple[WireKit, ...]


class Which(Params, frozen=True):
    """One kit, in the cache or in its registry."""

    reference: str
    remote: bool = False


class Inspection(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A kit's manifest and config."""

    digest: str
    cli_version: str
    kitfile: Facts
    manifest: msgspec.Raw


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """A kit's Kitfile, as data and as YAML."""

    digest: str
    kitfile: Facts
    yaml: str


class PlanParams(Params, frozen=True):
    """A kit of the cache, and which of its parts are wanted."""

    reference: str
    filters: tuple[str, ...] = ()


class WireLayer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A layer to extract."""

    digest: str
    size: int
    media_type: str
    diff_id: str
    kind: str
    name: str
    path: str
    elsewhere: bool
    """Whether the cache does not hold it: it comes from a registry when it is opened."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to extract; `yaml` is the Kitfile, or None where the filters leave it out."""

    digest: str
    reference: str
    yaml: str | None
    layers: tuple[WireLayer, ...]


class OpenParams(Params, frozen=True):
    """Layers of one kit, by digest."""

    digest: str
    layers: tuple[str, ...]


class OpenedLayers(msgspec.Struct, frozen=True):
    """How many descriptors come along, in the order they were asked for."""

    count: int


async def pack(context: Context[Services], params: PackParams) -> Queued:
    """Pack a directory."""
    reference, more = parse_tagged(params.reference)
    if params.compression is not None and params.compression not in MEDIA_COMPRESSION:
        known = ", ".join(MEDIA_COMPRESSION)
        raise InvalidParamsError(f"unknown compression {params.compression[:40]!r}: use {known}")
    for tag in params.tags:
        parse_tag_template(tag)
    source = PackSource(
        project=None,
        path=params.path,
        kitfile=require_kitfile(context, params.kitfile),
        repository=reference.repository,
        tags=tuple(dict.fromkeys((reference.tag or DEFAULT_TAG, *more, *params.tags))),
        push=params.push,
        compression=params.compression,
        reader=await require_directory(context, params.path),
    )
    if source.push and source.repository.is_local:
        raise InvalidParamsError(
            f"{params.reference} names no registry to push to",
            hint=f"name one, such as registry.example.com/{source.repository.name}",
        )
    if source.push:
        require_reachable(context, source.repository)
    return await ask(context, PackAsked(source))


async def push(context: Context[Services], params: PushParams) -> Queued:
    """Push a kit of the cache to a registry."""
    source = parse_reference(params.reference).with_default_tag()
    target = source if params.target is None else parse_reference(params.target)
    if target.repository.is_local:
        raise InvalidParamsError(
            f"{target} names no registry to push to",
            hint=f"kitctl push {source} registry.example.com/{target.repository.name}",
        )
    require_reachable(context, target.repository)
    root = await context.services.catalog.resolve(source.repository, source.identifier)
    tag = target.tag if target.tag or target.digest else source.tag
    fact = PushAsked(
        source=source.repository,
        digest=root.digest,
        target=target.repository,
        tags=() if tag is None else (tag,),
    )
    return await ask(context, fact)


async def pull(context: Context[Services], params: PullParams) -> Queued:
    """Pull a kit into the cache."""
    reference = parse_reference(params.reference)
    if reference.repository.is_local:
        raise InvalidParamsError(
            f"{reference} names no registry to pull from",
            hint=f"name one, such as registry.example.com/{reference.repository.name}",
        )
    require_reachable(context, reference.repository)
    for text in params.filters:
        parse_filter(text)
    return await ask(context, PullAsked(reference, params.filters))


async def list_kits(context: Context[Services], params: Repository) -> KitList:
    """List the kits in the cache."""
    repository = None if params.repository is None else parse_repository(params.repository)
    kits = await context.services.catalog.kits(repository)
    return KitList(
        tuple(
            WireKit(
                repo=str(Reference(kit.repository)),
                digest=kit.digest,
                tags=kit.tags,
                model_name=kit.model_name,
                size=kit.layer_bytes,
                author=kit.author,
            )
            for kit in kits
        )
    )


async def _find(
    context: Context[Services], text: str, *, remote: bool
) -> tuple[Fetcher, Descriptor]:
    services = context.services
    reference = parse_reference(text).with_default_tag()
    if not remote:
        target = await services.catalog.resolve(reference.repository, reference.identifier)
        return services.cache, target
    require_reachable(context, reference.repository)
    repository = await services.remote(reference.repository)
    return repository, await repository.resolve(reference.identifier)


async def _open(source: Fetcher, target: Descriptor) -> tuple[bytes, Manifest, Kitfile]:
    """Return a ModelKit's manifest, raw and parsed, and its config."""
    content = await read(source, target, max_bytes=MAX_MANIFEST_BYTES)
    manifest = await run_blocking(parse_manifest, content, target.media_type)
    if manifest.config is None or not is_modelkit(manifest):
        raise UnsupportedKitError(
            f"{target.digest} is not a ModelKit but {manifest.artifact_type or target.media_type}"
        )
    config = await read(source, manifest.config, max_bytes=MAX_CONFIG_BYTES)
    return content, manifest, await run_blocking(parse_config, config)


async def inspect(context: Context[Services], params: Which) -> Inspection:
    """Show a kit's manifest and config."""
    source, target = await _find(context, params.reference, remote=params.remote)
    content, manifest, kitfile = await _open(source, target)
    return Inspection(
        digest=target.digest,
        cli_version=manifest.annotations.get(CLI_VERSION, "unknown"),
        kitfile=to_document(kitfile),
        manifest=msgspec.Raw(content),
    )


async def info(context: Context[Services], params: Which) -> Info:
    """Show a kit's Kitfile."""
    source, target = await _find(context, params.reference, remote=params.remote)
    _, _, kitfile = await _open(source, target)
    yaml = await run_blocking(kitfile_to_yaml, kitfile)
    return Info(digest=target.digest, kitfile=to_document(kitfile), yaml=yaml)


async def plan(context: Context[Services], params: PlanParams) -> Plan:
    """Tell which layers an unpack needs."""
    filters = tuple(parse_filter(text) for text in params.filters)
    source, target = await _find(context, params.reference, remote=False)
    _, manifest, kitfile = await _open(source, target)
    yaml = await run_blocking(kitfile_to_yaml, kitfile) if selects_kitfile(filters) else None
    layers = plan_unpack(manifest, kitfile, filters)
    store = context.services.store
    here = await run_blocking(
        lambda: {layer.target.digest for layer in layers if store.has(layer.target)}
    )
    return Plan(
        digest=target.digest,
        reference=params.reference,
        yaml=yaml,
        layers=tuple(
            WireLayer(
                digest=layer.target.digest,
                size=layer.target.size,
                media_type=layer.target.media_type,
                diff_id=layer.diff_id,
                kind=layer.kind,
                name=layer.name,
                path=layer.path,
                elsewhere=layer.target.digest not in here,
            )
            for layer in layers
        ),
    )


async def _open_layer(context: Context[Services], layer: Descriptor) -> int:
    services = context.services
    try:
        return services.store.open(layer)
    except ContentNotFoundError:
        source = services.reach.within(context.access.may_reach)
        try:
            return await services.feed(layer, source, context.peer.uid)
        except ContentNotFoundError:
            # It may be where kitd may not go for the caller's sake.
            for place in await services.catalog.places(layer.digest):
                require_reachable(context, place)
            raise


async def open_layers(context: Context[Services], params: OpenParams) -> Reply[OpenedLayers]:
    """Hand over descriptors of a kit's layers: of files to read, or of sockets.

    A layer that the cache does not hold comes through a socket, from where it is, and is read once;
    kitd has to be allowed to go there for the caller's sake.
    """
    services = context.services
    if len(params.layers) > MAX_SENT:
        raise InvalidParamsError(f"at most {MAX_SENT} layers at once")
    target = await services.catalog.manifest(parse_digest(params.digest))
    manifest = await read_manifest(services.cache, target)
    layers = {layer.digest: layer for layer in manifest.layers}
    handles: list[int] = []
    try:
        for text in params.layers:
            layer = layers.get(parse_digest(text))
            if layer is None:
                raise InvalidParamsError(f"{text} is not a layer of {target.digest}")  # noqa: TRY301 - what is open has to be closed
            handles.append(await _open_layer(context, layer))
    except BaseException:
        close_all(handles)
        raise
    return Reply(OpenedLayers(len(handles)), tuple(handles))


METHODS: tuple[Method[Services], ...] = (
    method("kits.pack", Role.SUBMIT, PackParams, Queued, pack, takes_descriptor=True),
    method("kits.push", Role.SUBMIT, PushParams, Queued, push),
    method("kits.pull", Role.SUBMIT, PullParams, Queued, pull),
    method("kits.list", Role.READ, Repository, KitList, list_kits, cost=Cost.LEDGER),
    method("kits.inspect", Role.READ, Which, Inspection, inspect),
    method("kits.info", Role.READ, Which, Info, info),
    method("kits.plan", Role.READ, PlanParams, Plan, plan, cost=Cost.OUTSIDE),
    method("kits.open", Role.READ, OpenParams, OpenedLayers, open_layers, alone=True),
)
