"""What a sender's format is: a module in `formats/` and a line in its list."""

from typing import ClassVar, Protocol

from kitd.errors import KitdError
from kitd.webhooks.delivery import Delivery, Reading

MIB = 1 << 20


class MalformedDeliveryError(KitdError):
    """What an authentic sender sent is not of its format. It is kept, for a person to look at."""

    code: ClassVar[str] = "malformed_delivery"


class Format(Protocol):
    """Reads one sender's deliveries. Pure, and in no state."""

    @property
    def name(self) -> str:
        """What `format:` in the configuration calls it."""
        ...

    @property
    def max_bytes(self) -> int:
        """The largest body that the sender may send."""
        ...

    def is_authentic(self, delivery: Delivery, secret: bytes) -> bool:
        """Whether whoever sent it knows the secret, in constant time, over the bytes as they came.

        The secret is the content of `secret_file` without white space around it, and not empty.
        """
        ...

    def delivery_id(self, delivery: Delivery) -> str | None:
        """Return what names this delivery when it is sent again; None where the sender has no name.

        At most 200 characters. Never raises.
        """
        ...

    def read(self, delivery: Delivery) -> Reading:
        """Return what an authentic delivery says. Raises `MalformedDeliveryError`."""
        ...

    def kept_body(self, body: bytes) -> bytes:
        """Return what of a body is kept to be read again: all but what gives somebody rights.

        It reads as the same. Never raises, also for a body that is malformed.
        """
        ...
