"""The answers to deliveries. Nothing of what was sent is repeated in them. Pure.

Senders take any 2xx for done. Some of them send again whatever else they are answered, for ever and
before anything newer: so what is authentic and useless is taken (202), and only what may be
different soon is not (503).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kitd.webhooks.delivery import Handshake
from kitd.webhooks.judgement import DeliveryState

RETRY_AFTER_S = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """A status (RFC 9110, section 15), headers and a body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    closes: bool = False
    """Whether the connection ends: what is left of the request is not read."""
    verdict: str = "handshake"
    """What it is counted as: one of a few words."""


def _said(status: int, word: str) -> Answer:
    headers = {"Content-Type": "text/plain; charset=utf-8"}
    return Answer(status, headers, f"{word}\n".encode(), verdict=word)


DUPLICATE = _said(200, "duplicate")
NO_HANDSHAKE = Answer(405, {"Allow": "POST"})
"""OPTIONS, from a sender whose format asks for no handshake."""
REFUSED = Answer(401, closes=True, verdict="refused")
"""The credential is missing or wrong. Strangers keep no place."""
UNKNOWN = Answer(404, closes=True, verdict="unknown")
"""There is no source of this name."""
TOO_SLOW = Answer(408, closes=True, verdict="unread")
BROKEN_OFF = Answer(400, closes=True, verdict="unread")
TOO_LARGE = Answer(413, closes=True, verdict="unread")
BUSY = Answer(503, {"Retry-After": str(RETRY_AFTER_S)}, verdict="busy")
"""It could not be kept, or not be judged; it may be soon."""
CROWDED = Answer(503, {"Retry-After": str(RETRY_AFTER_S)}, closes=True, verdict="busy")
"""There is no room for its body."""

_TAKEN: Mapping[DeliveryState, Answer] = {
    DeliveryState.ACCEPTED: _said(202, "accepted"),
    DeliveryState.IGNORED: _said(200, "ignored"),
    DeliveryState.MALFORMED: _said(202, "malformed"),
}


def answer_taken(state: DeliveryState) -> Answer:
    """Return the answer to a delivery that is in the ledger."""
    return _TAKEN[state]


def answer_handshake(handshake: Handshake) -> Answer:
    """Return what a sender wants to hear before it sends anything; 503 where HTTP has no such line.

    What a format takes from the sender's headers may be anything.
    """
    for name, value in handshake.headers.items():
        if not (name.isascii() and name.replace("-", "").isalnum() and value.isprintable()):
            return BUSY
    return Answer(200, handshake.headers, handshake.body)
