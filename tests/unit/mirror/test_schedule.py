import time
from datetime import datetime

import pytest

from kitd.mirror.schedule import (
    Cron,
    Interval,
    InvalidScheduleError,
    next_start_us,
    parse_cron,
    spread_of,
)

SECOND_US = 1_000_000


@pytest.fixture(autouse=True)
def central_europe(monkeypatch):
    """An hour is skipped on 2026-03-29 at 02:00, and comes twice on 2026-10-25 from 02:00."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def us(text):
    """A local time of ISO 8601, with or without its offset."""
    return int(datetime.fromisoformat(text).timestamp() * SECOND_US)


def starts(expression, after, count):
    """The next starts, each as local time with its offset."""
    found, at_us = [], us(after)
    for _ in range(count):
        at_us = next_start_us(parse_cron(expression), at_us, at_us, 0.0)
        found.append(datetime.fromtimestamp(at_us / SECOND_US).astimezone().isoformat()[:-9])
    return found


def days(expression, after, count):
    return [start[:10] for start in starts(expression, after, count)]


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("*/15 * * * *", "2026-05-05T10:14:59", "2026-05-05T10:15"),
        ("*/15 * * * *", "2026-05-05T10:15:00", "2026-05-05T10:30"),
        ("*/15 * * * *", "2026-05-05T23:45:00", "2026-05-06T00:00"),
        ("5,50-52 9-17/4 * * *", "2026-05-05T13:51:30", "2026-05-05T13:52"),
        ("5,50-52 9-17/4 * * *", "2026-05-05T13:52:00", "2026-05-05T17:05"),
        ("0 3 * * mon-fri", "2026-05-08T03:00:00", "2026-05-11T03:00"),
        ("0 0 1 JAN *", "2026-05-08T03:00:00", "2027-01-01T00:00"),
        ("0 0 31 * *", "2026-05-31T00:00:00", "2026-07-31T00:00"),
        ("0 0 29 2 *", "2026-05-31T00:00:00", "2028-02-29T00:00"),
        ("0 0 29 2 *", "2097-05-31T00:00:00", "2104-02-29T00:00"),
        ("0 0 * * 0", "2026-05-05T00:00:00", "2026-05-10T00:00"),
        ("0 0 * * 5-7", "2026-05-09T00:00:00", "2026-05-10T00:00"),
    ],
)
def test_cron_goes_by_the_clock_on_the_wall(expression, after, expected):
    (found,) = starts(expression, after, 1)
    assert found == expected


def test_two_restricted_days_are_either_day():
    assert days("0 0 13 * fri", "2026-02-01T00:00", 4) == [
        "2026-02-06", "2026-02-13", "2026-02-20", "2026-02-27",
    ]  # fmt: skip
    assert "2026-05-13" in days("0 0 13 * fri", "2026-05-01T00:00", 3)


def test_a_day_that_begins_with_a_star_is_both_days():
    """As cron(8) has it: `*/2` is a step through all days, and not a restriction of its own."""
    assert days("0 0 */2 * mon", "2026-05-29T00:00", 3) == [
        "2026-06-01", "2026-06-15", "2026-06-29",
    ]  # fmt: skip


def test_a_time_that_is_skipped_comes_as_much_later():
    assert starts("30 2 * * *", "2026-03-28T02:30", 2) == ["2026-03-29T03:30", "2026-03-30T02:30"]
    assert starts("30 2,3 * * *", "2026-03-29T00:00", 2) == ["2026-03-29T03:30", "2026-03-30T02:30"]


def test_a_step_through_all_hours_stumbles_over_no_gap():
    assert starts("*/30 * * * *", "2026-03-29T01:10", 3) == [
        "2026-03-29T01:30", "2026-03-29T03:00", "2026-03-29T03:30",
    ]  # fmt: skip


def test_a_time_that_comes_twice_is_the_first():
    noon_us = us("2026-10-24T12:00")
    at_us = next_start_us(parse_cron("30 2 * * *"), noon_us, noon_us, 0.0)
    assert at_us == us("2026-10-25T02:30+02:00")
    assert starts("30 2 * * *", "2026-10-25T02:30+02:00", 1) == ["2026-10-26T02:30"]
    assert starts("30 2 * * *", "2026-10-25T02:10+01:00", 1) == ["2026-10-26T02:30"]


def test_a_step_through_all_hours_goes_on_through_both():
    at_us, found = us("2026-10-25T01:45"), []
    for _ in range(5):
        at_us = next_start_us(parse_cron("*/30 * * * *"), at_us, at_us, 0.0)
        found.append(at_us)
    first = us("2026-10-25T02:00+02:00")
    assert found == [first + half_hours * 1800 * SECOND_US for half_hours in range(5)]


def test_what_was_missed_is_made_up_once():
    cron = parse_cron("0 * * * *")
    now_us = us("2026-05-05T10:20")
    assert next_start_us(cron, us("2026-05-01T00:00"), now_us, 0.5) == now_us
    assert next_start_us(cron, now_us, now_us, 0.0) == us("2026-05-05T11:00")

    assert next_start_us(Interval(60.0), 0, now_us, 0.5) == now_us
    assert next_start_us(Interval(60.0), now_us, now_us, 0.0) == now_us + 60 * SECOND_US


def test_what_never_ran_starts_at_once_or_at_its_time():
    now_us = us("2026-05-05T10:20")
    assert next_start_us(Interval(3600.0), None, now_us, 0.9) == now_us
    assert next_start_us(parse_cron("0 * * * *"), None, now_us, 0.0) == us("2026-05-05T11:00")


def test_who_asks_now_and_then_does_not_miss_the_first_start():
    """A rule that never ran is asked about every fifteen seconds, and started once it is due."""
    cron, now_us, spread = parse_cron("0 * * * *"), us("2026-05-05T10:50"), 0.7
    while next_start_us(cron, None, now_us, spread) > now_us:
        now_us += 15 * SECOND_US
    assert now_us == us("2026-05-05T11:00:45")


def test_a_start_in_the_future_counts_as_now():
    """The clock was set back by years: the rule must not wait for them."""
    now_us, future_us = us("2026-05-05T10:20"), us("2036-05-05T10:20")
    assert next_start_us(Interval(60.0), future_us, now_us, 0.0) == now_us + 60 * SECOND_US
    assert next_start_us(parse_cron("0 * * * *"), future_us, now_us, 0.0) == us("2026-05-05T11:00")


@pytest.mark.parametrize(
    ("schedule", "due_after_s", "delay_s"),
    [
        (Interval(10.0), 10, 0.5),
        (Interval(600.0), 600, 30),
        (Interval(86_400.0), 86_400, 30),
        (Cron("* * * * *"), 60, 3),
        (Cron("*/5 * * * *"), 300, 15),
        (Cron("0 * * * *"), 3600, 30),
    ],
)
def test_the_spread_is_a_tenth_and_at_most_a_minute(schedule, due_after_s, delay_s):
    now_us = us("2026-05-05T10:00")
    expected = now_us + round((due_after_s + delay_s) * SECOND_US)
    assert next_start_us(schedule, now_us, now_us, 0.5) == expected


def test_a_name_has_one_place_and_names_have_many():
    places = [spread_of(f"mirror-{number}") for number in range(100)]
    assert places == [spread_of(f"mirror-{number}") for number in range(100)]
    assert all(0.0 <= place < 1.0 for place in places)
    assert len({int(place * 10) for place in places}) == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("* * * *", "expected five cron fields"),
        ("60 * * * *", "'60' is not a minute"),
        ("* 24 * * *", "'24' is not a hour"),
        ("* * 0 * *", "'0' is not a day of the month"),
        ("* * * 13 *", "'13' is not a month"),
        ("* * * * 8", "'8' is not a day of the week"),
        ("* * * * mon-", "'mon-' is not a day of the week"),
        ("*/0 * * * *", "is not a minute"),
        ("5/2 * * * *", "is not a minute"),
        ("5-2 * * * *", "is not a minute"),
        ("1,,2 * * * *", "is not a minute"),
        ("-1 * * * *", "is not a minute"),
        ("\u0661 * * * *", "is not a minute"),
        ("0 0 30 2 *", "no such day ever comes"),
        ("0 0 31 4,jun,9,11 *", "no such day ever comes"),
    ],
)
def test_what_is_no_cron_expression_is_refused(text, message):
    with pytest.raises(InvalidScheduleError, match=message):
        parse_cron(text)


@pytest.mark.parametrize("text", ["0 0 31 2 mon", "0 0 31 2,3 *", "0 0 29 2 *"])
def test_a_day_that_comes_now_and_then_is_one(text):
    assert parse_cron(text) == Cron(text)
