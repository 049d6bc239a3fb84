"""The small proofs that senders' formats are put together from."""

import base64

import pytest

from kitd.webhooks.delivery import Delivery
from kitd.webhooks.signature import (
    any_of,
    authorization,
    header_hmac,
    header_secret,
    own_signature,
    path_secret,
)

# HMAC-SHA256 of "what do ya want for nothing?" with the key "Jefe" (RFC 4231, section 4.3).
KEY, BODY = b"Jefe", b"what do ya want for nothing?"
HEX = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


def delivery(body: bytes = BODY, path: str | None = None, at_us: int = 0, **headers: str):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Delivery(method="POST", headers=named, body=body, received_us=at_us, path_secret=path)


def encoded(text: bytes) -> str:
    return base64.b64encode(text).decode()


def test_a_signature_is_the_one_of_the_rfc():
    assert header_hmac("x-s")(delivery(x_s=HEX), KEY)
    assert header_hmac("x-s", prefix="sha256=")(delivery(x_s="sha256=" + HEX), KEY)


@pytest.mark.parametrize(
    "value", ["", HEX[:-1], HEX + "0", HEX.upper(), "sha256=" + HEX, f" {HEX}", f"{HEX}, {HEX}"]
)
def test_what_is_not_the_signature_to_the_letter_is_none(value):
    assert not header_hmac("x-s")(delivery(x_s=value), KEY)


@pytest.mark.parametrize(
    "value",
    [
        "s3cret",
        "Bearer s3cret",
        "bearer  s3cret",
        "Basic " + encoded(b"any:s3cret"),
        "BASIC " + encoded(b":s3cret"),
    ],
)
def test_an_authorization_shows_the_secret(value):
    assert authorization(delivery(authorization=value), b"s3cret")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Basic",
        "Bearer s3cretive",
        "Bearer Bearer s3cret",
        "Token s3cret",
        "Basic s3cret",
        "Basic " + encoded(b"s3cret"),
        "Basic " + encoded(b"s3cret:"),
        "Basic " + encoded(b"any:s3cret:"),
        "Basic " + encoded(b"any:s3cret")[:-1],
        "Basic !" + encoded(b"any:s3cret"),
        "Basic é",
        "s3cret, s3cret",
        "\ud800",
    ],
)
def test_an_authorization_that_shows_something_else(value):
    assert not authorization(delivery(authorization=value), b"s3cret")


def test_a_password_may_have_colons():
    assert authorization(delivery(authorization="Basic " + encoded(b"u:a:b")), b"a:b")


def test_a_secret_of_bytes_that_are_no_text_can_be_shown():
    secret = b"caf\xe9-secret"
    wire = secret.decode("utf-8", "surrogateescape")
    assert path_secret(delivery(path=wire), secret)
    assert header_secret("x-s")(delivery(x_s=wire), secret)
    assert authorization(delivery(authorization=f"Bearer {wire}"), secret)
    assert not path_secret(delivery(path=wire), b"caf\xc3\xa9-secret")


def test_what_was_not_sent_proves_nothing():
    nothing = delivery()
    proofs = (path_secret, authorization, header_secret("x-s"), header_hmac("x-s"))
    assert not any(proof(nothing, KEY) for proof in (*proofs, own_signature(window_s=1)))
    assert not any_of(*proofs)(nothing, KEY)
    assert any_of(*proofs)(delivery(path="Jefe"), KEY)


# Of "1780000000.what do ya want for nothing?" with the key "Jefe", by `openssl dgst`.
STAMPED = "15e1b8d95056b738caa6fd979ffac3f8072777df578c2e9d086e7145fd74c578"
AT_US = 1_780_000_000_000_000


@pytest.mark.parametrize(
    ("value", "at_us", "is_shown"),
    [
        (f"t=1780000000,sha256={STAMPED}", AT_US, True),
        (f"t=1780000000,sha256={STAMPED}", AT_US + 5_000_000, True),
        (f"t=1780000000,sha256={STAMPED}", AT_US - 5_000_000, True),
        (f"t=1780000000,sha256={STAMPED}", AT_US + 5_000_001, False),
        (f"t=1780000000,sha256={STAMPED}", AT_US - 5_000_001, False),
        (f"t=1780000001,sha256={STAMPED}", AT_US, False),
        (f"t=01780000000,sha256={STAMPED}", AT_US, False),
        (f"t=1780000000, sha256={STAMPED}", AT_US, False),
        (f"sha256={STAMPED},t=1780000000", AT_US, False),
        (f"t=1780000000,sha256={STAMPED}\n", AT_US, False),
        (f"t=1780000000,sha256={STAMPED.upper()}", AT_US, False),
        (f"t={'9' * 5000},sha256={STAMPED}", AT_US, False),
        ("t=١٧٨,sha256=" + STAMPED, AT_US, False),
        ("", AT_US, False),
    ],
)
def test_a_stamped_signature_is_good_for_its_window(value, at_us, is_shown):
    proof = own_signature(window_s=5)
    assert proof(delivery(at_us=at_us, x_kitd_signature=value), KEY) is is_shown
