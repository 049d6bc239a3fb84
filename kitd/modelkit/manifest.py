"""Manifests of kits, assembled byte for byte as `kit` does, and the key of their content."""

from collections import Counter
from collections.abc import Mapping, Sequence

from kitd.modelkit import media_type as types
from kitd.modelkit.dialect import Dialect
from kitd.modelkit.json_writer import encode_json
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest, digest_of
from kitd.oci.json_reader import Json
from kitd.oci.media_type import OCI_MANIFEST

CLI_VERSION = "ml.kitops.modelkit.cli-version"
CREATED = "org.opencontainers.image.created"
KITFILE = "ml.kitops.modelkit.kitfile"
"""Of a ModelPack: what a ModelKit's config would be."""


def encode_manifest(
    config: Descriptor,
    layers: Sequence[Descriptor],
    dialect: Dialect,
    *,
    cli_version: str,
    created: str | None = None,
) -> bytes:
    """Return a manifest's bytes.

    `created` is RFC 3339 in UTC without a fraction; kit 1.7 writes none, and neither does its
    dialect. Sources: OCI image spec, manifest.md; the digests under `tests/golden`.
    """
    if dialect is Dialect.KIT_1_7:
        return encode_json(
            {
                "schemaVersion": 2,
                "config": _descriptor(config),
                "layers": tuple(map(_descriptor, layers)) or None,
                "annotations": {CLI_VERSION: cli_version},
            }
        )
    annotations = {CLI_VERSION: cli_version}
    if created is not None:
        annotations[CREATED] = created
    return _encode(types.ARTIFACT, config, layers, annotations)


def encode_modelpack_manifest(
    config: Descriptor,
    layers: Sequence[Descriptor],
    *,
    cli_version: str,
    created: str,
    kitfile: str,
) -> bytes:
    """Return the bytes of a ModelPack's manifest.

    `kitfile` is the config that a ModelKit of the same layers has. Source: the CNCF model
    specification, spec.md; the annotations are `kit`'s.
    """
    annotations = {CLI_VERSION: cli_version, KITFILE: kitfile, CREATED: created}
    return _encode(types.MODELPACK_ARTIFACT, config, layers, annotations)


def _encode(
    artifact_type: str,
    config: Descriptor,
    layers: Sequence[Descriptor],
    annotations: Mapping[str, str],
) -> bytes:
    return encode_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": artifact_type,
            "config": _descriptor(config),
            "layers": tuple(map(_descriptor, layers)),
            "annotations": annotations,
        }
    )


def content_key(
    config: Descriptor,
    layers: Sequence[Descriptor],
    form: Dialect | types.KitFormat,
    *,
    created_s: int | None = None,
) -> Digest:
    """Return what two kits share exactly if they differ at most in when and by what they were made.

    Covers the form that the manifest has, the ModelKit's config and the layers with their
    annotations; not the time, unless a certain one was asked for (in seconds), and not the version
    of the packing tool.
    """
    document: dict[str, Json] = {
        "dialect": form,
        "config": _descriptor(config),
        "layers": tuple(map(_descriptor, layers)),
    }
    if created_s is not None:
        document["created"] = created_s
    return digest_of(encode_json(document))


def unpack_warnings(layers: Sequence[Descriptor]) -> tuple[str, ...]:
    """Return what of these layers `kit` 1.16 cannot unpack though they are well made, a line each.

    It tells layers apart by their digest alone.
    """
    files = Counter(
        layer.digest
        for layer in layers
        if types.parse_layer_type(layer.media_type).format is types.LayerFormat.RAW
    )
    equal = sum(count for count in files.values() if count > 1)
    if not equal:
        return ()
    return (f"{equal} raw layers are equal files: kit 1.16 writes one of each, kitd all",)


def file_metadata(name: str, mode: int, size: int) -> str:
    """Return the value of a raw layer's `FILE_METADATA` annotation.

    `name` is the last element of the path and `size` that of the file, in bytes, whatever the
    layer's compression. Owner and time are constant: a kit must not change when nothing but a time
    stamp did.
    """
    return encode_json(
        {
            "name": name,
            "mode": mode & 0o777,
            "uid": 0,
            "gid": 0,
            "size": size,
            "mtime": "1970-01-01T00:00:00Z",
            "typeflag": ord("0"),
        }
    ).decode("utf-8")


def _descriptor(descriptor: Descriptor) -> Mapping[str, Json]:
    document: dict[str, Json] = {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }
    if descriptor.annotations:
        document["annotations"] = dict(sorted(descriptor.annotations.items()))
    return document
