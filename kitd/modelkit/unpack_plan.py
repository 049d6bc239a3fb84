"""Which layers of a kit an unpack needs: the config's entries that filters select, by digest."""

from collections.abc import Sequence
from dataclasses import dataclass

from kitd.modelkit.errors import InvalidConfigError
from kitd.modelkit.filter import Filter, selects
from kitd.modelkit.kitfile import EntryKind, Kitfile, LayerEntry, layer_entries
from kitd.modelkit.media_type import LayerFormat, parse_layer_type
from kitd.modelkit.path import clean_path
from kitd.modelkit.plan import FILE_PATH
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.manifest import Manifest


@dataclass(frozen=True, slots=True)
class UnpackLayer:
    """One layer to extract at the root of the target, in the order of the Kitfile."""

    target: Descriptor
    diff_id: Digest
    kind: EntryKind
    name: str
    path: str


def plan_unpack(
    manifest: Manifest, kitfile: Kitfile, filters: Sequence[Filter]
) -> tuple[UnpackLayer, ...]:
    """Return the layers of the entries that the filters select; no filter selects all.

    Raises `InvalidConfigError` where config and manifest disagree, `InvalidLayerTypeError`.
    """
    return tuple(
        _layer(manifest, place) for place in layer_entries(kitfile) if selects(filters, place)
    )


def _layer(manifest: Manifest, place: LayerEntry) -> UnpackLayer:
    entry = place.entry
    if entry.digest is None:
        raise InvalidConfigError(
            f"the kit does not say which layer {entry.path} is in",
            hint="it was packed before KitOps recorded that; pack it again with a newer kit",
        )
    same = [layer for layer in manifest.layers if layer.digest == entry.digest]
    if not same:
        raise InvalidConfigError(f"{entry.digest} of {entry.path} is no layer of the manifest")
    path = clean_path(entry.path)
    target = same[0]
    if parse_layer_type(target.media_type).format is LayerFormat.RAW:
        # Two equal files are one blob at two paths; the annotation tells them apart.
        by_path = [layer for layer in same if layer.annotations.get(FILE_PATH, path) == path]
        target = by_path[0] if by_path else target
    name = getattr(entry, "name", "")
    return UnpackLayer(target, entry.diff_id or entry.digest, place.kind, name, path)
