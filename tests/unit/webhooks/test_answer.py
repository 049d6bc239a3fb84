"""Answers: what senders take for done, and what they send again."""

import pytest

from kitd.webhooks import answer
from kitd.webhooks.delivery import Handshake
from kitd.webhooks.judgement import DeliveryState


def test_whatever_is_kept_is_done():
    assert {state: answer.answer_taken(state).status for state in DeliveryState} == {
        DeliveryState.ACCEPTED: 202,
        DeliveryState.IGNORED: 200,
        DeliveryState.MALFORMED: 202,
    }
    assert answer.DUPLICATE.status == 200


@pytest.mark.parametrize("busy", [answer.BUSY, answer.CROWDED])
def test_what_may_be_kept_soon_says_when(busy):
    assert (busy.status, busy.headers) == (503, {"Retry-After": "5"})


@pytest.mark.parametrize("refusal", [answer.REFUSED, answer.UNKNOWN, answer.TOO_LARGE])
def test_a_refusal_says_nothing(refusal):
    assert (refusal.headers, refusal.body) == ({}, b"")


def test_a_handshake_is_answered_with_what_the_format_says():
    given = answer.answer_handshake(Handshake({"WebHook-Allowed-Origin": "a"}, b"code"))
    assert (given.status, given.headers) == (200, {"WebHook-Allowed-Origin": "a"})
    assert given.body == b"code"


@pytest.mark.parametrize("headers", [{"a": "b\r\nc: d"}, {"a\r\nb": "c"}, {"ä": "b"}, {"": "b"}])
def test_a_handshake_that_is_no_http_is_not_answered(headers):
    assert answer.answer_handshake(Handshake(headers)).status == 503
