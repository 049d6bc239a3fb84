"""What all formats are made of, and what holds for every one of them."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kitd.errors import KitdError
from kitd.webhooks.delivery import Changes, Delivery, Reading
from kitd.webhooks.format import MIB
from kitd.webhooks.formats.document import malformed
from kitd.webhooks.signature import Proof

MAX_CHANGES = 1000
"""No sender comes near it: a registry sends one event at a time or a handful."""
MAX_ID_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """A `Format`, put together from what differs between senders."""

    name: str
    proof: Proof
    reader: Callable[[Delivery], Reading]
    """Raises `MalformedDeliveryError`."""
    identity: Callable[[Delivery], str | None] = lambda _: None
    """What names the delivery, of any length; an error of kitd's is as good as None."""
    keeper: Callable[[bytes], bytes] = lambda body: body
    """What of a body is kept; never raises."""
    max_bytes: int = MIB

    def is_authentic(self, delivery: Delivery, secret: bytes) -> bool:
        """Whether whoever sent it knows the secret."""
        return self.proof(delivery, secret)

    def delivery_id(self, delivery: Delivery) -> str | None:
        """Return what names this delivery: at most 200 printable characters, or None."""
        try:
            name = self.identity(delivery)
        except KitdError:
            return None
        if not name:
            return None
        # Cut short, two names might become one, and a delivery be taken for one that was here.
        return name if len(name) <= MAX_ID_CHARS and name.isprintable() else digest_of_ids([name])

    def read(self, delivery: Delivery) -> Reading:
        """Return what an authentic delivery says. Raises `MalformedDeliveryError`."""
        if len(delivery.body) > self.max_bytes:
            raise malformed(f"the body has {len(delivery.body)} bytes, more than {self.max_bytes}")
        reading = self.reader(delivery)
        if isinstance(reading, Changes) and len(reading.changes) > MAX_CHANGES:
            raise malformed(f"{len(reading.changes)} changes, more than {MAX_CHANGES}")
        return reading

    def kept_body(self, body: bytes) -> bytes:
        """Return what of a body is kept to be read again."""
        return self.keeper(body)


def digest_of_ids(ids: Sequence[str]) -> str:
    """Return one name for several, or for one that is too long."""
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()


def header_id(name: str) -> Callable[[Delivery], str | None]:
    """Return what reads the delivery's name from the header of this lower-case name."""
    return lambda delivery: delivery.headers.get(name)
