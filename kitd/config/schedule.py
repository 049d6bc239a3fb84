"""A schedule as it is written: a cron expression, or a duration."""

from kitd.config.problem import InvalidValueError
from kitd.config.quantity import format_duration, parse_duration
from kitd.mirror.schedule import Interval, Schedule, parse_cron

MIN_INTERVAL_S = 1.0
_CRON_FIELDS = 5


def parse_schedule(text: str) -> Schedule:
    """Return the schedule. Raises `InvalidValueError` or `InvalidScheduleError`."""
    fields = len(text.split())
    if fields == 1:
        every_s = parse_duration(text)
        if every_s < MIN_INTERVAL_S:
            raise InvalidValueError(f"{text} is shorter than {format_duration(MIN_INTERVAL_S)}")
        return Interval(every_s)
    if fields != _CRON_FIELDS:
        raise InvalidValueError(
            f"expected a duration or five cron fields such as '*/15 * * * *', got {text[:60]!r}"
        )
    return parse_cron(text)
