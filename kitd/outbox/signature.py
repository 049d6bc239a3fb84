"""The proof that a request is from somebody who knows the secret, and from when. Pure."""

import hashlib
import hmac

HEADER = "X-Kitd-Signature"


def signature(secret: bytes, body: bytes, *, at_s: int) -> str:
    """Return the value of the header: `t=<unix seconds>,sha256=<hex>`.

    It is the HMAC-SHA256 (RFC 2104) of the time as it stands there, a dot, and the body: whoever
    kept a request from earlier cannot send it again as one of today.
    """
    mac = hmac.new(secret, b"%d.%b" % (at_s, body), hashlib.sha256)
    return f"t={at_s},sha256={mac.hexdigest()}"
