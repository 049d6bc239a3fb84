"""Which answers say that a host is in trouble, and which requests are sent again."""

import pytest
from yarl import URL

from kitd.registry.governor import OUTAGE_S, PATIENCE_S, Closed, Closure, Lane, Outcome
from kitd.registry.request import Request
from kitd.registry.retry import delay_s, is_passing, outcome_of

WELL = Outcome()


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, WELL),
        (307, WELL),
        (401, WELL),
        (404, WELL),
        (408, Outcome(overloaded=True)),
        (416, WELL),
        (429, Outcome(refused=True, overloaded=True)),
        (500, Outcome(failed=True)),
        (501, WELL),
        (502, Outcome(failed=True)),
        (503, Outcome(failed=True, overloaded=True)),
        (504, Outcome(failed=True, overloaded=True)),
        (520, Outcome(failed=True)),
        (524, Outcome(failed=True, overloaded=True)),
    ],
)
def test_what_an_answer_says_of_its_host(status, outcome):
    assert outcome_of(status, None) == outcome


@pytest.mark.parametrize(("status", "kept_s"), [(429, 17.0), (503, 17.0), (500, None), (200, None)])
def test_a_window_is_kept_where_the_host_is_busy(status, kept_s):
    assert outcome_of(status, 17.0).retry_after_s == kept_s


@pytest.mark.parametrize("status", [None, 408, 499, 500, 502, 503, 504, 520, 522, 524, 529])
def test_what_may_pass_is_sent_again_if_it_may_be_done_twice(status):
    assert is_passing(status, None, repeatable=True)
    assert not is_passing(status, None, repeatable=False)


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 405, 409, 413, 416, 501, 505, 530])
def test_what_does_not_pass_is_not_sent_again(status):
    assert not is_passing(status, None, repeatable=True)


def test_a_429_did_nothing_so_that_everything_may_be_sent_again():
    assert is_passing(429, None, repeatable=False)


@pytest.mark.parametrize("status", [429, 503, None])
@pytest.mark.parametrize(
    ("closure", "most_s"), [(Closure.FORBIDDEN, PATIENCE_S), (Closure.FAILING, OUTAGE_S)]
)
def test_a_wait_that_is_too_long_for_an_attempt_is_left_to_the_queue(status, closure, most_s):
    assert is_passing(status, Closed(closure, most_s - 1), repeatable=True)
    assert not is_passing(status, Closed(closure, most_s), repeatable=True)


def test_the_wait_doubles_from_half_a_second_to_eight():
    assert [delay_s(tries, 1.0) for tries in range(1, 8)] == [0.5, 1, 2, 4, 8, 8, 8]
    assert delay_s(3, 0.0) == 0


def body():
    raise AssertionError("nobody opens it here")


@pytest.mark.parametrize(
    ("method", "content", "more", "lane", "repeatable"),
    [
        ("GET", None, {}, Lane.SMALL, True),
        ("GET", None, {"is_download": True}, Lane.READING, True),
        ("HEAD", None, {}, Lane.SMALL, True),
        ("POST", None, {}, Lane.SMALL, True),
        ("POST", b"form", {}, Lane.SMALL, True),
        ("PUT", b"{}", {}, Lane.SMALL, True),
        ("PUT", b"blob", {"ends_upload": True}, Lane.WRITING, False),
        ("PUT", None, {"ends_upload": True}, Lane.WRITING, False),
        ("PUT", body, {"ends_upload": True}, Lane.WRITING, False),
        ("PATCH", body, {}, Lane.WRITING, False),
        ("DELETE", None, {}, Lane.SMALL, False),
    ],
)
def test_a_request_knows_its_lane_and_whether_it_may_be_done_twice(
    method, content, more, lane, repeatable
):
    request = Request(operation="try", method=method, url=URL("http://r/"), content=content, **more)
    assert (request.lane, request.repeatable) == (lane, repeatable)
