"""Whatever is sent, a format answers or says that it is malformed; each bit of a proof counts."""

import hashlib
import hmac
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kitd.webhooks.delivery import Changes, Delivery, Handshake, Irrelevant
from kitd.webhooks.format import MalformedDeliveryError
from kitd.webhooks.formats import FORMATS

GOLDEN = Path(__file__).parents[2] / "golden/webhooks"
NAMES = [
    "authorization",
    "ce-type",
    "ce-source",
    "ce-id",
    "content-type",
    "webhook-request-origin",
    "x-api-key",
    "x-github-event",
    "x-github-delivery",
    "x-gitea-event",
    "x-gitea-delivery",
    "x-gitea-signature",
    "x-goog-pubsub-message-id",
    "x-hub-signature-256",
    "x-jfrog-event-auth",
    "x-kitd-delivery",
    "x-kitd-signature",
]
# Surrogates too: that is what bytes of a header that are no text become.
TEXTS = st.text(st.characters(), max_size=40) | st.text(
    st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF, categories=["Cs"]), max_size=4
)
VALUES = TEXTS | st.sampled_from(
    [
        "package",
        "ping",
        "Basic",
        "Bearer",
        "zotregistry.image.updated",
        "t=1,sha256=00",
        "application/x-www-form-urlencoded",
        "application/cloudevents+json",
    ]
)
WORDS = [
    "events",
    "target",
    "action",
    "push",
    "delete",
    "repository",
    "tag",
    "digest",
    "mediaType",
    "type",
    "event_data",
    "resources",
    "repo_full_name",
    "push_data",
    "package",
    "owner",
    "login",
    "name",
    "version",
    "package_version",
    "message",
    "data",
    "updated_tags",
    "docker_url",
    "eventType",
    "validationCode",
    "detail",
    "detail-type",
    "repository-name",
]
SCALARS = st.none() | st.booleans() | st.integers() | st.sampled_from(WORDS) | st.text(max_size=8)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5)
    ),
    max_leaves=20,
)
BODIES = st.binary(max_size=200) | DOCUMENTS.map(lambda document: json.dumps(document).encode())
DELIVERIES = st.builds(
    Delivery,
    method=st.sampled_from(["POST", "GET", "OPTIONS", "PUT"]),
    headers=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6),
    body=BODIES,
    received_us=st.integers(-(2**63), 2**63),
    path_secret=st.none() | TEXTS,
)
SECRETS = st.binary(min_size=1, max_size=80)


def answer(name: str, delivery: Delivery, secret: bytes) -> None:
    format_ = FORMATS[name]
    assert format_.is_authentic(delivery, secret) in (True, False)
    named = format_.delivery_id(delivery)
    assert named is None or (0 < len(named) <= 200 and named.isprintable())
    try:
        reading = format_.read(delivery)
    except MalformedDeliveryError as error:
        reading = error
    match reading:
        case MalformedDeliveryError(message=message):
            assert message.isprintable()
            assert len(message) < 400
        case Changes(changes):
            assert len(changes) <= 1000
        case Irrelevant(why):
            assert why.isprintable()
            assert len(why) < 200
        case Handshake(headers, _):
            assert all(value.isprintable() for value in headers.values())


@pytest.mark.parametrize("name", FORMATS)
@given(delivery=DELIVERIES, secret=SECRETS)
@settings(max_examples=150)
def test_whatever_is_sent_is_answered(name, delivery, secret):
    answer(name, delivery, secret)


GOLDENS = sorted(GOLDEN.glob("*/*.json"))


@given(path=st.sampled_from(GOLDENS), data=st.data())
@settings(max_examples=600)
def test_a_golden_with_something_else_in_one_place_is_answered(path, data):
    """Values of every type at every place: further in than any document made from nothing."""
    fields = json.loads(path.read_text(encoding="utf-8"))["delivery"]
    try:
        document = json.loads(fields.get("body", ""))
    except ValueError:
        document = {}
    holder = {"": document}
    at: str | int = ""
    while isinstance(inner := holder[at], dict | list) and inner and data.draw(st.booleans()):
        holder = inner
        at = data.draw(st.sampled_from(list(inner) if isinstance(inner, dict) else [0]))
    holder[at] = data.draw(DOCUMENTS)
    delivery = Delivery(
        method=fields["method"],
        headers=fields["headers"],
        body=json.dumps(document).encode(),
        received_us=fields["received_us"],
        path_secret=fields["path_secret"],
    )
    answer(path.parent.name, delivery, b"secret")


def hexed(secret: bytes, content: bytes) -> str:
    return hmac.new(secret, content, hashlib.sha256).hexdigest()


SIGNED = {
    "github": ("x-hub-signature-256", lambda key, body: "sha256=" + hexed(key, body)),
    "gitea": ("x-gitea-signature", hexed),
    "artifactory": ("x-jfrog-event-auth", hexed),
    "generic": (
        "x-kitd-signature",
        lambda key, body: "t=1780000000,sha256=" + hexed(key, b"1780000000." + body),
    ),
}
PLAIN = {
    "distribution": "authorization",
    "harbor": "authorization",
    "zot": "authorization",
    "acr": "authorization",
    "ecr": "x-api-key",
    "artifactory": "x-jfrog-event-auth",
}


def flip(content: bytes, bit: int) -> bytes:
    flipped = bytearray(content)
    flipped[bit // 8 % len(content)] ^= 1 << bit % 8
    return bytes(flipped)


def carrying(header: str, value: str, body: bytes) -> Delivery:
    return Delivery(
        method="POST", headers={header: value}, body=body, received_us=1_780_000_000_000_000
    )


@pytest.mark.parametrize("name", SIGNED)
@given(body=st.binary(min_size=1, max_size=200), secret=SECRETS, bit=st.integers(0, 1 << 16))
def test_no_bit_of_body_signature_or_secret_is_idle(name, body, secret, bit):
    header, sign = SIGNED[name]
    value = sign(secret, body)
    other = flip(value.encode(), bit).decode("utf-8", "surrogateescape")
    is_authentic = FORMATS[name].is_authentic

    assert is_authentic(carrying(header, value, body), secret)
    assert not is_authentic(carrying(header, value, flip(body, bit)), secret)
    assert not is_authentic(carrying(header, other, body), secret)
    assert not is_authentic(carrying(header, value, body), flip(secret, bit))


@pytest.mark.parametrize("name", PLAIN)
@given(secret=st.text(st.characters(codec="ascii"), min_size=1), bit=st.integers(0, 1 << 16))
def test_no_bit_of_a_secret_in_a_header_is_idle(name, secret, bit):
    key, other = secret.encode(), flip(secret.encode(), bit)
    shown = carrying(PLAIN[name], secret, b"{}")
    assert FORMATS[name].is_authentic(shown, key)
    assert not FORMATS[name].is_authentic(shown, other)


@pytest.mark.parametrize("name", sorted({*FORMATS} - {"github", "gitea", "generic", "artifactory"}))
@given(secret=st.text(min_size=1), other=st.text())
def test_a_secret_in_the_path_is_that_and_no_other(name, secret, other):
    delivery = Delivery(method="POST", headers={}, body=b"", received_us=0, path_secret=other)
    assert FORMATS[name].is_authentic(delivery, secret.encode()) is (other == secret)
