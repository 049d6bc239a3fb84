"""Which layers a Kitfile makes, and which of them take each file, decided in one walk.

A layer holds what lies in its path, less what belongs to a deeper layer, and the directories that
lead to it, so that extracting every layer at one root gives the project back. Paths are compared
by whole elements: where kit 1.7 compares strings (a layer `data` keeps `data.csv` out of a layer
`.`) or drops names that hold `..`, its files would be in no layer, and here they are packed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kitd.modelkit.dialect import Dialect
from kitd.modelkit.errors import UnsupportedKitError
from kitd.modelkit.ignore import UNDECIDED, IgnoreRules
from kitd.modelkit.kitfile import EntryKind, Kitfile, LayerEntry, layer_entries
from kitd.modelkit.media_type import Compression, LayerFormat, LayerKind, LayerType
from kitd.modelkit.path import clean_path
from kitd.modelkit.validation import require_valid

FILE_PATH = "org.cncf.model.filepath"
FILE_METADATA = "org.cncf.model.file.metadata+json"
LAYER_SUBTYPE = "ml.kitops.modelkit.layer-subtype"

LAYER_KINDS = {
    EntryKind.MODEL: LayerKind.MODEL,
    EntryKind.MODEL_PART: LayerKind.MODEL_PART,
    EntryKind.CODE: LayerKind.CODE,
    EntryKind.DATASET: LayerKind.DATASET,
    EntryKind.DOCS: LayerKind.DOCS,
    EntryKind.PROMPT: LayerKind.CODE,
    EntryKind.MCP_SERVER: LayerKind.MCP_BUNDLE,
}
"""What a layer of each kind of entry is called."""
_MCP_BUNDLE = LayerType(LayerKind.MCP_BUNDLE, LayerFormat.RAW)


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """One layer to be built. `index` counts the Kitfile's entries of this kind."""

    kind: EntryKind
    index: int
    path: bytes
    """Cleaned and relative to the project; `.` is the project itself."""
    type: LayerType
    annotations: Mapping[str, str] = field(hash=False)
    """Of the layer's descriptor. A raw layer's gain `FILE_METADATA` once the file is read."""


def plan_layers(
    kitfile: Kitfile,
    dialect: Dialect,
    *,
    layer_format: LayerFormat = LayerFormat.TAR,
    compression: Compression = Compression.NONE,
) -> tuple[LayerPlan, ...]:
    """Return the layers of a Kitfile in the order of the manifest.

    Raises `KitfileError` if it is not valid in the dialect, `UnsupportedKitError` for what kitd or
    the dialect cannot pack.
    """
    require_valid(kitfile, dialect)
    plain = layer_format is LayerFormat.TAR and compression is not Compression.ZSTD
    if dialect is Dialect.KIT_1_7 and not plain:
        raise UnsupportedKitError(
            f"kit 1.7 cannot read {layer_format} layers with compression {compression}",
            hint="set modelkit.dialect to current, or use tar layers without zstd",
        )
    return tuple(
        _layer_plan(place, dialect, layer_format, compression) for place in layer_entries(kitfile)
    )


def _layer_plan(
    place: LayerEntry, dialect: Dialect, layer_format: LayerFormat, compression: Compression
) -> LayerPlan:
    path = clean_path(place.entry.path)
    if place.kind is EntryKind.MCP_SERVER:
        layer_type = _MCP_BUNDLE
    else:
        layer_type = LayerType(LAYER_KINDS[place.kind], layer_format, compression)
    annotations: dict[str, str] = {}
    if dialect is Dialect.CURRENT:
        annotations[FILE_PATH] = path
        if place.kind is EntryKind.PROMPT:
            annotations[LAYER_SUBTYPE] = "prompt"
    return LayerPlan(place.kind, place.index, path.encode("utf-8"), layer_type, annotations)


def select(
    kitfile: Kitfile,
    ignore: IgnoreRules,
    dialect: Dialect,
    *,
    layer_format: LayerFormat = LayerFormat.TAR,
    compression: Compression = Compression.NONE,
) -> "Selection":
    """Return the decisions for one walk over a project. Raises what `plan_layers` does."""
    layers = plan_layers(kitfile, dialect, layer_format=layer_format, compression=compression)
    return Selection(layers, ignore)


@dataclass(frozen=True, slots=True)
class _Directory:
    """What is known of a directory the walk is in."""

    prefix: bytes
    """Its path with a slash, empty for the project."""
    owners: tuple[int, ...]
    """The layers that take what lies in it, unless a deeper layer does."""
    verdict: int
    """The ignore rules' verdict."""


class Selection:
    """The decisions of one walk over a project, for all its layers at once.

    The caller walks in pre-order, the names of each directory sorted bytewise, and offers only
    regular files and directories, by `lstat`; never the project's directory itself. Asking in
    another order gives the same answers, only slower. The walk's place is remembered, so every
    walk needs its own Selection.

    An entry costs two look-ups and the ignore rules' one; nothing grows with the tree.
    """

    __slots__ = ("_above_raw", "_above_tar", "_ignore", "_raw", "_stack", "_tar", "layers")

    def __init__(
        self, layers: tuple[LayerPlan, ...], ignore: IgnoreRules, parents: Iterable[bytes] = ()
    ) -> None:
        """Begin a walk; `parents` are the paths of layers that other kits have.

        What lies in these belongs to those kits, unless a layer of this one begins in there.
        """
        self.layers = layers
        self._ignore = ignore
        self._tar: dict[bytes, tuple[int, ...]] = {}
        self._raw: dict[bytes, tuple[int, ...]] = {}
        self._above_tar: dict[bytes, tuple[int, ...]] = {}
        self._above_raw: set[bytes] = set()
        for number, layer in enumerate(layers):
            directories = _directories_above(layer.path)
            if layer.type.format is LayerFormat.RAW:
                self._raw[layer.path] = (*self._raw.get(layer.path, ()), number)
                self._above_raw.update(directories)
            else:
                self._tar[layer.path] = (*self._tar.get(layer.path, ()), number)
                for directory in directories:
                    above = self._above_tar.get(directory, ())
                    self._above_tar[directory] = (*above, number)
        for path in parents:
            self._tar.setdefault(path, ())
        self._stack = [_Directory(b"", self._tar.get(b".", ()), UNDECIDED)]

    def enter(self, path: bytes) -> bool:
        """Whether a layer may take something beneath this directory."""
        # Raw layers are files named one by one, which no ignore rule leaves out.
        if path in self._above_raw:
            return True
        owners, verdict = self._judge(path, self._parent(path))
        if self._ignore.is_ignored(verdict) and not self._ignore.has_exceptions:
            return False
        return bool(owners) or path in self._above_tar

    def layers_of(self, path: bytes, *, is_dir: bool) -> tuple[int, ...]:
        """Return the numbers of the layers that take this entry, in order."""
        if not is_dir and path in self._raw:
            return self._raw[path]
        owners, verdict = self._judge(path, self._parent(path))
        if self._ignore.is_ignored(verdict):
            return ()
        if is_dir and path in self._above_tar:
            return tuple(sorted((*owners, *self._above_tar[path])))
        return owners

    def _judge(self, path: bytes, parent: _Directory) -> tuple[tuple[int, ...], int]:
        owners = self._tar.get(path)
        if owners is None:
            owners = () if path in self._raw else parent.owners
        return owners, self._ignore.judge(path, parent.verdict)

    def _parent(self, path: bytes) -> _Directory:
        """Return the directory that a path is in, going back or down from the last one."""
        stack = self._stack
        while not path.startswith(stack[-1].prefix):
            stack.pop()
        directory = stack[-1]
        slash = path.find(b"/", len(directory.prefix))
        while slash >= 0:
            owners, verdict = self._judge(path[:slash], directory)
            directory = _Directory(path[: slash + 1], owners, verdict)
            stack.append(directory)
            slash = path.find(b"/", slash + 1)
        return directory


def _directories_above(path: bytes) -> tuple[bytes, ...]:
    """Return the directories that lead to a path, the project's own left out."""
    elements = path.split(b"/")
    return tuple(b"/".join(elements[:depth]) for depth in range(1, len(elements)))
