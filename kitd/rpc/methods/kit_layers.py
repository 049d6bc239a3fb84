"""`kits.plan` and `kits.open`: what an unpack needs, handed over."""

import msgspec

from kitd.blocking import run_blocking
from kitd.content.store import ContentNotFoundError
from kitd.content.verify import read_manifest
from kitd.modelkit.filter import parse_filter, selects_kitfile
from kitd.modelkit.unpack_plan import plan_unpack
from kitd.modelkit.yaml_writer import kitfile_to_yaml
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import parse_digest
from kitd.rpc.connection import MAX_SENT
from kitd.rpc.error import InvalidParamsError
from kitd.rpc.fairness import Cost
from kitd.rpc.method import Context, Method, Params, Reply, method
from kitd.rpc.methods.access import require_reachable
from kitd.rpc.methods.kit_shelf import find, open_kit
from kitd.rpc.methods.services import Services
from kitd.rpc.outbox import close_all
from kitd.rpc.peer import Role


class PlanParams(Params, frozen=True):
    """A kit of the cache, and which of its parts are wanted."""

    reference: str
    filters: tuple[str, ...] = ()


class WireLayer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A layer to extract."""

    digest: str
    size: int
    media_type: str
    diff_id: str | None
    kind: str
    name: str
    path: str
    elsewhere: bool
    """Whether the cache does not hold it: it comes from a registry when it is opened."""
    mode: int | None
    """The permission bits of the file that a raw layer is, where they are known."""
    prefix: str
    """The directory that a tar's names begin in: `.`, but for the oldest kits."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to extract; `yaml` is the Kitfile, or None where it is not to be written.

    Filters may leave it out; one that nobody wrote has to be asked for. `notes` are what a person
    should know who unpacks it.
    """

    digest: str
    reference: str
    yaml: str | None
    layers: tuple[WireLayer, ...]
    notes: tuple[str, ...]


class OpenParams(Params, frozen=True):
    """Layers of one kit, by digest."""

    digest: str
    layers: tuple[str, ...]


class OpenedLayers(msgspec.Struct, frozen=True):
    """How many descriptors come along, in the order they were asked for."""

    count: int


async def plan(context: Context[Services], params: PlanParams) -> Plan:
    """Tell which layers an unpack needs."""
    filters = tuple(parse_filter(text) for text in params.filters)
    source, target = await find(context, params.reference, remote=False)
    _, manifest, kit = await open_kit(source, target)
    yaml = None
    if selects_kitfile(filters) and (filters or not kit.is_generated):
        yaml = await run_blocking(kitfile_to_yaml, kit.kitfile)
    layers = await run_blocking(plan_unpack, manifest, kit.kitfile, filters)
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
                mode=layer.mode,
                prefix=layer.prefix,
            )
            for layer in layers
        ),
        notes=kit.notes,
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
    method("kits.plan", Role.READ, PlanParams, Plan, plan, cost=Cost.OUTSIDE),
    method("kits.open", Role.READ, OpenParams, OpenedLayers, open_layers, alone=True),
)
