"""ModelPacks: what kit makes of a project comes out byte for byte, and what modctl made is read."""

import json

from kitd.modelkit.config_blob import encode_config
from kitd.modelkit.kit import read_kit
from kitd.modelkit.kitfile import EntryKind, LayerDigests, parse_kitfile, with_layer_digests
from kitd.modelkit.manifest import KITFILE, encode_modelpack_manifest
from kitd.modelkit.media_type import MODELPACK_CONFIG, KitFormat, kit_format
from kitd.modelkit.modelpack import as_modelpack_layers, encode_modelpack_config
from kitd.modelkit.unpack_plan import plan_unpack
from kitd.oci.descriptor import Descriptor, describe
from kitd.oci.digest import digest_of
from kitd.oci.manifest import parse_manifest

WEIGHTS, SETTINGS = b"WEIGHTS-16BYTES\n", b'{"a":1}\n'
W, C = digest_of(WEIGHTS), digest_of(SETTINGS)
CREATED = "2026-01-02T03:04:05Z"
KITFILE_TEXT = b"""\
manifestVersion: 1.0.0
package: {name: tiny}
model:
  name: tiny
  path: model.safetensors
  format: safetensors
  parts: [{path: config.json}]
"""


def metadata(name: str, size: int, owner: int, typeflag: int) -> str:
    return (
        f'{{"name":"{name}","mode":420,"uid":{owner},"gid":{owner},"size":{size},'
        f'"mtime":"2026-01-02T03:04:05.123456789Z","typeflag":{typeflag}}}'
    )


def annotations(name: str, size: int, *, owner: int, typeflag: int) -> dict[str, str]:
    return {
        "org.cncf.model.file.metadata+json": metadata(name, size, owner, typeflag),
        "org.cncf.model.filepath": name,
    }


def kit_modelpack() -> tuple[bytes, bytes]:
    """Return the manifest and the config that kit 1.16 writes for two raw layers."""
    digests = [LayerDigests(W, W), LayerDigests(C, C)]
    kitfile = with_layer_digests(parse_kitfile(KITFILE_TEXT), digests)
    kit = "application/vnd.kitops.modelkit."
    layers = [
        Descriptor(
            f"{kit}model.v1.raw",
            W,
            16,
            annotations("model.safetensors", 16, owner=0, typeflag=48),
        ),
        Descriptor(
            f"{kit}modelpart.v1.raw", C, 8, annotations("config.json", 8, owner=0, typeflag=48)
        ),
    ]
    config = encode_modelpack_config(kitfile, created=CREATED)
    manifest = encode_modelpack_manifest(
        describe(MODELPACK_CONFIG, config),
        as_modelpack_layers(layers),
        cli_version="1.16.0",
        created=CREATED,
        kitfile=encode_config(kitfile).decode(),
    )
    return manifest, config


def modctl_modelpack() -> tuple[bytes, bytes]:
    """Return the manifest and the config that modctl writes for the same two files."""
    config = (
        '{"descriptor":{"name":"tiny"},"modelfs":{"type":"layers",'
        f'"diffIds":["{C}","{W}"]}},"config":{{"format":"safetensors"}}}}'
    ).encode()
    layers = ",".join(
        f'{{"mediaType":"application/vnd.cncf.model.{kind}.v1.raw","digest":"{digest}",'
        f'"size":{size},"annotations":'
        + json.dumps(annotations(name, size, owner=1000, typeflag=0), separators=(",", ":"))
        + "}"
        for kind, digest, size, name in (
            ("weight.config", C, 8, "config.json"),
            ("weight", W, 16, "model.safetensors"),
        )
    )
    manifest = (
        '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",'
        '"artifactType":"application/vnd.cncf.model.manifest.v1+json",'
        f'"config":{{"mediaType":"{MODELPACK_CONFIG}","digest":"{digest_of(config)}","size":252}},'
        f'"layers":[{layers}],"annotations":{{"org.cncf.modctl.modelfile":"M"}}}}'
    ).encode()
    return manifest, config


def test_a_raw_modelpack_is_kits_byte_for_byte():
    manifest, config = kit_modelpack()
    assert (len(config), digest_of(config)) == (
        302,
        "sha256:da85827db115cc2a866b97186f453bcc94e5051cb98bcbe189cb9b218f93fd80",
    )
    assert (len(manifest), digest_of(manifest)) == (
        1766,
        "sha256:5e825abc31465e78aa0c46356518649027d57ecb7d7a08229ea3280aeb609e3e",
    )


def test_kits_modelpack_is_described_by_its_kitfile():
    manifest, config = kit_modelpack()
    parsed = parse_manifest(manifest)
    kit = read_kit(parsed, config)
    assert kit_format(parsed) is KitFormat.MODELPACK
    assert (kit.is_generated, kit.notes) == (False, ())
    assert encode_config(kit.kitfile).decode() == parsed.annotations[KITFILE]
    assert [
        (layer.path, layer.target.digest, layer.mode)
        for layer in plan_unpack(parsed, kit.kitfile, ())
    ] == [("model.safetensors", W, 0o644), ("config.json", C, 0o644)]


def test_modctls_modelpack_is_described_by_its_layers():
    manifest, config = modctl_modelpack()
    assert (digest_of(config), digest_of(manifest)) == (
        "sha256:46b4759d4b2894f39f58728fe51595b260d2e5d918138b810fc22f8977f75d42",
        "sha256:0ad51acc07a32cacd8cc85d3cc69923026b878dadd0c63ca7dda63d34a1d7a60",
    )
    parsed = parse_manifest(manifest)
    kit = read_kit(parsed, config)
    assert (kit.is_generated, kit.notes) == (True, ())
    assert kit.kitfile.package.name == "tiny"
    assert kit.kitfile.model is not None
    assert (kit.kitfile.model.path, kit.kitfile.model.format) == (
        "model.safetensors",
        "safetensors",
    )
    assert [
        (layer.kind, layer.path, layer.target.digest, layer.diff_id, layer.mode)
        for layer in plan_unpack(parsed, kit.kitfile, ())
    ] == [
        (EntryKind.MODEL, "model.safetensors", W, W, 0o644),
        (EntryKind.MODEL_PART, "config.json", C, C, 0o644),
    ]


def test_the_two_forms_of_one_kit_share_all_layers():
    """What the worked example of a directory says: only config and manifest differ."""
    layer = Descriptor(
        "application/vnd.kitops.modelkit.model.v1.tar",
        digest_of(b"tar"),
        3,
        {"org.cncf.model.filepath": "weights"},
    )
    (described,) = as_modelpack_layers([layer])
    assert described.media_type == "application/vnd.cncf.model.weight.v1.tar"
    assert (described.digest, described.size, described.annotations) == (
        layer.digest,
        layer.size,
        layer.annotations,
    )
