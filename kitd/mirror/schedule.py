"""When something recurs, and when it is next.

A cron expression has the five fields of crontab(5) and means the wall clock of this machine. A day
matches both day fields if one of them begins with `*`, else either. Where clocks are changed, kitd
does as RFC 5545 (section 3.3.5) asks: a time that is skipped is taken by the clock as it was, so
that 02:30 comes at 03:30, once; of a time that comes twice the first is meant, but where the hour
begins with `*` the schedule goes on through both.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import ClassVar

from kitd.errors import KitdError

SECOND_US = 1_000_000
MAX_SPREAD_US = 60 * SECOND_US
_SPREAD_PART = 10
_NOT_PAST_US = 300 * SECOND_US
_LONGEST_GAP = timedelta(days=41 * 366)
"""More than lies between two days of any expression: 29 February is left out for eight years at
most, and a day that must be a weekday as well has every weekday within 40."""
_MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class InvalidScheduleError(KitdError):
    """The text is not a cron expression."""

    code: ClassVar[str] = "invalid_schedule"


@dataclass(frozen=True, slots=True)
class Cron:
    """A checked expression of five fields, single spaces between them. Made by `parse_cron`."""

    expression: str

    def __str__(self) -> str:
        return self.expression


@dataclass(frozen=True, slots=True)
class Interval:
    """Again and again, this long after the last start."""

    every_s: float


Schedule = Cron | Interval


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    lowest: int
    highest: int
    words: tuple[str, ...] = ()

    def values(self, content: str) -> frozenset[int]:
        """Return what a field stands for: numbers, words, `a-b`, `*`, the last two with a step."""
        found: frozenset[int] = frozenset()
        for item in content.split(","):
            values = self._item(item)
            if values is None:
                raise InvalidScheduleError(
                    f"{content[:40]!r} is not a {self.name} of a cron expression",
                    hint=f"{self.lowest} to {self.highest}; a,b and a-b and */n are understood",
                )
            found |= frozenset(values)
        return found

    def _item(self, item: str) -> range | None:
        span, slash, step = item.partition("/")
        first, dash, last = span.partition("-")
        if slash and (re.fullmatch("[1-9][0-9]?", step) is None or (span != "*" and not dash)):
            return None
        low, high = self._value(first), self._value(last if dash else first)
        if span == "*":
            low, high = self.lowest, self.highest
        if low is None or high is None or low > high:
            return None
        return range(low, high + 1, int(step or 1))

    def _value(self, text: str) -> int | None:
        if text.lower() in self.words:
            return self.words.index(text.lower()) + self.lowest
        number = int(text) if re.fullmatch("[0-9]{1,2}", text) else -1
        return number if self.lowest <= number <= self.highest else None


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)


@dataclass(frozen=True, slots=True)
class _Times:
    """A cron expression, taken apart."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """As `date.isoweekday` has them."""
    is_every_hour: bool
    is_either_day: bool

    def has_day(self, day: date) -> bool:
        in_month, in_week = day.day in self.days, day.isoweekday() in self.weekdays
        is_day = (in_month or in_week) if self.is_either_day else (in_month and in_week)
        return is_day and day.month in self.months

    def has_any_day(self) -> bool:
        return self.is_either_day or any(
            min(self.days) <= _MONTH_DAYS[month - 1] for month in self.months
        )

    def starts_us(self, day: date, hour: int) -> Iterator[int]:
        """Return the moments of an hour, in no order; one can stand for two times of the day."""
        for minute in self.minutes:
            yield from self._moments_us(day, hour, minute)

    def last_us(self, day: date, hour: int) -> int:
        """Return the last moment of an hour."""
        return max(self._moments_us(day, hour, self.minutes[-1]))

    def _moments_us(self, day: date, hour: int, minute: int) -> Iterator[int]:
        at = datetime(day.year, day.month, day.day, hour, minute)  # noqa: DTZ001 - the wall clock's
        first, second = int(at.timestamp()), int(at.replace(fold=1).timestamp())
        yield first * SECOND_US
        # Of a time that is skipped, the second reading is one before the gap.
        if self.is_every_hour and second > first:
            yield second * SECOND_US


def _times(fields: list[str]) -> _Times:
    minutes, hours, days, months, weekdays = (
        field.values(content) for field, content in zip(_FIELDS, fields, strict=True)
    )
    return _Times(
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=days,
        months=months,
        weekdays=frozenset(weekday or 7 for weekday in weekdays),
        is_every_hour=fields[1].startswith("*"),
        is_either_day=not fields[2].startswith("*") and not fields[4].startswith("*"),
    )


def parse_cron(text: str) -> Cron:
    """Return the expression. Raises `InvalidScheduleError`, also for one that never comes."""
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise InvalidScheduleError(
            f"expected five cron fields such as '*/15 * * * *', got {text[:60]!r}"
        )
    if not _times(fields).has_any_day():
        raise InvalidScheduleError(f"no such day ever comes: {text[:60]!r}")
    return Cron(" ".join(fields))


def spread_of(name: str) -> float:
    """Return where in its spread a name has its place: the same for ever, 0 to less than 1."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / (1 << 48)


def next_start_us(schedule: Schedule, last_start_us: int | None, now_us: int, spread: float) -> int:
    """Return when to start next, in microseconds since the epoch: `now_us` for what is overdue.

    Whatever was missed since the last start is made up by one start. Without a last start an
    interval is due at once, and cron the next time that comes; one that came in the last five
    minutes is due, so that whoever asks now and then does not always hear of the next. A last start
    that is to come counts as now: the clock was set back.

    Each start is later than its schedule has it by `spread` (0 to 1, of `spread_of`) of a tenth of
    the time until the one after it, at most a minute, so that many schedules do not begin in the
    same second.
    """
    last_us = None if last_start_us is None else min(last_start_us, now_us)
    if isinstance(schedule, Cron):
        times = _times(schedule.expression.split())
        due_us = _after(times, now_us - _NOT_PAST_US if last_us is None else last_us)
        interval_us = _after(times, due_us) - due_us
    elif last_us is None:
        return now_us
    else:
        interval_us = round(schedule.every_s * SECOND_US)
        due_us = last_us + interval_us
    delay_us = int(min(interval_us // _SPREAD_PART, MAX_SPREAD_US) * spread)
    return max(due_us + delay_us, now_us)


def _after(times: _Times, at_us: int) -> int:
    """Return the first moment of a cron expression after another moment."""
    first = datetime.fromtimestamp(at_us // SECOND_US).date()  # noqa: DTZ006 - the wall clock's
    # The last hours of the day before may have been moved into this one.
    day = first - timedelta(days=1)
    while day - first < _LONGEST_GAP:
        for hour in times.hours if times.has_day(day) else ():
            if times.last_us(day, hour) > at_us:
                return min(start for start in times.starts_us(day, hour) if start > at_us)
        day += timedelta(days=1)
    raise AssertionError(times)
