"""Media types of layers and kits."""

from dataclasses import replace

import pytest

from kitd.modelkit import media_type as types
from kitd.modelkit.errors import InvalidLayerTypeError, UnsupportedKitError
from kitd.modelkit.media_type import (
    Compression,
    KitFormat,
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
        (None, types.CONFIG, KitFormat.MODELKIT),
        (types.ARTIFACT, "application/vnd.oci.empty.v1+json", KitFormat.MODELKIT),
        (types.ARTIFACT, types.MODELPACK_CONFIG, KitFormat.MODELKIT),
        (None, types.MODELPACK_CONFIG, KitFormat.MODELPACK),
        (types.MODELPACK_ARTIFACT, "application/vnd.oci.empty.v1+json", KitFormat.MODELPACK),
        (None, "application/vnd.cnai.model.config.v1+json", KitFormat.MODELPACK),
        ("application/vnd.cnai.model.manifest.v1+json", "", KitFormat.MODELPACK),
        (None, "application/vnd.oci.image.config.v1+json", None),
        (
            "application/vnd.docker.ai.model",
            "application/vnd.docker.ai.model.config.v0.1+json",
            None,
        ),
    ],
)
def test_either_sign_tells_a_kit(artifact_type, config_type, kit):
    config = describe(config_type, b"{}")
    manifest = Manifest(OCI_MANIFEST, artifact_type, config, (), (), None, {})
    assert types.kit_format(manifest) is kit
    assert types.kit_format(replace(manifest, config=None)) is None


@pytest.mark.parametrize(
    ("layer_type", "text"),
    [
        (LayerType(LayerKind.MODEL), PACK + "weight.v1.tar"),
        (LayerType(LayerKind.MODEL_PART, LayerFormat.RAW), PACK + "weight.config.v1.raw"),
        (LayerType(LayerKind.CODE, compression=Compression.GZIP), PACK + "code.v1.tar+gzip"),
        (LayerType(LayerKind.DATASET, compression=Compression.ZSTD), PACK + "dataset.v1.tar+zstd"),
        (LayerType(LayerKind.DOCS), PACK + "doc.v1.tar"),
    ],
)
def test_layers_have_a_name_in_a_modelpack(layer_type, text):
    assert layer_type.as_modelpack == text
    assert parse_layer_type(text) == layer_type
    assert parse_layer_type(text.replace("cncf", "cnai")) == layer_type


@pytest.mark.parametrize(
    ("layer_type", "problem"),
    [
        (LayerType(LayerKind.MCP_BUNDLE, LayerFormat.RAW), "no place in a ModelPack"),
        (LayerType(LayerKind.MODEL, LayerFormat.RAW, Compression.GZIP), "cannot be compressed"),
    ],
)
def test_what_a_modelpack_has_no_name_for_is_refused(layer_type, problem):
    with pytest.raises(UnsupportedKitError, match=problem):
        layer_type.as_modelpack  # noqa: B018 - it raises
