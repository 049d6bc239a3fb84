"""When something recurs: a cron expression (crontab(5), five fields) or an interval.

Only the form is checked here; who runs schedules works out the times.
"""

import re
from dataclasses import dataclass

from kitd.config.problem import InvalidValueError
from kitd.config.quantity import format_duration, parse_duration

MIN_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class Cron:
    """A checked expression of five fields, single spaces between them."""

    expression: str

    def __str__(self) -> str:
        return self.expression


@dataclass(frozen=True, slots=True)
class Interval:
    """Again and again, this long after the last start."""

    every_s: float

    def __str__(self) -> str:
        return format_duration(self.every_s)


Schedule = Cron | Interval


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    lowest: int
    highest: int
    words: tuple[str, ...] = ()

    def value(self, text: str) -> int | None:
        """Return the number that a digit string or a word such as `jan` stands for."""
        if text.lower() in self.words:
            return self.words.index(text.lower()) + self.lowest
        number = int(text) if re.fullmatch("[0-9]{1,2}", text) else -1
        return number if self.lowest <= number <= self.highest else None

    def allows(self, item: str) -> bool:
        """Whether `item` is `*`, `a` or `a-b`, where not a single value with an optional step."""
        span, slash, step = item.partition("/")
        first, dash, last = span.partition("-")
        if slash and (re.fullmatch("[1-9][0-9]?", step) is None or (span != "*" and not dash)):
            return False
        if span == "*":
            return True
        low, high = self.value(first), self.value(last if dash else first)
        return low is not None and high is not None and low <= high


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)


def parse_schedule(text: str) -> Schedule:
    """Return the schedule. Raises `InvalidValueError`."""
    fields = text.split()
    if len(fields) == 1:
        every_s = parse_duration(text)
        if every_s < MIN_INTERVAL_S:
            raise InvalidValueError(f"{text} is shorter than {format_duration(MIN_INTERVAL_S)}")
        return Interval(every_s)
    if len(fields) != len(_FIELDS):
        raise InvalidValueError(
            f"expected a duration or five cron fields such as '*/15 * * * *', got {text[:60]!r}"
        )
    for field, content in zip(_FIELDS, fields, strict=True):
        if not all(field.allows(item) for item in content.split(",")):
            raise InvalidValueError(
                f"{content[:40]!r} is not a {field.name} of a cron expression",
                hint=f"{field.lowest} to {field.highest}; a,b and a-b and */n are understood",
            )
    return Cron(" ".join(fields))
