"""Media types of ModelKits, of CNCF ModelPacks and of the layers of both, written and parsed."""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass

from kitd.modelkit.errors import InvalidLayerTypeError, UnsupportedKitError
from kitd.oci.manifest import Manifest

CONFIG = "application/vnd.kitops.modelkit.config.v1+json"
ARTIFACT = "application/vnd.kitops.modelkit.manifest.v1+json"
MODELPACK_CONFIG = "application/vnd.cncf.model.config.v1+json"
MODELPACK_ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"

_MODELKIT_SIGNS = frozenset({CONFIG, ARTIFACT})
_MODELPACK_SIGNS = frozenset(
    {
        MODELPACK_CONFIG,
        MODELPACK_ARTIFACT,
        # What the model specification called them up to v0.0.6.
        "application/vnd.cnai.model.config.v1+json",
        "application/vnd.cnai.model.manifest.v1+json",
    }
)


class KitFormat(enum.StrEnum):
    """The two ways in which a manifest describes a kit. They may share every layer."""

    MODELKIT = "modelkit"
    """KitOps' own: the config is the Kitfile."""
    MODELPACK = "modelpack"
    """The CNCF model specification's: the Kitfile is an annotation, if there is one."""


class LayerKind(enum.StrEnum):
    """What a layer's media type says it holds. Prompts travel as code."""

    MODEL = "model"
    MODEL_PART = "modelpart"
    CODE = "code"
    DATASET = "dataset"
    DOCS = "docs"
    MCP_BUNDLE = "mcpb"


class LayerFormat(enum.StrEnum):
    """How files become a blob."""

    TAR = "tar"
    RAW = "raw"
    """The bytes of the one file."""


class Compression(enum.StrEnum):
    """What was done to the blob afterwards."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


MEDIA_COMPRESSION: Mapping[str, Compression] = {
    "none": Compression.NONE,
    "gzip": Compression.GZIP,
    "gzip-fastest": Compression.GZIP,
    "zstd": Compression.ZSTD,
}
"""What each setting that layers can be built with is called in a media type."""


@dataclass(frozen=True, slots=True)
class LayerType:
    """A layer's media type in parts. `str()` is the ModelKit spelling."""

    kind: LayerKind
    format: LayerFormat = LayerFormat.TAR
    compression: Compression = Compression.NONE

    def __str__(self) -> str:
        return f"application/vnd.kitops.modelkit.{self.kind}.v1.{self._encoding}"

    @property
    def as_modelpack(self) -> str:
        """The ModelPack spelling. Raises `UnsupportedKitError` for what it has no word for."""
        kind = _MODELPACK_NAMES.get(self.kind)
        if kind is None:
            raise UnsupportedKitError(
                "MCP servers have no place in a ModelPack",
                hint="pack a ModelKit, or take mcpServers out of the Kitfile",
            )
        if self.format is LayerFormat.RAW and self.compression is not Compression.NONE:
            raise UnsupportedKitError(
                "a ModelPack's raw layers cannot be compressed",
                hint="pack with --compression none, or with --layer-format tar",
            )
        return f"application/vnd.cncf.model.{kind}.v1.{self._encoding}"

    @property
    def _encoding(self) -> str:
        suffix = "" if self.compression is Compression.NONE else f"+{self.compression}"
        return f"{self.format}{suffix}"


_MODELKIT_LAYER = re.compile(r"application/vnd\.kitops\.modelkit\.(\w+)\.v1\.(\w+)(?:\+(\w+))?")
_MODELPACK_LAYER = re.compile(
    r"application/vnd\.(?:cncf|cnai)\.model\.(\w+(?:\.\w+)?)\.v1\.(\w+)(?:\+(\w+))?"
)
_MODELKIT_KINDS = {str(kind): kind for kind in LayerKind}
_COMPRESSIONS = {None: Compression.NONE, "gzip": Compression.GZIP, "zstd": Compression.ZSTD}
_MODELPACK_KINDS = {
    "weight": LayerKind.MODEL,
    "weight.config": LayerKind.MODEL_PART,
    "code": LayerKind.CODE,
    "dataset": LayerKind.DATASET,
    "doc": LayerKind.DOCS,
}
_MODELPACK_NAMES = {kind: name for name, kind in _MODELPACK_KINDS.items()}


def parse_layer_type(media_type: str) -> LayerType:
    """Return the parts of a ModelKit or ModelPack layer's media type.

    Raises `InvalidLayerTypeError` for anything else, an unknown kind, format or compression
    included.
    """
    for pattern, kinds in (
        (_MODELKIT_LAYER, _MODELKIT_KINDS),
        (_MODELPACK_LAYER, _MODELPACK_KINDS),
    ):
        if match := pattern.fullmatch(media_type):
            kind, layer_format, compression = match.groups()
            try:
                return LayerType(kinds[kind], LayerFormat(layer_format), _COMPRESSIONS[compression])
            except (KeyError, ValueError) as error:
                raise InvalidLayerTypeError(
                    f"{media_type[:160]} is a layer of a kind that kitd does not know",
                    hint="the kit was written by a newer tool; a newer kitd may read it",
                ) from error
    raise InvalidLayerTypeError(f"{media_type[:160]!r} is not the type of a ModelKit's layer")


def kit_format(manifest: Manifest) -> KitFormat | None:
    """Return which format a manifest has, or None if it is no kit's.

    Artifact type and config type are two signs, and either is enough. Where they say both, it is
    a ModelKit, and `is_contradictory`.
    """
    signs = _signs(manifest)
    if signs & _MODELKIT_SIGNS:
        return KitFormat.MODELKIT
    return KitFormat.MODELPACK if signs & _MODELPACK_SIGNS else None


def is_contradictory(manifest: Manifest) -> bool:
    """Whether a manifest says that it is of one format, and its config of the other."""
    signs = _signs(manifest)
    return bool(signs & _MODELKIT_SIGNS and signs & _MODELPACK_SIGNS)


def _signs(manifest: Manifest) -> set[str | None]:
    config = manifest.config
    return set() if config is None else {manifest.artifact_type, config.media_type}
