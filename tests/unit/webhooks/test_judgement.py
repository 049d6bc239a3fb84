"""What becomes of a delivery that is authentic, and what of it is kept."""

import pytest

from kitd.webhooks.delivery import Change, Changes, Delivery, Handshake, Irrelevant
from kitd.webhooks.format import MalformedDeliveryError
from kitd.webhooks.judgement import (
    MAX_REASON,
    DeliveryState,
    Verdict,
    fingerprint_of,
    judge,
    kept_headers,
    name_of,
)


class Says:
    """A format that reads the same out of every delivery."""

    name = "says"
    max_bytes = 100

    def __init__(self, reading=None, name=None):
        self._reading = reading
        self._name = name

    def is_authentic(self, delivery, secret):
        return True

    def delivery_id(self, delivery):
        return self._name

    def read(self, delivery):
        if isinstance(self._reading, Exception):
            raise self._reading
        return self._reading


def delivery(**headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Delivery(method="POST", headers=named, body=b"{}", received_us=0)


CHANGE = Change("team/model", "v1")


@pytest.mark.parametrize(
    ("reading", "verdict"),
    [
        (Changes((CHANGE,)), Verdict(DeliveryState.ACCEPTED, (CHANGE,))),
        (Changes(()), Verdict(DeliveryState.ACCEPTED)),
        (Irrelevant("a pull"), Verdict(DeliveryState.IGNORED, reason="a pull")),
        (MalformedDeliveryError("no"), Verdict(DeliveryState.MALFORMED, reason="no")),
    ],
)
def test_what_a_reading_comes_to(reading, verdict):
    assert judge(Says(reading), delivery()) == verdict


def test_a_handshake_is_no_delivery():
    handshake = Handshake({"a": "b"}, b"code")
    assert judge(Says(handshake), delivery()) is handshake


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
def test_a_compressed_body_is_not_read(encoding):
    """What it is was proven over the wire's bytes, what is in it may be of any size."""
    verdict = judge(Says(Changes((CHANGE,))), delivery(content_encoding=encoding))
    assert verdict.state is DeliveryState.MALFORMED
    assert "Content-Encoding" in verdict.reason


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_a_body_that_is_as_it_is_is_read(encoding):
    verdict = judge(Says(Changes((CHANGE,))), delivery(content_encoding=encoding))
    assert verdict.state is DeliveryState.ACCEPTED


def test_a_reason_is_short_and_one_line():
    verdict = judge(Says(MalformedDeliveryError("\x1b[31m\n" + "x" * 10_000)), delivery())
    assert len(verdict.reason) <= MAX_REASON + 20
    assert verdict.reason.isprintable()


def test_only_headers_that_formats_read_are_kept():
    given = {
        "authorization": "Bearer hunter2",
        "cookie": "sid=1",
        "x-hub-signature-256": "sha256=00",
        "x-jfrog-event-auth": "hunter2",
        "x-gitea-signature": "00",
        "x-gitlab-token": "hunter2",
        "content-type": "application/json",
        "x-github-event": "package",
        "ce-type": "zot",
        "user-agent": "a\x7fb",
    }
    kept = {"content-type": "application/json", "x-github-event": "package", "ce-type": "zot"}
    assert kept_headers(given) == kept


def test_a_kept_header_has_a_bound():
    assert len(kept_headers({"user-agent": "x" * 9000})["user-agent"]) == 1000


def test_a_name_is_short_and_printable_or_none():
    assert name_of(Says(name="a"), delivery()) == "a"
    assert name_of(Says(name=None), delivery()) is None
    assert name_of(Says(name=""), delivery()) is None
    assert len(name_of(Says(name="x" * 1000), delivery())) == 200
    assert name_of(Says(name="a\nb"), delivery()) == "a\\nb"


def test_equal_bodies_of_two_sources_are_two_deliveries():
    assert fingerprint_of("a", b"b") != fingerprint_of("ab", b"")
    assert fingerprint_of("a", b"b") == fingerprint_of("a", b"b")
