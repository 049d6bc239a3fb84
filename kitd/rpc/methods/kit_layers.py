"""`kits.plan` and `kits.open`: what an unpack needs, handed over."""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from kitd.blocking import run_blocking
from kitd.content.store import ContentNotFoundError
from kitd.content.verify import read_manifest
from kitd.modelkit.chain import (
    DATASETS_ONLY,
    TooManyParentsError,
    Trail,
    filter_text,
    of_parent,
)
from kitd.modelkit.filter import Filter, parse_filter, selection, selects_kitfile
from kitd.modelkit.kit import Kit
from kitd.modelkit.kitfile import (
    Dataset,
    EntryKind,
    LayerEntry,
    model_reference,
    reference_of,
)
from kitd.modelkit.unpack_plan import UnpackLayer, plan_unpack
from kitd.modelkit.yaml_writer import kitfile_to_yaml
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest, parse_digest
from kitd.oci.reference import Reference, parse_reference
from kitd.rpc.connection import MAX_SENT
from kitd.rpc.error import InvalidParamsError
from kitd.rpc.fairness import Cost
from kitd.rpc.method import Context, Method, Params, Reply, method
from kitd.rpc.methods.access import require_reachable
from kitd.rpc.methods.kit_shelf import find, open_kit
from kitd.rpc.methods.services import Services
from kitd.rpc.outbox import close_all
from kitd.rpc.peer import Role

MAX_KITS = 64
"""Kits of one unpack: one that names itself by ever other names is not followed for ever."""


class PlanParams(Params, frozen=True):
    """A kit of the cache, and which of its parts are wanted.

    With `include_remote` the kits that remote datasets name are part of the plan.
    """

    reference: str
    filters: tuple[str, ...] = ()
    include_remote: bool = False


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
    """The mode without its type of the file that a raw layer is, where it is known."""
    prefix: str
    """The directory that a tar's names begin in: `.`, but for the oldest kits."""
    kit: str
    """The manifest that has it."""
    directory: str
    """Where it goes, beneath the target; empty is the target itself."""


class WireRemote(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A remote dataset that was selected and is in no layer: `path` is beneath the target."""

    path: str
    remote_path: str
    remote_hash: str


class WireMissing(msgspec.Struct, frozen=True, kw_only=True):
    """A kit that is needed and not known here, and what is needed of it."""

    reference: str
    filters: tuple[str, ...]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to extract; `yaml` is the Kitfile, or None where it is not to be written.

    Filters may leave it out; one that nobody wrote has to be asked for. Layers of the kits it
    builds on come first; where some are `missing`, there is more to extract once they were pulled.
    `notes` are what a person should know who unpacks it.
    """

    digest: str
    reference: str
    yaml: str | None
    layers: tuple[WireLayer, ...]
    notes: tuple[str, ...]
    remotes: tuple[WireRemote, ...]
    missing: tuple[WireMissing, ...]


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
    _, target = await find(context, params.reference, remote=False)
    walk = _Walk(context.services, include_remote=params.include_remote)
    trail = Trail.begin([parse_reference(params.reference)], target.digest)
    kit = await walk.visit(target, filters, "", trail)
    yaml = None
    if selects_kitfile(filters) and (filters or not kit.is_generated):
        yaml = await run_blocking(kitfile_to_yaml, kit.kitfile)
    store = context.services.store
    here = await run_blocking(
        lambda: {each.layer.target.digest for each in walk.layers if store.has(each.layer.target)}
    )
    return Plan(
        digest=target.digest,
        reference=params.reference,
        yaml=yaml,
        layers=tuple(
            WireLayer(
                digest=each.layer.target.digest,
                size=each.layer.target.size,
                media_type=each.layer.target.media_type,
                diff_id=each.layer.diff_id,
                kind=each.layer.kind,
                name=each.layer.name,
                path=each.layer.path,
                elsewhere=each.layer.target.digest not in here,
                mode=each.layer.mode,
                prefix=each.layer.prefix,
                kit=each.kit,
                directory=each.directory,
            )
            for each in walk.layers
        ),
        notes=tuple(dict.fromkeys(walk.notes)),
        remotes=tuple(walk.remotes),
        missing=tuple(walk.missing),
    )


@dataclass(frozen=True, slots=True)
class _KitLayer:
    """A layer, the kit that it is of, and where it goes."""

    layer: UnpackLayer
    kit: Digest
    directory: str


class _Walk:
    """Everything that an unpack takes, of a kit and of those that it refers to."""

    def __init__(self, services: Services, *, include_remote: bool) -> None:
        self._services = services
        self._include_remote = include_remote
        self._kits = 0
        self.layers: list[_KitLayer] = []
        self.remotes: list[WireRemote] = []
        self.missing: list[WireMissing] = []
        self.notes: list[str] = []

    async def visit(
        self, target: Descriptor, filters: Sequence[Filter], directory: str, trail: Trail
    ) -> Kit:
        """Add what filters select of a kit, after what they select of the one it builds on."""
        _, manifest, kit = await open_kit(self._services.cache, target)
        self.notes += kit.notes
        kitfile = kit.kitfile
        parent, of_model = model_reference(kitfile), of_parent(filters)
        if parent is not None and of_model is not None:
            await self._follow(parent, of_model, directory, trail)
        self.layers += [
            _KitLayer(layer, target.digest, directory)
            for layer in await run_blocking(plan_unpack, manifest, kitfile, filters)
        ]
        is_taken = selection(filters)
        for index, dataset in enumerate(kitfile.datasets):
            entry = LayerEntry(EntryKind.DATASET, index, dataset)
            if dataset.remote_path and is_taken(entry):
                await self._add_remote(dataset, directory, trail)
        return kit

    async def _add_remote(self, dataset: Dataset, directory: str, trail: Trail) -> None:
        reference = reference_of(dataset.remote_path)
        path = posixpath.join(directory, dataset.path)
        if reference is not None and self._include_remote:
            await self._follow(reference, DATASETS_ONLY, path, trail)
            return
        remote_path, remote_hash = dataset.remote_path, dataset.remote_hash
        self.remotes.append(WireRemote(path=path, remote_path=remote_path, remote_hash=remote_hash))

    async def _follow(
        self, reference: Reference, filters: Sequence[Filter], directory: str, trail: Trail
    ) -> None:
        reference = reference.with_default_tag()
        trail = trail.to(reference)
        self._kits += 1
        if self._kits > MAX_KITS:
            raise TooManyParentsError(
                f"{trail.names[0]} and what it refers to are more than {MAX_KITS} kits",
                hint="unpack less of it with a filter",
            )
        catalog = self._services.catalog
        try:
            target = await catalog.resolve(reference.repository, reference.identifier)
        except ContentNotFoundError:
            names = tuple(map(filter_text, filters))
            self.missing.append(WireMissing(reference=str(reference), filters=names))
            return
        await self.visit(target, filters, directory, trail.at(target.digest))


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
