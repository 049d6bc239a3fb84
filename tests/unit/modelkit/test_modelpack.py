"""Reading ModelPacks of any writer, and what kitd puts into its own."""

import json
from dataclasses import replace

import pytest

from kitd.modelkit.config_blob import MAX_CONFIG_BYTES, encode_config
from kitd.modelkit.errors import InvalidConfigError, UnsupportedKitError
from kitd.modelkit.kit import read_kit
from kitd.modelkit.kitfile import (
    Code,
    Dataset,
    Kitfile,
    LayerDigests,
    Model,
    ModelPart,
    Package,
    with_layer_digests,
)
from kitd.modelkit.manifest import KITFILE
from kitd.modelkit.media_type import MODELPACK_ARTIFACT, MODELPACK_CONFIG
from kitd.modelkit.modelpack import (
    as_modelpack_layers,
    encode_modelpack_config,
    layer_mode,
    parse_modelpack_config,
)
from kitd.oci.descriptor import Descriptor, describe
from kitd.oci.digest import digest_of
from kitd.oci.manifest import Manifest
from kitd.oci.media_type import OCI_MANIFEST

PATH = "org.cncf.model.filepath"
METADATA = "org.cncf.model.file.metadata+json"
CREATED = "2026-01-02T03:04:05Z"


def layer(kind: str, path: str | None, **annotations: str) -> Descriptor:
    named = annotations if path is None else {PATH: path, **annotations}
    content = f"{kind} {path}".encode()
    media_type = kind if "/" in kind else f"application/vnd.cncf.model.{kind}"
    return Descriptor(media_type, digest_of(content), len(content), named)


def config(*layers: Descriptor, **descriptor: object) -> bytes:
    diff_ids = [each.digest for each in layers]
    return json.dumps(
        {"descriptor": descriptor, "modelfs": {"type": "layers", "diffIds": diff_ids}, "config": {}}
    ).encode()


def manifest(*layers: Descriptor, **annotations: str) -> Manifest:
    return Manifest(
        OCI_MANIFEST,
        MODELPACK_ARTIFACT,
        describe(MODELPACK_CONFIG, b"{}"),
        layers,
        (),
        None,
        annotations,
    )


def test_a_kitfile_is_made_of_the_layers():
    """The first weights are the model, what else belongs to it are its parts, in their order."""
    layers = (
        layer("weight.config.v1.raw", "config.json"),
        layer("weight.v1.raw", "model-1.safetensors"),
        layer("weight.v1.raw", "model-2.safetensors"),
        layer("code.v1.tar", "src"),
        layer("code.v1.raw", "ask.md", **{"ml.kitops.modelkit.layer-subtype": "prompt"}),
        layer("dataset.v1.tar", "data"),
        layer("doc.v1.raw", "docs/README.md"),
    )
    written = config(
        *layers,
        name="tiny",
        version="1.2",
        description="a model",
        authors=["Ada", "Bob"],
        licenses=["MIT"],
    )
    kit = read_kit(manifest(*layers), written)
    assert (kit.is_generated, kit.notes) == (True, ())
    assert kit.kitfile.package == Package("tiny", "1.2", "a model", "MIT", ("Ada", "Bob"))
    model = kit.kitfile.model
    assert model is not None
    assert (model.path, model.digest, model.diff_id) == (
        "model-1.safetensors",
        layers[1].digest,
        layers[1].digest,
    )
    assert [part.path for part in model.parts] == ["config.json", "model-2.safetensors"]
    assert [code.path for code in kit.kitfile.code] == ["src"]
    assert [prompt.path for prompt in kit.kitfile.prompts] == ["ask.md"]
    assert [dataset.path for dataset in kit.kitfile.datasets] == ["data"]
    assert [docs.path for docs in kit.kitfile.docs] == ["docs/README.md"]


def test_without_weights_there_is_no_model():
    data = layer("dataset.v1.tar", "data")
    assert read_kit(manifest(data), config(data)).kitfile.model is None


def test_the_first_names_of_the_specification_are_read():
    weights = Descriptor(
        "application/vnd.cnai.model.weight.v1.raw",
        digest_of(b"w"),
        1,
        {
            "org.cnai.model.filepath": "model.gguf",
            "org.cnai.model.file.metadata+json": '{"mode":493}',
        },
    )
    old = manifest(weights)
    old = replace(
        old,
        artifact_type=None,
        config=describe("application/vnd.cnai.model.config.v1+json", b"{}"),
    )
    written = json.dumps({"modelfs": {"type": "layers", "diff_ids": [weights.digest]}}).encode()
    model = read_kit(old, written).kitfile.model
    assert model is not None
    assert (model.path, model.diff_id) == ("model.gguf", weights.digest)
    assert layer_mode(weights) == 0o755


def test_layers_of_unknown_types_are_left_out_with_a_word():
    known, unknown = layer("weight.v1.raw", "a"), layer("tokens.v1.raw", "b")
    foreign = layer("application/octet-stream", "c")
    layers = (known, unknown, foreign)
    kit = read_kit(manifest(*layers), config(*layers))
    assert kit.kitfile.model is not None
    assert kit.kitfile.model.parts == ()
    assert [
        digest in note
        for digest, note in zip((unknown.digest, foreign.digest), kit.notes, strict=True)
    ] == [True, True]


def test_a_tar_needs_no_name_and_a_file_has_to_have_one():
    archive = layer("code.v1.tar", None)
    assert read_kit(manifest(archive), config(archive)).kitfile.code[0].path == "."
    named = layer("code.v1.raw", None, **{METADATA: '{"name":"run.py","mode":420}'})
    assert read_kit(manifest(named), config(named)).kitfile.code[0].path == "run.py"
    nameless = layer("code.v1.raw", None)
    with pytest.raises(InvalidConfigError, match="a file without a name"):
        read_kit(manifest(nameless), config(nameless))


def test_diff_ids_that_do_not_fit_the_layers_are_not_used():
    first, second = layer("weight.v1.raw", "a"), layer("doc.v1.raw", "b")
    kit = read_kit(manifest(first, second), config(first))
    assert kit.kitfile.model is not None
    assert kit.kitfile.model.diff_id is None
    assert kit.kitfile.docs[0].diff_id is None
    assert len(kit.notes) == 1


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "cannot be read"),
        ('{"model":{"path":"a"}}', "not that of its layers"),
        (json.dumps({"code": [{"path": "a", "digest": digest_of(b"gone")}]}), "not that of its"),
        ("{}", "not that of its layers"),
    ],
)
def test_the_layers_count_where_the_kitfile_is_not_theirs(text, word):
    weights = layer("weight.v1.raw", "a")
    kit = read_kit(manifest(weights, **{KITFILE: text}), config(weights))
    assert kit.is_generated
    assert kit.kitfile.model is not None
    assert kit.kitfile.model.digest == weights.digest
    assert word in kit.notes[0]


def test_a_kitfile_need_not_name_layers_that_nobody_knows():
    weights, unknown = layer("weight.v1.raw", "a"), layer("tokens.v1.raw", "b")
    text = encode_config(
        with_layer_digests(
            Kitfile(model=Model(name="m", path="a")),
            [LayerDigests(weights.digest, weights.digest)],
        )
    ).decode()
    kit = read_kit(manifest(weights, unknown, **{KITFILE: text}), config(weights, unknown))
    assert not kit.is_generated
    assert kit.kitfile.model is not None
    assert kit.kitfile.model.name == "m"


def test_anything_else_is_no_kit():
    other = replace(
        manifest(), artifact_type=None, config=describe("application/vnd.oci.empty.v1+json", b"{}")
    )
    with pytest.raises(UnsupportedKitError):
        read_kit(other, b"{}")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"descriptor":[]}',
        b'{"descriptor":{"name":1}}',
        b'{"descriptor":{"authors":"Ada"}}',
        b'{"descriptor":{"licenses":[1]}}',
        b'{"modelfs":{"diffIds":["sha256:zz"]}}',
        b'{"modelfs":{"diffIds":{}}}',
        b'{"config":{"format":[]}}',
        b'{"a":1,"a":2}',
    ],
)
def test_a_config_that_is_none_is_refused(content):
    with pytest.raises(InvalidConfigError):
        parse_modelpack_config(content, max_bytes=MAX_CONFIG_BYTES)


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ('{"mode":420}', 0o644),
        ('{"mode":33261}', 0o755),
        ('{"mode":4095}', 0o7777),
        ('{"mode":0}', None),
        ("{}", None),
        ("", None),
    ],
)
def test_the_mode_of_a_file(text, mode):
    assert layer_mode(layer("code.v1.raw", "a", **{METADATA: text})) == mode


@pytest.mark.parametrize(
    "text", ["{", '{"mode":"rw"}', '{"mode":-1}', '{"x":"%s"}' % ("y" * 70_000)]
)
def test_bad_metadata_are_refused(text):
    with pytest.raises(InvalidConfigError):
        layer_mode(layer("code.v1.raw", "a", **{METADATA: text}))


def test_a_config_says_what_the_specification_has_words_for():
    digests = [LayerDigests(digest_of(b"%d" % n), digest_of(b"plain %d" % n)) for n in range(4)]
    kitfile = with_layer_digests(
        Kitfile(
            package=Package("tiny", "1", "a <model>", "MIT", ("Ada",)),
            model=Model(
                name="m",
                path="w",
                format="gguf",
                license="Apache-2.0",
                parts=(ModelPart(path="p"),),
            ),
            code=(Code(path="c", license="MIT"),),
            datasets=(
                Dataset(path="d", license="CC0-1.0"),
                Dataset(path="e", remote_path="s3://b/k", remote_hash="h"),
            ),
        ),
        digests,
    )
    assert encode_modelpack_config(kitfile, created=CREATED).decode() == (
        '{"descriptor":{"createdAt":"2026-01-02T03:04:05Z","authors":["Ada"],"name":"tiny",'
        '"version":"1","licenses":["Apache-2.0","CC0-1.0","MIT"],"title":"tiny",'
        '"description":"a \\u003cmodel\\u003e"},"modelfs":{"type":"layers","diffIds":['
        + ",".join(f'"{each.diff_id}"' for each in digests)
        + ']},"config":{"format":"gguf"}}'
    )


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("lora/adapter.safetensors", "weight"),
        ("shard-2.GGUF", "weight"),
        ("tokenizer.json", "weight.config"),
        ("adapter", "weight.config"),
    ],
)
def test_parts_that_are_weights_are_called_so(path, word):
    part = layer("application/vnd.kitops.modelkit.modelpart.v1.tar", path)
    (described,) = as_modelpack_layers([part])
    assert described.media_type == f"application/vnd.cncf.model.{word}.v1.tar"


def test_a_modelpack_without_layers_is_refused():
    with pytest.raises(UnsupportedKitError, match="at least one layer"):
        as_modelpack_layers([])
