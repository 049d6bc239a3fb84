"""Media types of layers and kits."""

import pytest

from kitd.modelkit import media_type as types
from kitd.modelkit.errors import InvalidLayerTypeError
from kitd.modelkit.media_type import (
    Compression,
    LayerFormat,
    LayerKind,
    LayerType,
    parse_layer_type,
)
from kitd.oci.descriptor import describe
from kitd.oci.manifest import Manifest
from kitd.oci.media_type import OCI_MANIFEST

KIT, PACK = "application/vnd.kitops.modelkit.", "application/vnd.cncf.model."


@pytest.mark.parametrize(
    ("text", "layer_type"),
    [
        (KIT + "model.v1.tar", LayerType(LayerKind.MODEL)),
        (KIT + "modelpart.v1.tar+gzip",
         LayerType(LayerKind.MODEL_PART, compression=Compression.GZIP)),
        (KIT + "dataset.v1.raw+zstd",
         LayerType(LayerKind.DATASET, LayerFormat.RAW, Compression.ZSTD)),
        (KIT + "mcpb.v1.raw", LayerType(LayerKind.MCP_BUNDLE, LayerFormat.RAW)),
        (PACK + "weight.v1.raw", LayerType(LayerKind.MODEL, LayerFormat.RAW)),
        (PACK + "weight.config.v1.tar", LayerType(LayerKind.MODEL_PART)),
        (PACK + "doc.v1.tar+zstd", LayerType(LayerKind.DOCS, compression=Compression.ZSTD)),
    ],
)  # fmt: skip
def test_layer_types_are_parsed(text, layer_type):
    assert parse_layer_type(text) == layer_type
    if text.startswith(KIT):
        assert str(layer_type) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "application/octet-stream",
        KIT + "model.v1.tar+none",
        KIT + "model.v1.tar+lzma",
        KIT + "model.v1.tar+gzip-fastest",
        KIT + "model.v1.zip",
        KIT + "weight.v1.tar",
        KIT + "model.v2.tar",
        KIT + "model.v1.tar ",
        "x" + KIT + "model.v1.tar",
        (KIT + "model.v1.tar").replace(".", "-"),
        PACK + "model.v1.tar",
    ],
)
def test_everything_else_is_refused(text):
    with pytest.raises(InvalidLayerTypeError):
        parse_layer_type(text)


@pytest.mark.parametrize(
    ("artifact_type", "config_type", "kit"),
    [
        (None, types.CONFIG, True),
        (types.ARTIFACT, "application/vnd.oci.empty.v1+json", True),
        (types.ARTIFACT, "application/vnd.cncf.model.config.v1+json", True),
        (None, "application/vnd.cncf.model.config.v1+json", False),
        (None, "application/vnd.oci.image.config.v1+json", False),
    ],
)
def test_either_sign_tells_a_kit(artifact_type, config_type, kit):
    config = describe(config_type, b"{}")
    manifest = Manifest(OCI_MANIFEST, artifact_type, config, (), (), None, {})
    assert types.is_modelkit(manifest) == kit
