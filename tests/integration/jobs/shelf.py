"""Content put straight into a fault registry of this process, and looked at there."""

import hashlib
import json
import os

from fault_registry.server import FaultRegistry
from fault_registry.storage import Manifest
from kitd.oci.media_type import OCI_EMPTY, OCI_INDEX, OCI_MANIFEST, OCTET_STREAM
from kitd.oci.referrer import referrers_tag


def digest_of(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Shelf:
    """One repository of a registry."""

    def __init__(self, registry: FaultRegistry, name: str) -> None:
        self.registry = registry
        self.name = name

    @property
    def reference(self):
        return f"{self.registry.host}/{self.name}"

    @property
    def repository(self):
        return self.registry.storage.repository(self.name)

    @property
    def tags(self):
        return self.repository.tags

    def blob(self, content):
        digest = digest_of(content)
        self.registry.storage.path(digest).write_bytes(content)
        self.repository.blobs.add(digest)
        return {"mediaType": OCTET_STREAM, "digest": digest, "size": len(content)}

    def manifest(self, document, tag=None):
        content = json.dumps(document).encode()
        digest = digest_of(content)
        self.repository.manifests[digest] = Manifest(document["mediaType"], content)
        if tag is not None:
            self.tags[tag] = digest
        return {"mediaType": document["mediaType"], "digest": digest, "size": len(content)}

    def kit(self, tag=None, *layers, subject=None, created=None):
        """Put an artifact there, of random layers if none are given; return its descriptor."""
        empty = {**self.blob(b"{}"), "mediaType": OCI_EMPTY}
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/vnd.example.kit",
            "config": empty,
            "layers": [self.blob(layer) for layer in layers or (os.urandom(1000),)],
        }
        if subject is not None:
            document["subject"] = subject
        if created is not None:
            document["annotations"] = {"org.opencontainers.image.created": created}
        return self.manifest(document, tag)

    def index(self, tag, *manifests, subject=None):
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(manifests)}
        if subject is not None:
            document["subject"] = subject
        return self.manifest(document, tag)

    def missing(self):
        """Return everything that a manifest of the repository names and that is not there."""
        held = self.repository.blobs | self.repository.manifests.keys()
        named = set()
        for manifest in self.repository.manifests.values():
            document = manifest.document
            children = [document.get("config"), *document.get("layers", ())]
            children += document.get("manifests", ())
            named |= {child["digest"] for child in children if child}
        return named - held

    def referrers(self, subject):
        """Return the digests of what refers to a manifest, however the registry lists it."""
        tag = referrers_tag(subject["digest"])
        listed = {entry["digest"] for entry in self.repository.referrers(subject["digest"])}
        if tag in self.tags:
            index = self.repository.manifests[self.tags[tag]].document
            assert {entry["digest"] for entry in index["manifests"]} >= listed
        return listed
