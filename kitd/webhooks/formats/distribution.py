"""The envelope of the CNCF's Distribution registry, of GitLab's and of others made from it.

`{"events": [{"id", "action", "target": {"mediaType", "digest", "repository", "tag"?}, …}]}`
(distribution.github.io, "Notifications"). Events of layers, of pulls and of mounts come in the same
shape. A manifest that is pushed by digest has no tag.
"""

from dataclasses import replace

from kitd.webhooks.delivery import Changes, Delivery, Irrelevant, Reading
from kitd.webhooks.format import MIB
from kitd.webhooks.formats.document import read_object, required_children
from kitd.webhooks.formats.sender import MAX_CHANGES, Sender, digest_of_ids
from kitd.webhooks.formats.target import ACTIONS, change_of_target
from kitd.webhooks.signature import any_of, authorization, path_secret


def _read(delivery: Delivery) -> Reading:
    document = read_object(delivery.body, max_bytes=MIB)
    events = required_children(document, "events", at_most=MAX_CHANGES)
    changes = []
    for event in events:
        action = ACTIONS.get(event.text("action"))
        if action is None:
            continue
        change = change_of_target(event.child("target"), action)
        if change is not None:
            changes.append(change)
    if events and not changes:
        return Irrelevant("no manifest was pushed or deleted")
    return Changes(tuple(changes))


def _identity(delivery: Delivery) -> str | None:
    # An event keeps its id for as long as the registry tries to send it.
    document = read_object(delivery.body, max_bytes=MIB)
    ids = [event.text("id", "") for event in document.children("events", at_most=MAX_CHANGES)]
    return digest_of_ids(ids) if ids and all(ids) else None


FORMAT = Sender(
    name="distribution",
    proof=any_of(authorization, path_secret),
    reader=_read,
    identity=_identity,
)
GITLAB = replace(FORMAT, name="gitlab")
