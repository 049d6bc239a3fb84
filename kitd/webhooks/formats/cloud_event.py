"""CloudEvents over HTTP, in binary and in structured mode (CloudEvents 1.0, HTTP, section 3)."""

from dataclasses import dataclass

from kitd.oci.json_reader import Reader
from kitd.webhooks.delivery import Delivery
from kitd.webhooks.formats.document import malformed, read_object


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """An event's type, what names it in all the world, and the document that is its data."""

    type: str
    identity: str | None
    data: Reader


def identity_of(source: str | None, event_id: str | None) -> str | None:
    """Return a name for an event: its id is unique within its source only."""
    return f"{source} {event_id}" if source and event_id else None


def is_binary(delivery: Delivery) -> bool:
    """Whether the event's attributes are headers, and the body is its data."""
    return "ce-type" in delivery.headers


def read_event(delivery: Delivery, *, max_bytes: int) -> CloudEvent:
    """Return the event. Raises `MalformedDeliveryError`."""
    document = read_object(delivery.body, max_bytes=max_bytes)
    if is_binary(delivery):
        headers = delivery.headers
        identity = identity_of(headers.get("ce-source"), headers.get("ce-id"))
        return CloudEvent(headers["ce-type"], identity, document)
    if document.value("specversion") is None:
        raise malformed("neither the header Ce-Type nor a specversion in the body: no CloudEvent")
    identity = identity_of(document.optional_text("source"), document.optional_text("id"))
    return CloudEvent(document.text("type"), identity, document.child("data"))
