"""Manifests of ModelKits, assembled byte for byte as `kit` does, and the key of their content."""

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
    described = tuple(map(_descriptor, layers))
    if dialect is Dialect.KIT_1_7:
        return encode_json(
            {
                "schemaVersion": 2,
                "config": _descriptor(config),
                "layers": described or None,
                "annotations": {CLI_VERSION: cli_version},
            }
        )
    annotations = {CLI_VERSION: cli_version}
    if created is not None:
        annotations[CREATED] = created
    return encode_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": types.ARTIFACT,
            "config": _descriptor(config),
            "layers": described,
            "annotations": annotations,
        }
    )


def content_key(config: Descriptor, layers: Sequence[Descriptor], dialect: Dialect) -> Digest:
    """Return what two kits share exactly if they differ at most in when and by what they were made.

    Covers the dialect, the config and the layers with their annotations; not the time and not the
    version of the packing tool.
    """
    return digest_of(
        encode_json(
            {
                "dialect": dialect,
                "config": _descriptor(config),
                "layers": tuple(map(_descriptor, layers)),
            }
        )
    )


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
