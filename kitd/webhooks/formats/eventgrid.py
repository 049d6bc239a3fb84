"""Azure Event Grid with events of a container registry, in its own schema and as CloudEvents.

A list of `{"id", "topic" or "source", "eventType" or "type", "data": {"target": {…}}}`
(learn.microsoft.com, "Azure Container Registry as an Event Grid source"). Before it sends any,
Event Grid wants an answer: in its own schema to an event with a code ("Endpoint validation"), with
CloudEvents to `OPTIONS` (CloudEvents, "HTTP 1.1 Web Hooks", section 4).
"""

import json
import re
from collections.abc import Mapping

from kitd.oci.json_reader import Reader
from kitd.webhooks.delivery import Action, Changes, Delivery, Handshake, Irrelevant, Reading
from kitd.webhooks.format import MIB
from kitd.webhooks.formats.cloud_event import identity_of
from kitd.webhooks.formats.document import malformed, other, read_objects
from kitd.webhooks.formats.sender import MAX_CHANGES, Sender, digest_of_ids
from kitd.webhooks.formats.target import change_of_target
from kitd.webhooks.signature import path_secret

_VALIDATION = "Microsoft.EventGrid.SubscriptionValidationEvent"
_ACTIONS: Mapping[str, Action] = {
    "Microsoft.ContainerRegistry.ImagePushed": Action.PUSH,
    "Microsoft.ContainerRegistry.ImageDeleted": Action.DELETE,
    # As older subscriptions write them.
    "ImagePushed": Action.PUSH,
    "ImageDeleted": Action.DELETE,
}
_ORIGIN = re.compile(r"[!-~]{1,253}")
"""The name of a system in DNS."""
_CODE = re.compile(r"[!-~]{1,200}")


def _events(delivery: Delivery) -> list[Reader]:
    return read_objects(delivery.body, max_bytes=MIB, at_most=MAX_CHANGES)


def _type(event: Reader) -> str:
    return event.text("type", "") or event.text("eventType")


def _agree(delivery: Delivery) -> Handshake:
    """Return the permission that is asked for by `OPTIONS`."""
    origin = delivery.headers.get("webhook-request-origin", "")
    if _ORIGIN.fullmatch(origin) is None:
        raise malformed(f"WebHook-Request-Origin: expected a name, found {origin[:60]!r}")
    return Handshake({"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*"})


def _validate(event: Reader) -> Handshake:
    """Return the code; the event's `validationUrl` is for people, and never called."""
    data = event.child("data")
    code = data.text("validationCode")
    if _CODE.fullmatch(code) is None:
        raise data.fail("validationCode", "a code of at most 200 characters")
    body = json.dumps({"validationResponse": code}).encode()
    return Handshake({"Content-Type": "application/json"}, body)


def _read(delivery: Delivery) -> Reading:
    if delivery.method == "OPTIONS":
        return _agree(delivery)
    events = _events(delivery)
    # It comes alone; among others it would have what they say forgotten.
    if len(events) == 1 and _type(events[0]) == _VALIDATION:
        return _validate(events[0])
    changes = []
    for event in events:
        action = _ACTIONS.get(_type(event))
        if action is None:
            continue
        change = change_of_target(event.child("data").child("target"), action)
        if change is not None:
            changes.append(change)
    if events and not changes:
        return Irrelevant(other("an event of type", _type(events[0])))
    return Changes(tuple(changes))


def _identity(delivery: Delivery) -> str | None:
    names = [
        identity_of(event.text("source", "") or event.text("topic", ""), event.optional_text("id"))
        for event in _events(delivery)
    ]
    known = [name for name in names if name is not None]
    if not known or len(known) != len(names):
        return None
    return known[0] if len(known) == 1 else digest_of_ids(known)


FORMAT = Sender(name="eventgrid", proof=path_secret, reader=_read, identity=_identity)
