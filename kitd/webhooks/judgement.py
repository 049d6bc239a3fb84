"""What becomes of an authentic delivery, and what of it is kept. Pure."""

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from kitd.errors import printable
from kitd.webhooks.delivery import Change, Changes, Delivery, Handshake, Irrelevant
from kitd.webhooks.format import Format, MalformedDeliveryError

MAX_REASON = 300
MAX_NAME = 200
MAX_HEADER = 1000
_KEPT_HEADERS = frozenset(
    {
        "aeg-event-type",
        "ce-datacontenttype",
        "ce-id",
        "ce-source",
        "ce-specversion",
        "ce-subject",
        "ce-time",
        "ce-type",
        "content-encoding",
        "content-type",
        "user-agent",
        "x-gitea-delivery",
        "x-gitea-event",
        "x-github-delivery",
        "x-github-event",
        "x-gitlab-event",
        "x-goog-pubsub-message-id",
        "x-kitd-delivery",
    }
)
"""What formats read besides the body. Credentials, signatures and cookies are not among them."""


class DeliveryState(enum.StrEnum):
    """What became of a delivery."""

    ACCEPTED = "accepted"
    """It told of changes, and the jobs that follow from them were asked for."""
    IGNORED = "ignored"
    """It told of nothing to act on."""
    MALFORMED = "malformed"
    """It is not of its format, and kept for a person to look at."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an authentic delivery comes to; `reason` says why nothing follows, if nothing does."""

    state: DeliveryState
    changes: tuple[Change, ...] = ()
    reason: str | None = None


def judge(form: Format, delivery: Delivery) -> Verdict | Handshake:
    """Return what a delivery that is authentic comes to. Raises nothing of its own."""
    encoding = delivery.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        # Signatures are over the wire's bytes, and a compressed body may be of any size.
        return _malformed("its body is compressed (Content-Encoding), which kitd does not read")
    try:
        reading = form.read(delivery)
    except MalformedDeliveryError as error:
        return _malformed(error.message)
    match reading:
        case Changes(changes=changes):
            return Verdict(DeliveryState.ACCEPTED, changes)
        case Irrelevant(why=why):
            return Verdict(DeliveryState.IGNORED, reason=_short(why))
        case Handshake():
            return reading


def _malformed(reason: str) -> Verdict:
    return Verdict(DeliveryState.MALFORMED, reason=_short(reason))


def _short(reason: str) -> str:
    return printable(reason[:MAX_REASON])


def kept_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers, by lower-case name, that a delivery can be read again with."""
    return {
        name: value[:MAX_HEADER]
        for name, value in sorted(headers.items())
        if name in _KEPT_HEADERS and value.isprintable()
    }


def name_of(form: Format, delivery: Delivery) -> str | None:
    """Return what the sender calls this delivery, if it has a name for it."""
    name = form.delivery_id(delivery)
    return printable(name[:MAX_NAME]) if name else None


def fingerprint_of(source: str, body: bytes) -> bytes:
    """Return the digest by which two deliveries without a name are the same: of source and body."""
    return hashlib.sha256(source.encode() + b"\0" + body).digest()
