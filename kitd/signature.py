"""kitd's own signature of a request: from somebody who knows the secret, and from when. Pure.

`X-Kitd-Signature: t=<unix seconds>,sha256=<hex>`. What is signed is the digits of the time as they
stand there, a full stop and the body, by HMAC-SHA256 (RFC 2104): whoever kept a request from
earlier cannot send it again as one of today.
"""

import hashlib
import hmac
import re

HEADER = "X-Kitd-Signature"

_SIGNATURE = re.compile(r"t=([0-9]{1,12}),sha256=([0-9a-f]{64})", re.ASCII)


def sign(secret: bytes, body: bytes, *, at_s: int) -> str:
    """Return the value of the header for a body that is sent at `at_s`, unix seconds."""
    return f"t={at_s},sha256={_mac(secret, str(at_s), body)}"


def signed_at_s(value: str, secret: bytes, body: bytes) -> int | None:
    """Return the time of a signature, unix seconds; None where it is none of this secret and body.

    Compares in constant time, and raises nothing.
    """
    match = _SIGNATURE.fullmatch(value)
    if match is None:
        return None
    stamp, shown = match.groups()
    return int(stamp) if hmac.compare_digest(shown, _mac(secret, stamp, body)) else None


def _mac(secret: bytes, stamp: str, body: bytes) -> str:
    return hmac.new(secret, b"%b.%b" % (stamp.encode(), body), hashlib.sha256).hexdigest()
