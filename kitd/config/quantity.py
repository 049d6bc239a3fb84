"""Durations and sizes as people write them: `500ms`, `1h30m`, `64MiB`, `10GB`."""

import re
from fractions import Fraction

from kitd.config.problem import InvalidValueError

MAX_DURATION_S = 366 * 86_400.0
MAX_SIZE_BYTES = 2**63 - 1

_DURATION_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_DURATION_TERM = re.compile(r"([0-9]{1,12})(ms|[smhd])")
_DURATION = re.compile(rf"(?:{_DURATION_TERM.pattern}){{1,5}}")

# Largest first, so that a size is shown in the largest unit that loses nothing.
_SIZE_UNITS = {
    "PiB": 2**50,
    "PB": 10**15,
    "TiB": 2**40,
    "TB": 10**12,
    "GiB": 2**30,
    "GB": 10**9,
    "MiB": 2**20,
    "MB": 10**6,
    "KiB": 2**10,
    "kB": 10**3,
    "KB": 10**3,
    "B": 1,
    "": 1,
}
_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?)([A-Za-z]{0,3})")


def parse_duration(text: str) -> float:
    """Return seconds. Raises `InvalidValueError`."""
    if _DURATION.fullmatch(text) is None:
        raise InvalidValueError(
            f"expected a duration such as 2s, got {text[:40]!r}",
            hint="write a number and its unit: ms, s, m, h or d" if text.isdecimal() else None,
        )
    milliseconds = sum(
        int(number) * _DURATION_UNITS_MS[unit] for number, unit in _DURATION_TERM.findall(text)
    )
    if milliseconds > MAX_DURATION_S * 1000:
        raise InvalidValueError(f"{text[:40]} is longer than {format_duration(MAX_DURATION_S)}")
    return milliseconds / 1000


def format_duration(duration_s: float) -> str:
    """Return the duration in the largest unit that needs no fraction, to the millisecond."""
    milliseconds = round(duration_s * 1000)
    for unit, factor in _DURATION_UNITS_MS.items():
        if milliseconds and milliseconds % factor == 0:
            return f"{milliseconds // factor}{unit}"
    return "0s"


def parse_size(text: str) -> int:
    """Return bytes, rounded down; KiB is 1024 and kB is 1000. Raises `InvalidValueError`."""
    match = _SIZE.fullmatch(text)
    if match is None or match.group(2) not in _SIZE_UNITS:
        raise InvalidValueError(f"expected a size such as 64MiB or 10GB, got {text[:40]!r}")
    size = int(Fraction(match.group(1)) * _SIZE_UNITS[match.group(2)])
    if size > MAX_SIZE_BYTES:
        raise InvalidValueError(f"{text[:40]} is larger than any disk")
    return size


def format_size(size_bytes: int) -> str:
    """Return the size in the largest unit that needs no fraction."""
    for unit, factor in _SIZE_UNITS.items():
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return "0B"
