"""Who is told what, and how long an endpoint is left alone."""

import pytest

from kitd.outbox.error import EndpointGoneError
from kitd.outbox.plan import TOO_OLD_US, delay_s, is_too_old, is_wanted, refusal

ALMOST = 1.0 - 2**-53


@pytest.mark.parametrize(
    ("event_type", "types", "wanted"),
    [
        ("kit.packed", ("*",), True),
        ("kit.packed", ("kit.*",), True),
        ("kit.packed", ("kit.packed",), True),
        ("kit.packed", ("*.packed", "job.*"), True),
        ("kit.packed", ("job.*", "tag.moved"), False),
        ("kit.packed", ("kit",), False),
        ("kit.packed", ("it.*",), False),
        ("kit.packed", ("kit.pack",), False),
        ("kitXpacked", ("kit.packed",), False),
        ("notification.dropped", ("*",), False),
        ("notification.dropped", ("notification.dropped",), False),
    ],
)
def test_an_endpoint_wants_what_a_glob_matches(event_type, types, wanted):
    assert is_wanted(event_type, types) is wanted


@pytest.mark.parametrize(
    ("failures", "most_s"), [(1, 1), (2, 2), (3, 4), (8, 128), (9, 256), (10, 300), (10**9, 300)]
)
def test_the_wait_doubles_up_to_five_minutes(failures, most_s):
    assert delay_s(failures, None, 0.0) == most_s / 2
    assert most_s * 0.99 < delay_s(failures, None, ALMOST) <= most_s


@pytest.mark.parametrize(
    ("failures", "asked_s", "waits_s"),
    [(1, 0, 0.5), (1, 120, 120), (20, 120, 150), (1, 7200, 3600)],
)
def test_an_endpoint_may_ask_for_more_time_up_to_an_hour(failures, asked_s, waits_s):
    assert delay_s(failures, asked_s, 0.0) == waits_s


def test_a_day_is_old():
    assert not is_too_old(1000, 1000 + TOO_OLD_US)
    assert is_too_old(1000, 1001 + TOO_OLD_US)
    assert not is_too_old(2000, 1000)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_is_a_yes(status):
    assert refusal(status, "https://ci.example", None) is None


@pytest.mark.parametrize("status", [100, 199, 300, 301, 308, 400, 401, 404, 410, 429, 500, 503])
def test_everything_else_is_tried_again(status):
    error = refusal(status, "https://ci.example", 7.0)
    assert error.disposition == "retry"
    assert error.retry_after_s == 7.0
    assert "https://ci.example" in error.message
    assert str(status) in error.message
    assert error.hint


def test_gone_says_so():
    error = refusal(410, "https://ci.example", None)
    assert type(error) is EndpointGoneError
    assert error.code == "notification_gone"
    assert "configuration" in error.hint
