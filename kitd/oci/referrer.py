"""Lists of referrers: what registries answer, and the index that stands in where they cannot.

Source: OCI distribution spec, "Listing Referrers", "Referrers Tag Schema" and "Pushing Manifests
with Subject". Pure.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress

from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest, algorithm_of, encoded_of
from kitd.oci.json_reader import InvalidJsonError, Json, Reader, read_object
from kitd.oci.manifest import (
    MAX_DESCRIPTORS,
    MAX_MANIFEST_BYTES,
    InvalidManifestError,
    read_descriptor,
)
from kitd.oci.media_type import OCI_INDEX

_NOT_IN_A_TAG = re.compile(r"[^A-Za-z0-9._-]")


def referrers_tag(subject: Digest) -> str:
    """Return the tag of the index that lists the referrers of `subject`."""
    tag = f"{algorithm_of(subject)[:32]}-{encoded_of(subject)[:64]}"
    return _NOT_IN_A_TAG.sub("-", tag)


def parse_referrers(content: bytes) -> tuple[Descriptor, ...]:
    """Return what an index of referrers lists; entries that describe nothing are left out.

    Size and type are what the list says, which some registries get wrong. Raises
    `InvalidManifestError` for what is no index.
    """
    found = []
    for entry in _entries(_read_index(content)):
        with suppress(InvalidManifestError):
            found.append(read_descriptor(entry))
    return tuple(found)


def add_referrer(content: bytes | None, referrer: Descriptor) -> bytes | None:
    """Return the index with one more entry, or None where it has that already.

    `content` None starts an index. All that stands in it stays as it is. Raises
    `InvalidManifestError` for what is no index, and for one that would become too large.
    """
    new: Mapping[str, Json] = {"schemaVersion": 2, "mediaType": OCI_INDEX}
    document = new if content is None else _read_index(content)
    if any(entry.value("digest") == referrer.digest for entry in _entries(document)):
        return None
    listed = document.get("manifests") or []
    assert isinstance(listed, list)
    grown = {**document, "manifests": [*listed, referrer_entry(referrer)]}
    updated = json.dumps(grown, separators=(",", ":"), ensure_ascii=False).encode()
    if len(updated) > MAX_MANIFEST_BYTES:
        raise InvalidManifestError(f"with one more entry it has over {MAX_MANIFEST_BYTES} bytes")
    return updated


def referrer_entry(referrer: Descriptor) -> Mapping[str, Json]:
    """Return a descriptor as `kitd.oci.manifest.describe_referrer` made it, for a list."""
    entry: dict[str, Json] = {
        "mediaType": referrer.media_type,
        "digest": referrer.digest,
        "size": referrer.size,
    }
    if referrer.artifact_type:
        entry["artifactType"] = referrer.artifact_type
    if referrer.annotations:
        entry["annotations"] = referrer.annotations
    return entry


def _read_index(content: bytes) -> Mapping[str, Json]:
    try:
        document = read_object(content, max_bytes=MAX_MANIFEST_BYTES)
    except InvalidJsonError as error:
        raise InvalidManifestError(f"not an index: {error}") from error
    if document.get("mediaType", OCI_INDEX) != OCI_INDEX or "manifests" not in document:
        raise InvalidManifestError("it is no OCI image index")
    return document


def _entries(document: Mapping[str, Json]) -> list[Reader]:
    return Reader(document, InvalidManifestError).children("manifests", at_most=MAX_DESCRIPTORS)
