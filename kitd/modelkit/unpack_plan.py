"""Which layers of a kit an unpack needs: the config's entries that filters select, by digest.

Kits that were packed before KitOps recorded digests count instead: the second `dataset` layer is
that of the second dataset.
"""

import posixpath
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from kitd.errors import printable
from kitd.modelkit.errors import KitMismatchError
from kitd.modelkit.filter import Filter, selection
from kitd.modelkit.kitfile import EntryKind, Kitfile, LayerEntry, layer_entries
from kitd.modelkit.media_type import Compression, LayerFormat, LayerKind, parse_layer_type
from kitd.modelkit.modelpack import layer_mode, layer_path
from kitd.modelkit.path import clean_path
from kitd.modelkit.plan import LAYER_KINDS
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.manifest import Manifest


@dataclass(frozen=True, slots=True)
class UnpackLayer:
    """One layer to extract, in the order of the Kitfile."""

    target: Descriptor
    diff_id: Digest | None
    """None where it is compressed and nobody said what is in it."""
    kind: EntryKind
    name: str
    path: str
    """Cleaned, and unchecked: who writes files has to see to it that it leads nowhere else. A raw
    layer is the file of this path."""
    mode: int | None = None
    """The mode of a raw layer's file without its type, where it is known."""
    prefix: str = "."
    """The directory that a tar's names begin in, as unchecked as the path."""


def plan_unpack(
    manifest: Manifest, kitfile: Kitfile, filters: Sequence[Filter]
) -> tuple[UnpackLayer, ...]:
    """Return the layers of the entries that the filters select; no filter selects all.

    What two entries have in common comes once. Raises `KitMismatchError` where config and
    manifest disagree, `InvalidConfigError`, `InvalidLayerTypeError`.
    """
    places = layer_entries(kitfile)
    if len({place.entry.digest is None for place in places}) > 1:
        raise KitMismatchError(
            "the kit says of some of its entries which layer they are in, and not of others",
            hint="it cannot be told what the others are: pack it again",
        )
    if any(place.entry.digest is None for place in places):
        targets = _by_position(manifest, places)
    else:
        targets = _by_digest(manifest, places)
    is_taken = selection(filters)
    found: dict[tuple[Digest, str], UnpackLayer] = {}
    for place, target in zip(places, targets, strict=True):
        if not is_taken(place):
            continue
        if target is None:
            raise KitMismatchError(
                f"{place.entry.digest or 'the layer'} of {printable(place.entry.path[:160])}"
                " is no layer of the manifest"
            )
        layer = _layer(place, target)
        is_raw = parse_layer_type(target.media_type).format is LayerFormat.RAW
        found.setdefault((target.digest, layer.path if is_raw else layer.prefix), layer)
    return tuple(found.values())


def _by_digest(manifest: Manifest, places: Sequence[LayerEntry]) -> Sequence[Descriptor | None]:
    layers: dict[tuple[Digest | None, str | None], Descriptor] = {}
    for layer in manifest.layers:
        layers.setdefault((layer.digest, None), layer)
        layers.setdefault((layer.digest, annotated_path(layer)), layer)
    return [
        # Two equal files are one blob at two paths; the annotation tells them apart.
        layers.get((place.entry.digest, clean_path(place.entry.path)))
        or layers.get((place.entry.digest, None))
        for place in places
    ]


def annotated_path(layer: Descriptor) -> str | None:
    """Return where a layer's annotation says that its files belong, if it has one."""
    path = layer_path(layer)
    return None if not path else clean_path(path)


def _by_position(manifest: Manifest, places: Sequence[LayerEntry]) -> Sequence[Descriptor | None]:
    waiting: defaultdict[LayerKind, deque[Descriptor]] = defaultdict(deque)
    for layer in manifest.layers:
        waiting[parse_layer_type(layer.media_type).kind].append(layer)
    kinds = [LAYER_KINDS[place.kind] for place in places]
    targets = [waiting[kind].popleft() if waiting[kind] else None for kind in kinds]
    if any(waiting.values()):
        raise KitMismatchError("the manifest has more layers than the config has entries")
    return targets


def _layer(place: LayerEntry, target: Descriptor) -> UnpackLayer:
    entry = place.entry
    layer_type = parse_layer_type(target.media_type)
    is_raw = layer_type.format is LayerFormat.RAW
    diff_id = entry.diff_id
    if diff_id is None and layer_type.compression is Compression.NONE:
        diff_id = target.digest
    path = clean_path(entry.path)
    return UnpackLayer(
        target,
        diff_id,
        place.kind,
        getattr(entry, "name", ""),
        (annotated_path(target) if is_raw else None) or path,
        layer_mode(target) if is_raw else None,
        # Before KitOps recorded digests, names began in the directory that the entry is in.
        "." if entry.digest is not None or is_raw else posixpath.dirname(path) or ".",
    )
