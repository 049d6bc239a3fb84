"""`kits.diff`: what two kits share and what only one of them has, layer by layer.

Files are compared by who asks, in a process of his own: he opens the layers (`kits.open`) and reads
what is in them. kitd itself reads no archive that came from elsewhere.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import msgspec

from kitd.blocking import run_blocking
from kitd.content.store import ContentNotFoundError
from kitd.modelkit.errors import InvalidConfigError, InvalidLayerTypeError
from kitd.modelkit.kitfile import Kitfile
from kitd.modelkit.media_type import LayerFormat, parse_layer_type
from kitd.modelkit.unpack_plan import UnpackLayer, annotated_path, plan_unpack
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.manifest import Manifest
from kitd.oci.reference import parse_reference
from kitd.rpc.fairness import Cost
from kitd.rpc.method import Context, Method, Params, method
from kitd.rpc.methods.kit_shelf import find, open_kit
from kitd.rpc.methods.services import Services
from kitd.rpc.peer import Role

LOCAL, REMOTE = "local://", "remote://"


class DiffParams(Params, frozen=True):
    """Two kits: `local://` is in the cache, `remote://` in its registry, others in the first."""

    a: str
    b: str


class WireSide(msgspec.Struct, frozen=True, kw_only=True):
    """One of the kits, and where it was found; `config` is the digest of its configuration."""

    reference: str
    digest: str
    remote: bool
    config: str


class WireDiffLayer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A layer of one kit or of both, as in a plan; without name and path where nothing says them.

    `here` tells whether `kits.open` has it from the cache.
    """

    digest: str
    size: int
    media_type: str
    diff_id: str | None
    kind: str
    name: str
    path: str
    mode: int | None
    prefix: str
    here: bool


class WireAnnotation(msgspec.Struct, frozen=True, kw_only=True):
    """An annotation of the manifests that is not the same; None where a kit has none."""

    key: str
    a: str | None
    b: str | None


class KitDiff(msgspec.Struct, frozen=True, kw_only=True):
    """What two kits share, and what only the first (`only_a`) and the second have."""

    identical: bool
    a: WireSide
    b: WireSide
    annotations: tuple[WireAnnotation, ...]
    shared: tuple[WireDiffLayer, ...]
    only_a: tuple[WireDiffLayer, ...]
    only_b: tuple[WireDiffLayer, ...]


@dataclass(frozen=True, slots=True)
class _Side:
    """A kit that was read."""

    wire: WireSide
    manifest: Manifest
    layers: Mapping[tuple[Digest, str], WireDiffLayer]
    """By digest, and by where that is unpacked: equal files are one blob and several layers."""


async def diff(context: Context[Services], params: DiffParams) -> KitDiff:
    """Compare two kits."""
    a, b = await _read(context, params.a), await _read(context, params.b)
    ours, theirs = a.manifest.annotations, b.manifest.annotations
    keys = sorted({*ours, *theirs})
    return KitDiff(
        identical=a.wire.digest == b.wire.digest,
        a=a.wire,
        b=b.wire,
        annotations=tuple(
            WireAnnotation(key=key, a=ours.get(key), b=theirs.get(key))
            for key in keys
            if ours.get(key) != theirs.get(key)
        ),
        shared=tuple(layer for key, layer in a.layers.items() if key in b.layers),
        only_a=tuple(layer for key, layer in a.layers.items() if key not in b.layers),
        only_b=tuple(layer for key, layer in b.layers.items() if key not in a.layers),
    )


async def _read(context: Context[Services], text: str) -> _Side:
    reference = text.removeprefix(LOCAL).removeprefix(REMOTE)
    remote = text.startswith(REMOTE)
    try:
        source, target = await find(context, reference, remote=remote)
    except ContentNotFoundError:
        repository = parse_reference(reference).repository
        if text.startswith((LOCAL, REMOTE)) or repository.is_local:
            raise
        remote = True
        source, target = await find(context, reference, remote=True)
    _, manifest, kit = await open_kit(source, target)
    layers = await run_blocking(
        partial(_layers, is_known=await _is_known(context, target.digest)),
        context.services,
        manifest,
        kit.kitfile,
    )
    side = WireSide(
        reference=reference,
        digest=target.digest,
        remote=remote,
        config="" if manifest.config is None else manifest.config.digest,
    )
    return _Side(side, manifest, layers)


async def _is_known(context: Context[Services], digest: Digest) -> bool:
    """Whether the cache has the kit, and so opens its layers, wherever it was looked for."""
    try:
        await context.services.catalog.manifest(digest)
    except ContentNotFoundError:
        return False
    return True


def _layers(
    services: Services, manifest: Manifest, kitfile: Kitfile, *, is_known: bool
) -> Mapping[tuple[Digest, str], WireDiffLayer]:
    """Return the layers of a manifest with what the Kitfile says of them. Looks at the disk."""
    planned: Sequence[UnpackLayer] = ()
    # What cannot be unpacked can be compared all the same.
    with suppress(InvalidConfigError, InvalidLayerTypeError):
        planned = plan_unpack(manifest, kitfile, ())
    found = {
        (layer.target.digest, _place(layer.target, layer.path, layer.prefix)): WireDiffLayer(
            digest=layer.target.digest,
            size=layer.target.size,
            media_type=layer.target.media_type,
            diff_id=layer.diff_id,
            kind=layer.kind,
            name=layer.name,
            path=layer.path,
            mode=layer.mode,
            prefix=layer.prefix,
            here=is_known and services.store.has(layer.target),
        )
        for layer in planned
    }
    known = {digest for digest, _ in found}
    for layer in manifest.layers:
        if layer.digest not in known:
            # Equal files are one blob, and a layer for each of their paths.
            path = annotated_path(layer) or ""
            found[layer.digest, _place(layer, path, ".")] = WireDiffLayer(
                digest=layer.digest,
                size=layer.size,
                media_type=layer.media_type,
                diff_id=None,
                kind=_kind(layer),
                name="",
                path=path,
                mode=None,
                prefix=".",
                here=is_known and services.store.has(layer),
            )
    return found


def _place(layer: Descriptor, path: str, prefix: str) -> str:
    """Return what beside the blob says where files are; in a tar their names do, not its path."""
    try:
        is_tar = parse_layer_type(layer.media_type).format is LayerFormat.TAR
    except InvalidLayerTypeError:
        is_tar = False
    return prefix if is_tar else path


def _kind(layer: Descriptor) -> str:
    try:
        return parse_layer_type(layer.media_type).kind
    except InvalidLayerTypeError:
        return ""


METHODS: tuple[Method[Services], ...] = (
    method("kits.diff", Role.READ, DiffParams, KitDiff, diff, cost=Cost.OUTSIDE),
)
