"""Packing through a worker process gives the bytes that kit gives."""

import gzip
import json

import pytest

from kitd.errors import KitdError
from kitd.modelkit.dialect import Dialect
from kitd.modelkit.manifest import encode_manifest
from kitd.modelkit.media_type import CONFIG
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import digest_of
from kitd.packing.order import Known, Planned, Project

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def pack(pool, root, dialect, **settings):
    project = Project(root=str(root), dialect=dialect, **settings)
    return await pool.pack(project, know_nothing, known=None, expected=None)


async def know_nothing(notice):
    return Known({}) if isinstance(notice, Planned) else None


def described(layer):
    return Descriptor(layer.media_type, layer.digest, layer.size, layer.annotations)


async def test_kit_1_7_dialect_gives_the_same_manifest(
    case, expected, materialise, shared_pool, shared_cache
):
    root = materialise(case)
    if not expected["ok"]:
        with pytest.raises(KitdError):
            await pack(shared_pool, root, Dialect.KIT_1_7)
        return
    packed = await pack(shared_pool, root, Dialect.KIT_1_7)
    config = Descriptor(CONFIG, packed.config_digest, packed.config_size)
    layers = [described(layer) for layer in packed.layers]
    manifest = encode_manifest(config, layers, Dialect.KIT_1_7, cli_version="1.7.0")
    assert manifest.decode() == expected["manifest"]["text"]
    text = shared_cache.read(config, max_bytes=config.size).decode()
    assert text == expected["config"]["text"]
    for layer in layers:
        content = shared_cache.path_of(layer.digest).read_bytes()
        assert (digest_of(content), len(content)) == (layer.digest, layer.size)


async def test_current_dialect_gives_the_same_layers_and_config(
    case, expected, materialise, shared_pool
):
    root = materialise(case)
    if not expected["ok"]:
        with pytest.raises(KitdError):
            await pack(shared_pool, root, Dialect.CURRENT)
        return
    packed = await pack(shared_pool, root, Dialect.CURRENT)
    assert [layer.digest for layer in packed.layers] == [
        layer["digest"] for layer in expected["layers"]
    ]
    assert packed.config_digest == expected["config"]["digest"]
    assert all(layer.diff_id == layer.digest for layer in packed.layers)


@pytest.mark.parametrize(
    ("compression", "flags"), [("gzip", b"\0\xff"), ("gzip-fastest", b"\4\xff")]
)
async def test_a_compressed_layer_is_the_same_tar(
    compression, flags, golden_cases, materialise, shared_pool, shared_cache
):
    root = materialise(golden_cases["sentiment-classifier"])
    plain = await pack(shared_pool, root, Dialect.CURRENT)
    packed = await pack(shared_pool, root, Dialect.CURRENT, compression=compression)
    for layer, tar in zip(packed.layers, plain.layers, strict=True):
        content = shared_cache.path_of(layer.digest).read_bytes()
        assert content[:10] == b"\x1f\x8b\x08\0\0\0\0\0" + flags
        assert digest_of(gzip.decompress(content)) == layer.diff_id == tar.digest
        assert digest_of(content) == layer.digest
        assert layer.media_type == f"{tar.media_type}+gzip"
    config = Descriptor(CONFIG, packed.config_digest, packed.config_size)
    model = json.loads(shared_cache.read(config, max_bytes=config.size))["model"]
    assert model["diffId"] == plain.layers[0].digest
    assert model["digest"] == packed.layers[0].digest


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_a_raw_layer_is_the_file(compression, project, shared_pool, shared_cache):
    files = {"w.bin": bytes(200_000), "src/train.py": "import model\n", "empty": ""}
    root = project(
        {
            "Kitfile": "manifestVersion: 1.0.0\nmodel: {path: w.bin}\n"
            "code: [{path: src/train.py}, {path: ./empty}]\n",
            **files,
        }
    )
    (root / "src/train.py").chmod(0o755)
    packed = await pack(
        shared_pool, root, Dialect.CURRENT, layer_format="raw", compression=compression
    )
    model, train, empty = packed.layers
    assert model.diff_id == digest_of(files["w.bin"])
    assert empty.diff_id == digest_of(b"")
    content = shared_cache.path_of(train.digest).read_bytes()
    if compression == "gzip":
        content = gzip.decompress(content)
    assert content == files["src/train.py"].encode()
    metadata = json.loads(train.annotations["org.cncf.model.file.metadata+json"])
    assert (metadata["name"], metadata["mode"], metadata["size"]) == ("train.py", 0o755, 13)
    assert train.annotations["org.cncf.model.filepath"] == "src/train.py"


async def test_raw_layers_are_single_files(project, shared_pool):
    root = project({"Kitfile": "manifestVersion: 1.0.0\nmodel: {path: dir}\n", "dir/w": "w"})
    with pytest.raises(KitdError, match="dir is not a file"):
        await pack(shared_pool, root, Dialect.CURRENT, layer_format="raw")


async def test_packing_again_reuses_every_layer(golden_cases, materialise, shared_pool):
    root = materialise(golden_cases["nested-layers"])
    first = await pack(shared_pool, root, Dialect.CURRENT)
    again = await pack(shared_pool, root, Dialect.CURRENT)
    assert all(layer.reused for layer in again.layers)
    assert again.fingerprint == first.fingerprint
    assert [layer.digest for layer in again.layers] == [layer.digest for layer in first.layers]
