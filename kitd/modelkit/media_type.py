"""Media types of ModelKits and their layers, written and parsed; CNCF ModelPack layers parsed."""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass

from kitd.modelkit.errors import InvalidLayerTypeError
from kitd.oci.manifest import Manifest

CONFIG = "application/vnd.kitops.modelkit.config.v1+json"
ARTIFACT = "application/vnd.kitops.modelkit.manifest.v1+json"


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
}
"""What each setting that layers can be built with is called in a media type."""


@dataclass(frozen=True, slots=True)
class LayerType:
    """A layer's media type in parts. `str()` is the ModelKit spelling."""

    kind: LayerKind
    format: LayerFormat = LayerFormat.TAR
    compression: Compression = Compression.NONE

    def __str__(self) -> str:
        suffix = "" if self.compression is Compression.NONE else f"+{self.compression}"
        return f"application/vnd.kitops.modelkit.{self.kind}.v1.{self.format}{suffix}"


_MODELKIT_LAYER = re.compile(r"application/vnd\.kitops\.modelkit\.(\w+)\.v1\.(\w+)(?:\+(\w+))?")
_MODELPACK_LAYER = re.compile(
    r"application/vnd\.cncf\.model\.(\w+(?:\.\w+)?)\.v1\.(\w+)(?:\+(\w+))?"
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


def is_modelkit(manifest: Manifest) -> bool:
    """Whether the manifest is a ModelKit's; either of its two signs is enough."""
    config = manifest.config
    return config is not None and (
        manifest.artifact_type == ARTIFACT or config.media_type == CONFIG
    )
