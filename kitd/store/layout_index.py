"""`index.json` of the image layout: how other tools find kits by name (OCI image-layout.md).

The ledger knows what is tagged; this file is written from it and can always be written again.
"""

import json
from collections.abc import Iterable

from kitd.oci.descriptor import Descriptor
from kitd.oci.media_type import OCI_INDEX
from kitd.oci.reference import Reference
from kitd.store.blob_store import BlobStore

REF_NAME = "org.opencontainers.image.ref.name"


def layout_index(tagged: Iterable[tuple[Reference, Descriptor]]) -> bytes:
    """Return the index that names each manifest by its full reference."""
    manifests = [
        {
            "mediaType": target.media_type,
            "digest": target.digest,
            "size": target.size,
            "annotations": {REF_NAME: str(reference)},
        }
        for reference, target in tagged
    ]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def write_layout_index(store: BlobStore, tagged: Iterable[tuple[Reference, Descriptor]]) -> None:
    """Replace `index.json` atomically. Raises `StoreError`."""
    store.replace_file("index.json", layout_index(tagged))
