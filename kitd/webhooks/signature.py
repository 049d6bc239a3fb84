"""How a sender proves that it knows the secret: small proofs, put together by `any_of`.

All of them compare in constant time and raise nothing, whatever was sent. What is not text that a
header can carry is compared as the bytes that it came from.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable

from kitd.signature import HEADER, signed_at_s
from kitd.webhooks.delivery import Delivery

Proof = Callable[[Delivery, bytes], bool]
"""Whether a delivery shows that its sender knows the secret."""

_US = 1_000_000


def any_of(*proofs: Proof) -> Proof:
    """Return the proof that one of several is given."""

    def is_shown(delivery: Delivery, secret: bytes) -> bool:
        return any(proof(delivery, secret) for proof in proofs)

    return is_shown


def path_secret(delivery: Delivery, secret: bytes) -> bool:
    """Whether the secret stood in the path, for senders that can set no header."""
    return delivery.path_secret is not None and _equal(_wire(delivery.path_secret), secret)


def header_secret(name: str) -> Proof:
    """Return the proof that the header of this lower-case name is the secret."""

    def is_shown(delivery: Delivery, secret: bytes) -> bool:
        value = delivery.headers.get(name)
        return value is not None and _equal(_wire(value), secret)

    return is_shown


def authorization(delivery: Delivery, secret: bytes) -> bool:
    """Whether the `Authorization` header shows the secret.

    As its whole value, which is how Harbor and a registry's own configuration write it, as a
    `Bearer` token (RFC 6750, section 2.1) or as the password of `Basic` (RFC 7617, section 2).
    """
    value = delivery.headers.get("authorization")
    if value is None:
        return False
    scheme, _, credentials = value.partition(" ")
    shown = [_wire(value)]
    if scheme.lower() == "bearer":
        shown.append(_wire(credentials.strip()))
    elif scheme.lower() == "basic":
        shown += _passwords(credentials.strip())
    return any(_equal(each, secret) for each in shown)


def header_hmac(name: str, *, prefix: str = "") -> Proof:
    """Return the proof that a header is `prefix` and the hex HMAC-SHA256 of the raw body."""

    def is_shown(delivery: Delivery, secret: bytes) -> bool:
        value = delivery.headers.get(name)
        if value is None:
            return False
        return _equal(_wire(value), prefix.encode() + _hex_hmac(secret, delivery.body))

    return is_shown


def own_signature(*, window_s: int) -> Proof:
    """Return the proof that kitd's own signature stands in its header: see `kitd.signature`.

    Its time may be `window_s` before or after the delivery came in.
    """
    name = HEADER.lower()

    def is_shown(delivery: Delivery, secret: bytes) -> bool:
        at_s = signed_at_s(delivery.headers.get(name, ""), secret, delivery.body)
        return at_s is not None and abs(delivery.received_us - at_s * _US) <= window_s * _US

    return is_shown


def _equal(shown: bytes, expected: bytes) -> bool:
    # Hashes of one length: how long it takes tells nothing of the secret's length either.
    return hmac.compare_digest(hashlib.sha256(shown).digest(), hashlib.sha256(expected).digest())


def _hex_hmac(secret: bytes, content: bytes) -> bytes:
    return hmac.digest(secret, content, "sha256").hex().encode()


def _passwords(credentials: str) -> list[bytes]:
    """Return the password of Basic credentials; none where they cannot be read."""
    try:
        decoded = base64.b64decode(credentials, validate=True)
    except ValueError:
        return []
    # Empty where there is no colon, which no secret is.
    return [decoded.partition(b":")[2]]


def _wire(text: str) -> bytes:
    """Return the bytes that a header or a path was decoded from."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        # No bytes decode to this; no secret that is sent looks like it.
        return text.encode("utf-8", "surrogatepass")
