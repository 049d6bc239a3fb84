"""What distribution's envelope says of one manifest or blob, which Azure writes as well."""

from collections.abc import Mapping

from kitd.oci.json_reader import Reader
from kitd.oci.media_type import is_manifest
from kitd.webhooks.delivery import Action, Change
from kitd.webhooks.formats.document import digest, repository, tag_or_digest

ACTIONS: Mapping[str, Action] = {"push": Action.PUSH, "delete": Action.DELETE}


def change_of_target(target: Reader, action: Action) -> Change | None:
    """Return what became of the target; None for what is no manifest.

    Sizes are not looked at: Azure's overflow. A deletion names no media type, and no tag or no
    digest. Raises `MalformedDeliveryError`.
    """
    media_type = target.optional_text("mediaType")
    if media_type and not is_manifest(media_type):
        return None
    tag, found = tag_or_digest(target, "tag")
    return Change(repository(target, "repository"), tag, digest(target, "digest") or found, action)
