"""Manifests without layers, for tests of names and lists."""

import json

from kitd.oci.descriptor import Descriptor
from kitd.oci.media_type import OCI_EMPTY, OCI_MANIFEST
from tests.integration.registry.conftest import Cache

ARTIFACT_TYPE = "application/vnd.example.artifact"


def put_manifest(cache: Cache, mark: str, subject: Descriptor | None = None) -> Descriptor:
    """Put a manifest into the cache and return its descriptor; `mark` makes it another one."""
    config = cache.put(b"{}", OCI_EMPTY)
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": ARTIFACT_TYPE,
        "config": {"mediaType": OCI_EMPTY, "digest": config.digest, "size": 2},
        "layers": [],
        "annotations": {"mark": mark},
    }
    if subject is not None:
        document["subject"] = {
            "mediaType": OCI_MANIFEST,
            "digest": subject.digest,
            "size": subject.size,
        }
    return cache.put(json.dumps(document).encode(), OCI_MANIFEST)
