"""zot's events: CloudEvents in binary mode, or structured.

`zotregistry.image.updated` with `{"name", "reference", "digest", "mediaType", "manifest"}`
(zotregistry.dev, "Events"); `zotregistry` may be configured to be something else (`typePrefix`).
`reference` is a tag or a digest; `manifest` is the whole manifest as a string, and may have
megabytes. Each event is sent once, under an id of its own.
"""

from collections.abc import Mapping

from kitd.oci.media_type import is_manifest
from kitd.webhooks.delivery import Action, Change, Changes, Delivery, Irrelevant, Reading
from kitd.webhooks.format import MIB
from kitd.webhooks.formats.cloud_event import identity_of, is_binary, read_event
from kitd.webhooks.formats.document import digest, other, repository, tag_or_digest
from kitd.webhooks.formats.sender import Sender
from kitd.webhooks.signature import any_of, authorization, path_secret

MAX_BYTES = 8 * MIB
_ACTIONS: Mapping[str, Action] = {
    "image.updated": Action.PUSH,
    "image.deleted": Action.DELETE,
}


def _read(delivery: Delivery) -> Reading:
    event = read_event(delivery, max_bytes=MAX_BYTES)
    action = _ACTIONS.get(".".join(event.type.split(".")[-2:]))
    if action is None:
        return Irrelevant(other("an event of type", event.type))
    media_type = event.data.optional_text("mediaType")
    if media_type and not is_manifest(media_type):
        return Irrelevant("not a manifest")
    tag, found = tag_or_digest(event.data, "reference")
    image = digest(event.data, "digest") or found
    return Changes((Change(repository(event.data, "name"), tag, image, action),))


def _identity(delivery: Delivery) -> str | None:
    if is_binary(delivery):
        return identity_of(delivery.headers.get("ce-source"), delivery.headers.get("ce-id"))
    return read_event(delivery, max_bytes=MAX_BYTES).identity


FORMAT = Sender(
    name="zot",
    proof=any_of(authorization, path_secret),
    reader=_read,
    identity=_identity,
    max_bytes=MAX_BYTES,
)
