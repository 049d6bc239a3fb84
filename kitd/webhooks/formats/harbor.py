"""Harbor, in its own format and as CloudEvents.

`{"type": "PUSH_ARTIFACT", "event_data": {"resources": [{"digest", "tag"}], "repository":
{"repo_full_name"}}}`, or `harbor.artifact.pushed` with the same under `data` (goharbor.io,
"Configure Webhook Notifications"). Of an artifact that was pushed under several tags one is named;
in the place of the tag of one that has none stands its digest. Each send has a fresh id, so that no
delivery has a name.
"""

from collections.abc import Mapping

from kitd.webhooks.delivery import Action, Change, Changes, Delivery, Irrelevant, Reading
from kitd.webhooks.format import MIB
from kitd.webhooks.formats.document import digest, other, read_object, repository, tag_or_digest
from kitd.webhooks.formats.sender import MAX_CHANGES, Sender
from kitd.webhooks.signature import any_of, authorization, path_secret

_ACTIONS: Mapping[str, Action] = {
    "PUSH_ARTIFACT": Action.PUSH,
    "DELETE_ARTIFACT": Action.DELETE,
    "harbor.artifact.pushed": Action.PUSH,
    "harbor.artifact.deleted": Action.DELETE,
}


def _read(delivery: Delivery) -> Reading:
    document = read_object(delivery.body, max_bytes=MIB)
    kind = document.text("type")
    action = _ACTIONS.get(kind)
    if action is None:
        return Irrelevant(other("an event of type", kind))
    data = document.child("event_data" if document.value("data") is None else "data")
    name = repository(data.child("repository"), "repo_full_name")
    changes = []
    for resource in data.children("resources", at_most=MAX_CHANGES):
        tag, found = tag_or_digest(resource, "tag")
        changes.append(Change(name, tag, digest(resource, "digest") or found, action))
    # Without resources it still says that something is new in the repository.
    return Changes(tuple(changes) or (Change(name, action=action),))


FORMAT = Sender(name="harbor", proof=any_of(authorization, path_secret), reader=_read)
