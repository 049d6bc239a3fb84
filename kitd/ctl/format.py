"""How numbers, times and texts from elsewhere look to a person. Pure."""

import math
import time
from collections.abc import Callable

from kitd.errors import KitdError

_SIZES = ("KiB", "MiB", "GiB", "TiB", "PiB")
_DURATIONS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_STEPS = ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s"))
MAX_DURATION_S = 366 * 86400.0
MAX_NUMBER = (1 << 63) - 1
"""What the ledger can count to."""
_MAX_DIGITS = 19


class InvalidDurationError(KitdError, ValueError):
    """The text is not a duration."""

    code = "invalid_duration"


class InvalidNumberError(KitdError, ValueError):
    """The text is not a number, or not one that there can be."""

    code = "invalid_number"


def number_reader(least: int, most: int = MAX_NUMBER) -> Callable[[str], int]:
    """Return what reads a whole number within bounds, and raises `InvalidNumberError`."""

    def read(text: str) -> int:
        is_number = text.isascii() and text.isdigit()
        number = int(text[:_MAX_DIGITS]) if is_number else -1
        if number > most or (is_number and len(text) > _MAX_DIGITS):
            raise InvalidNumberError(f"{text[:40]} is more than {most}")
        if number < least:
            raise InvalidNumberError(f"{text[:40]!r} is not a number from {least} up")
        return number

    return read


def parse_duration_s(text: str) -> float:
    """Read `500ms`, `2s`, `15m`, `1h`, `1d` or `1h30m` as seconds. Raises `InvalidDurationError`.

    Units get smaller, each may come once.
    """
    total_s, larger_s, rest = 0.0, math.inf, text
    while True:
        digits, rest = _leading(rest, "0123456789")
        unit, rest = _leading(rest, "abcdefghijklmnopqrstuvwxyz")
        unit_s = _DURATIONS_S.get(unit)
        if unit_s is None or unit_s >= larger_s or not 0 < len(digits) <= 9:
            raise InvalidDurationError(
                f"{text[:40]!r} is not a duration", hint="write it like 500ms, 2s, 15m or 1h30m"
            )
        total_s, larger_s = total_s + int(digits) * unit_s, unit_s
        if not rest:
            return min(total_s, MAX_DURATION_S)


def _leading(text: str, characters: str) -> tuple[str, str]:
    """Return how a text begins as long as it has these characters only, and the rest."""
    rest = text.lstrip(characters)
    return text[: len(text) - len(rest)], rest


def parse_since(text: str) -> str | float:
    """Read an RFC 3339 time, which is returned as it is, or how many seconds ago something was.

    Raises `InvalidDurationError`.
    """
    if timestamp_s(text) is not None:
        return text
    try:
        return parse_duration_s(text)
    except InvalidDurationError as error:
        raise InvalidDurationError(
            f"{text[:40]!r} is neither a time nor a duration",
            hint="write it like 2026-11-20T08:00:00Z, or like 30m or 2h",
        ) from error


def rfc3339(at_s: float) -> str:
    """Return seconds since the epoch as an RFC 3339 time in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))


def size(count: int) -> str:
    """Return a number of bytes as `kit` prints it: one decimal, rounded down."""
    if count < 1024:
        return f"{count} B"
    unit, name = 1024, _SIZES[0]
    for larger in _SIZES[1:]:
        if count < unit * 1024:
            break
        unit, name = unit * 1024, larger
    tenths = count * 10 // unit
    return f"{tenths // 10}.{tenths % 10} {name}"


def duration(seconds: float) -> str:
    """Return a span in its two largest units: `0.4s`, `12s`, `3m 20s`, `2d 4h`."""
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f}s"
    whole = int(seconds)
    for large_s, large, small_s, small in _STEPS:
        if whole >= large_s:
            rest = whole % large_s // small_s
            return f"{whole // large_s}{large}" + (f" {rest}{small}" if rest else "")
    return f"{whole}s"


def timestamp_s(text: str) -> float | None:
    """Return an RFC 3339 time in UTC as seconds since the epoch, or None if it is none.

    By hand, because importing `datetime` costs a tenth of the time that `kitctl status` may take.
    """
    clock, dot, fraction = text.removesuffix("Z").partition(".")
    date, _, hour = clock.partition("T")
    fields = [*date.split("-"), *hour.split(":")]
    numbers = [int(field) for field in fields if field.isascii() and field.isdigit()]
    if [len(field) for field in fields] != [4, 2, 2, 2, 2, 2] or len(numbers) != len(fields):
        return None
    if not text.endswith("Z") or (dot and not (fraction.isascii() and fraction.isdigit())):
        return None
    year, month, day, hours, minutes, seconds = numbers
    # Years that begin in March have their leap day at the end; 719469 days lie before 1970.
    shifted = year - (month < 3)
    days = 365 * shifted + shifted // 4 - shifted // 100 + shifted // 400
    days += (153 * ((month + 9) % 12) + 2) // 5 + day - 719469
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds + float(f"0.{fraction or 0}")


def age(at: str | None, now_s: float) -> str:
    """Return how long ago an RFC 3339 time is, in one unit; `-` for none."""
    then_s = None if at is None else timestamp_s(at)
    if then_s is None:
        return "-"
    passed = int(now_s - then_s)
    if passed < 0:
        return "soon"
    for unit_s, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        if passed >= unit_s:
            return f"{passed // unit_s}{unit} ago"
    return "just now"


def until(time: str | None, now_s: float) -> str:
    """Return how long it is to an RFC 3339 time, in one unit; `-` for none."""
    then_s = None if time is None else timestamp_s(time)
    if then_s is None:
        return "-"
    left = int(then_s - now_s)
    for unit_s, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        if left >= unit_s:
            return f"in {left // unit_s}{unit}"
    return "now"


def elapsed(start: str | None, end: str | None, now_s: float) -> str:
    """Return the span between two RFC 3339 times, until now if there is no end; `-` for none."""
    start_s = None if start is None else timestamp_s(start)
    end_s = now_s if end is None else timestamp_s(end)
    return "-" if start_s is None or end_s is None else duration(end_s - start_s)


_HARMLESS = frozenset(
    "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f"
    "\u3000\u200c\u200d"
)
"""The spaces of all scripts, and what joins letters and emoji, or keeps them apart.

Python has them for not printable. Other controls of formatting turn the order of a line round, or
are not seen.
"""


def printable(text: str) -> str:
    """Return a text from elsewhere as one harmless line: it may name files, or quote a registry."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _HARMLESS else "\ufffd" for c in text)


def short_digest(digest: str) -> str:
    """Return the twelve digits by which a person knows a digest."""
    return printable(digest.rpartition(":")[2][:12])


def plural(count: int, noun: str) -> str:
    """Return `1 layer`, `2 layers`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
