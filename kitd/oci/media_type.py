"""Media types of manifests and indexes, OCI's and Docker's."""

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCTET_STREAM = "application/octet-stream"

MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({OCI_INDEX, DOCKER_INDEX})
ACCEPT = f"{OCI_MANIFEST}, {OCI_INDEX}, {DOCKER_MANIFEST}, {DOCKER_INDEX}"
"""The Accept header of every manifest request: all that kitd can follow, no schema 1."""

_NOT_DISTRIBUTED = (
    "application/vnd.oci.image.layer.nondistributable.",
    "application/vnd.docker.image.rootfs.foreign.",
)


def is_manifest(media_type: str) -> bool:
    """Whether a blob of this type names other blobs."""
    return media_type in MANIFESTS or media_type in INDEXES


def is_nondistributable(media_type: str) -> bool:
    """Whether a layer of this type is kept from registries by its license (OCI layer.md)."""
    return media_type.startswith(_NOT_DISTRIBUTED)
