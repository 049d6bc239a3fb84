"""Descriptors: media type, digest and size of one blob (OCI image spec, descriptor.md)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kitd.oci.digest import Digest, digest_of


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What identifies a blob. Equality covers annotations; identity of content is `digest`."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str | None = None


def describe(media_type: str, content: bytes) -> Descriptor:
    """Return the descriptor of `content`."""
    return Descriptor(media_type, digest_of(content), len(content))
