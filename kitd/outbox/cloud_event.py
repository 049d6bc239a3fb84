"""An event as others read it: CloudEvents 1.0 in JSON, structured mode. Pure.

Sources: CloudEvents specification 1.0.2, its JSON event format and HTTP protocol binding, and the
extension `sequence`.
"""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from kitd.clock import rfc3339

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
TYPE_PREFIX = "dev.kitd."
SEQUENCE_DIGITS = 19
"""As many as the largest number has: `sequence` is compared as text."""


class Event(Protocol):
    """A row of the ledger's events."""

    @property
    def seq(self) -> int:
        """Its number; numbers grow. A ledger that was restored from a backup gives some again."""
        ...

    @property
    def at_us(self) -> int:
        """Microseconds since the epoch, UTC."""
        ...

    @property
    def type(self) -> str:
        """Such as `kit.packed`."""
        ...

    @property
    def subject(self) -> str:
        """Such as `kit:sha256:…`; never empty."""
        ...

    @property
    def job(self) -> int | None:
        """The job that it is about."""
        ...

    @property
    def project(self) -> str | None:
        """The project that it is about."""
        ...

    @property
    def data(self) -> Mapping[str, object]:
        """What is told, a JSON object."""
        ...


def cloud_event(instance: str, event: Event) -> bytes:
    """Return the body of a request: an event of the ledger with this instance.

    Equal input gives equal bytes, so that an event which is told again is the same to the byte.
    """
    source = f"urn:kitd:{instance}"
    # CloudEvents 1.0.2, "id": source and id together are unique. The time keeps them so where a
    # number is given again.
    unique = f"{instance}-{event.seq}-{event.at_us}"
    attributes: dict[str, object] = {
        "specversion": "1.0",
        "id": unique,
        "source": source,
        "type": f"{TYPE_PREFIX}{event.type}",
        "subject": event.subject,
        "time": rfc3339(event.at_us),
        "datacontenttype": "application/json",
        "sequence": f"{event.seq:0{SEQUENCE_DIGITS}}",
    }
    # Names of attributes are lower case letters and digits only.
    if event.job is not None:
        attributes["kitdjob"] = str(event.job)
    if event.project is not None:
        attributes["kitdproject"] = event.project
    return msgspec.json.encode({**attributes, "data": event.data})
