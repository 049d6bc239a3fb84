"""How slowly a server may send, counted without a clock."""

import pytest

from kitd.client.paced_http import LEAST_BYTES, MAX_HEADER_BYTES, WINDOW_S, Pace


def test_a_body_that_comes_a_kibibyte_a_second_may_last_for_ever():
    pace = Pace()
    pace.begin_body()
    for _ in range(1000):
        pace.take(1.0, 1024)


def test_one_that_comes_slower_is_given_up():
    pace = Pace()
    pace.begin_body()
    for _ in range(int(WINDOW_S) - 1):
        pace.take(1.0, 1000)
    with pytest.raises(TimeoutError, match="60000 bytes came in 60 seconds"):
        pace.take(1.0, 1000)


def test_what_came_before_does_not_count_for_a_later_time():
    pace = Pace()
    pace.begin_body()
    pace.take(WINDOW_S, 100 * LEAST_BYTES)
    with pytest.raises(TimeoutError):
        pace.take(WINDOW_S, LEAST_BYTES - 1)


def test_a_wait_has_what_is_left():
    pace = Pace()
    assert pace.left_s() == WINDOW_S
    pace.take(WINDOW_S - 5, 1)
    assert pace.left_s() == 5
    pace.take(4.9999, 1)
    assert pace.left_s() > 0


def test_headers_have_one_such_time_however_much_comes():
    pace = Pace()
    with pytest.raises(TimeoutError):
        pace.take(WINDOW_S, LEAST_BYTES)


def test_headers_have_an_end():
    pace = Pace()
    pace.take(0.0, MAX_HEADER_BYTES)
    with pytest.raises(OSError, match="its headers have more than"):
        pace.take(0.0, 1)


def test_a_body_that_comes_with_its_headers_is_no_header():
    pace = Pace()
    pace.take(1.0, MAX_HEADER_BYTES)
    pace.begin_body()
    pace.take(1.0, MAX_HEADER_BYTES)
