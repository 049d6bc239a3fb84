"""Signatures, against another implementation of HMAC and a vector of RFC 4231."""

import hashlib
import re

import pytest

from kitd.signature import HEADER, sign, signed_at_s
from kitd.webhooks.delivery import Delivery
from kitd.webhooks.formats import generic


def hmac_sha256(key: bytes, message: bytes) -> str:
    """RFC 2104, as it is written there."""
    if len(key) > 64:
        key = hashlib.sha256(key).digest()
    key = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + message).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).hexdigest()


def test_the_other_implementation_is_right():
    """RFC 4231, test case 2."""
    mac = hmac_sha256(b"Jefe", b"what do ya want for nothing?")
    assert mac == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


@pytest.mark.parametrize("secret", [b"s", b"correct horse", bytes(range(256))])
@pytest.mark.parametrize("body", [b"", b"{}", b"a.b\r\n\xff\0"])
def test_it_is_the_hmac_of_time_and_body(secret, body):
    value = sign(secret, body, at_s=1_700_000_000)
    match = re.fullmatch(r"t=(\d+),sha256=([0-9a-f]{64})", value)
    assert match is not None
    assert match[1] == "1700000000"
    assert match[2] == hmac_sha256(secret, b"1700000000." + body)
    assert signed_at_s(value, secret, body) == 1_700_000_000
    assert signed_at_s(value, secret + b"s", body) is None
    assert signed_at_s(value, secret, body + b" ") is None


def test_everything_that_goes_in_makes_a_difference():
    made = {
        sign(b"secret", b"body", at_s=1),
        sign(b"secret", b"body", at_s=2),
        sign(b"secret", b"bodY", at_s=1),
        sign(b"Secret", b"body", at_s=1),
    }
    assert len({value.partition(",")[2] for value in made}) == 4


def test_what_kitd_signs_kitd_takes():
    """The generic format of incoming webhooks has the same scheme."""
    body = b'{"repository":"team/demo"}'
    now_us = 1_700_000_000_000_000

    def delivery(body):
        header = sign(b"secret", b'{"repository":"team/demo"}', at_s=now_us // 1_000_000)
        headers = {HEADER.lower(): header}
        return Delivery(method="POST", headers=headers, body=body, received_us=now_us)

    assert generic.FORMAT.is_authentic(delivery(body), b"secret")
    assert not generic.FORMAT.is_authentic(delivery(body + b" "), b"secret")
