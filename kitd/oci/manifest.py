"""Image manifests and indexes, read and never rewritten (OCI image spec, manifest.md).

kitd copies manifests byte for byte: this module only reads what a copy, a graph walk or a person
needs. Unknown fields are kept by not being touched.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from kitd.errors import KitdError
from kitd.oci import media_type as types
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import (
    Digest,
    InvalidDigestError,
    algorithm_of,
    encoded_of,
    parse_digest,
)
from kitd.oci.json_reader import InvalidJsonError, Reader, read_object

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
"""What registries are asked to accept (OCI distribution spec, pushing manifests)."""
MAX_DESCRIPTORS = 20_000
"""More layers than a 4 MiB manifest can name."""


class InvalidManifestError(KitdError):
    """The bytes are not a manifest or an index that kitd can follow."""

    code = "invalid_manifest"


class InvalidDescriptorError(InvalidManifestError):
    """A manifest describes content by what cannot be: its digest, its size or its data."""

    code = "invalid_descriptor"


class MediaTypeMismatchError(InvalidManifestError):
    """A manifest is of another kind than its sender says."""

    code = "media_type_mismatch"


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest (`config` is set) or an index (`config` is None)."""

    media_type: str
    artifact_type: str | None
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None
    annotations: Mapping[str, str]

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """Everything that must be in a repository before this document: OCI's successors."""
        config = () if self.config is None else (self.config,)
        return config + self.layers + self.manifests


def read_descriptor(reader: Reader) -> Descriptor:
    """Return the descriptor that an object is. Raises `InvalidDescriptorError`.

    Content that comes along as `data` is not used, but has to be that of the digest: others may
    use it (OCI image spec, descriptor.md).
    """
    reader = reader.raising(InvalidDescriptorError)
    try:
        digest = parse_digest(reader.text("digest"))
    except InvalidDigestError as error:
        raise reader.wrong("digest", error.message) from error
    size = reader.integer("size")
    data = reader.optional_text("data")
    if data is not None and not _is_content(data, digest, size):
        raise reader.wrong("data", f"it is not the content of {digest}")
    return Descriptor(
        reader.text("mediaType"),
        digest,
        size,
        reader.text_map("annotations"),
        reader.optional_text("artifactType"),
    )


def _is_content(data: str, digest: Digest, size: int) -> bool:
    try:
        content = base64.b64decode(data, validate=True)
    except ValueError:
        return False
    if len(content) != size:
        return False
    return hashlib.new(algorithm_of(digest), content).hexdigest() == encoded_of(digest)


def parse_manifest(content: bytes, media_type: str | None = None) -> Manifest:
    """Read a manifest or an index.

    `media_type` is what the sender called it (a Content-Type without parameters); it must agree
    with the document's own `mediaType` where both are given. Raises `InvalidManifestError`.
    """
    try:
        document = read_object(content, max_bytes=MAX_MANIFEST_BYTES)
    except InvalidJsonError as error:
        raise InvalidManifestError(f"not a manifest: {error}") from error
    reader = Reader(document, InvalidManifestError)
    if reader.integer("schemaVersion") != 2:
        raise reader.fail("schemaVersion", "2")
    own = reader.optional_text("mediaType")
    if own and media_type and own != media_type:
        raise MediaTypeMismatchError(
            f"it says it is {own[:160]!r}, its sender {media_type[:160]!r}"
        )
    kind = own or media_type or (types.OCI_INDEX if "manifests" in document else types.OCI_MANIFEST)
    if not types.is_manifest(kind):
        raise InvalidManifestError(f"{kind[:160]!r} is not a manifest that kitd can follow")
    indexed = kind in types.INDEXES
    config = reader.optional_child("config")
    if indexed == (config is not None) or ("layers" in document and "manifests" in document):
        raise InvalidManifestError("the document mixes a manifest and an index")
    subject = reader.optional_child("subject")
    return Manifest(
        media_type=kind,
        artifact_type=reader.optional_text("artifactType"),
        config=None if config is None else read_descriptor(config),
        layers=tuple(map(read_descriptor, reader.children("layers", at_most=MAX_DESCRIPTORS))),
        manifests=tuple(
            map(read_descriptor, reader.children("manifests", at_most=MAX_DESCRIPTORS))
        ),
        subject=None if subject is None else read_descriptor(subject),
        annotations=reader.text_map("annotations"),
    )


def describe_referrer(target: Descriptor, manifest: Manifest) -> Descriptor:
    """Return `target` as a list of referrers shows it (OCI distribution spec, listing referrers).

    It carries the manifest's annotations and its artifact type, which for an image manifest
    without one is the media type of its config.
    """
    fallback = None if manifest.config is None else manifest.config.media_type
    return replace(
        target,
        annotations=manifest.annotations,
        artifact_type=manifest.artifact_type or fallback,
    )
