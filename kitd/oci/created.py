"""When a manifest was made, as far as it says so."""

from collections.abc import Mapping
from datetime import UTC, datetime

from kitd.oci.json_reader import InvalidJsonError, read_object

CREATED = "org.opencontainers.image.created"
"""OCI image spec, annotations.md: RFC 3339."""
MAX_CONFIG_BYTES = 1 << 20


def created_by_annotation(annotations: Mapping[str, str]) -> int | None:
    """Return when a manifest says that it was made: microseconds since the epoch, or None."""
    return _parse(annotations.get(CREATED))


def created_by_config(content: bytes) -> int | None:
    """Return when an image's config says that it was made (OCI image spec, config.md), or None."""
    try:
        created = read_object(content, max_bytes=MAX_CONFIG_BYTES).get("created")
    except InvalidJsonError:
        return None
    return _parse(created if isinstance(created, str) else None)


def _parse(text: str | None) -> int | None:
    try:
        # RFC 3339, section 5.6: "T" and "Z" may be lower case.
        at = datetime.fromisoformat((text or "").upper())
    except ValueError:
        return None
    # Without a zone it is meant as UTC. No kit is older than the epoch.
    microseconds = int(at.replace(tzinfo=at.tzinfo or UTC).timestamp() * 1_000_000)
    return max(microseconds, 0)
