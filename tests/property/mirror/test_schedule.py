import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitd.mirror.schedule import Interval, next_start_us, parse_cron

MINUTE_US = 60_000_000
# 1970 to 2100, as the moments of rows are.
MOMENTS = st.integers(0, 4_102_444_800_000_000)
SPREADS = st.floats(0, 1, exclude_max=True)


@pytest.fixture(autouse=True, scope="module", params=["UTC0", "CET-1CEST,M3.5.0,M10.5.0/3"])
def zone(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


def fields(lowest, highest):
    number = st.integers(lowest, highest)
    spans = st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}")
    steps = st.tuples(st.just("*") | spans, st.integers(1, 20)).map("{0[0]}/{0[1]}".format)
    items = number.map(str) | spans | steps
    return st.just("*") | st.lists(items, min_size=1, max_size=3).map(",".join)


# Days up to 28 come in every month.
CRON = st.tuples(fields(0, 59), fields(0, 23), fields(1, 28), fields(1, 12), fields(0, 7)).map(
    lambda parts: parse_cron(" ".join(parts))
)
INTERVALS = st.integers(1000, 366 * 86_400_000).map(lambda ms: Interval(ms / 1000))


@given(CRON | INTERVALS, MOMENTS | st.none(), MOMENTS, SPREADS)
def test_a_start_is_never_past_and_never_the_last_one_again(schedule, last_us, now_us, spread):
    found = next_start_us(schedule, last_us, now_us, spread)
    assert found >= now_us
    if last_us is not None and last_us >= now_us:
        assert found > now_us
    # However late it is then, the spread keeps the order.
    assert found >= next_start_us(schedule, last_us, now_us, 0.0)
    assert found - next_start_us(schedule, last_us, now_us, 0.0) < MINUTE_US


@given(CRON, MOMENTS)
def test_a_time_of_cron_is_one_of_its_minutes_and_the_first(cron, now_us):
    found = next_start_us(cron, now_us, now_us, 0.0)
    assert found % MINUTE_US == 0
    # Any moment between is followed by the same start.
    assert next_start_us(cron, (now_us + found) // 2, now_us, 0.0) == found
    assert next_start_us(cron, found - 1, found - 1, 0.0) == found
