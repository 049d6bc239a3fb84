"""Scalars as `kit` reads them: YAML 1.2's core schema with the extensions of Go's yaml.v3.

PyYAML's own resolver is YAML 1.1, which reads `yes` as true, `12:30` as 750 and `1e3` as text, so
only its parser is used and this module says what a scalar means. Timestamps come out as the
RFC 3339 text that Go's encoding/json writes, for a Kitfile's values only ever become JSON.
"""

import base64
import binascii
import calendar
import re

BINARY = "tag:yaml.org,2002:binary"
MERGE = "tag:yaml.org,2002:merge"

_PREFIX = "tag:yaml.org,2002:"
_STR = _PREFIX + "str"
_NULL = _PREFIX + "null"
_BOOL = _PREFIX + "bool"
_INT = _PREFIX + "int"
_FLOAT = _PREFIX + "float"
_TIMESTAMP = _PREFIX + "timestamp"
_RESOLVED = frozenset({_NULL, _BOOL, _INT, _FLOAT, _TIMESTAMP})

Scalar = bool | int | float | str | None

_WORDS: dict[str, tuple[str, Scalar]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), (_NULL, None)),
    **dict.fromkeys(("true", "True", "TRUE"), (_BOOL, True)),
    **dict.fromkeys(("false", "False", "FALSE"), (_BOOL, False)),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), (_FLOAT, float("nan"))),
    **dict.fromkeys((".inf", ".Inf", ".INF"), (_FLOAT, float("inf"))),
    **dict.fromkeys(("+.inf", "+.Inf", "+.INF"), (_FLOAT, float("inf"))),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), (_FLOAT, float("-inf"))),
}
_INTEGER = re.compile(
    r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|([1-9][0-9]*|0))", re.ASCII
)
_BASES = (16, 2, 8, 10)
_DECIMAL = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_STRAY_UNDERSCORE = re.compile(r"(?<![0-9])_|_(?![0-9])", re.ASCII)
_DATE = r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})"
_TIME = r"([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})(?:[.,]([0-9]+))?"
_WHEN = re.compile(rf"{_DATE}(?:[Tt]{_TIME}(Z|[-+][0-9]{{2}}:[0-9]{{2}})| {_TIME})?", re.ASCII)

_AMBIGUOUS = re.compile(
    r"y|Y|yes|Yes|YES|on|On|ON|n|N|no|No|NO|off|Off|OFF"
    r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"
)
"""YAML 1.1's other booleans and base-60 numbers, which yaml.v3 quotes as well."""


class ScalarError(ValueError):
    """The text does not have the type that its tag claims."""


def _integer(text: str) -> int | None:
    match = _INTEGER.fullmatch(text)
    if match is None:
        return None
    sign, *digits = match.groups()
    base, magnitude = next(
        (base, number) for base, number in zip(_BASES, digits, strict=True) if number
    )
    # Longer numbers than 64 bits are floats, and a float needs no exact integer of a megabyte.
    if len(magnitude.lstrip("0")) > 64:
        return None
    value = int(magnitude, base)
    value = -value if sign == "-" else value
    # An unsigned number takes no sign, so +18446744073709551615 is a float.
    return value if -(2**63) <= value < (2**63 if sign else 2**64) else None


def _timestamp(text: str) -> str | None:
    match = _WHEN.fullmatch(text)
    if match is None:
        return None
    year, month, day = (int(part) for part in match.group(1, 2, 3))
    clock = match.group(4, 5, 6, 7) if match.group(4) else match.group(9, 10, 11, 12)
    hour, minute, second = (int(part or 0) for part in clock[:3])
    if not (1 <= month <= 12 and hour < 24 and minute < 60 and second < 60):
        return None
    if not 1 <= day <= calendar.monthrange(year, month)[1]:
        return None
    zone = match.group(8) or "Z"
    if zone[1:] and (int(zone[1:3]) > 23 or int(zone[4:]) > 59):
        return None
    fraction = (clock[3] or "")[:9].rstrip("0")
    return (
        f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
        f"{'.' if fraction else ''}{fraction}{'Z' if zone[1:] == '00:00' else zone}"
    )


def _number(text: str) -> tuple[str, Scalar] | None:
    # yaml.v3 drops every underscore, but only from a number that does not begin with its point.
    if text[0] == "." and _STRAY_UNDERSCORE.search(text):
        return None
    digits = text.replace("_", "")
    if text[0] != "." and (integer := _integer(digits)) is not None:
        return _INT, integer
    if _DECIMAL.fullmatch(digits):
        value = float(digits)
        # Go's parser refuses what overflows, and the text stays text.
        return None if value in (float("inf"), float("-inf")) else (_FLOAT, value)
    return None


def _implicit(text: str, *, dates: bool) -> tuple[str, Scalar]:
    if word := _WORDS.get(text):
        return word
    if text == "<<":
        return MERGE, text
    if text[0] in "+-.0123456789":
        if dates and (moment := _timestamp(text)) is not None:
            return _TIMESTAMP, moment
        if number := _number(text):
            return number
    return _STR, text


def resolve_scalar(text: str, tag: str | None, *, plain: bool) -> Scalar:
    """Return the value of a scalar: its text, its tag if it has one, and whether it is unquoted.

    Raises `ScalarError` where an explicit tag and the text disagree. Tags outside YAML's own mean
    nothing to a Kitfile: their text is taken.
    """
    tag = None if tag == "!" else tag
    if tag == BINARY:
        try:
            return base64.b64decode("".join(text.split()), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise ScalarError("!!binary does not hold base64 of UTF-8 text") from error
    if tag is None and plain:
        return _implicit(text, dates=True)[1]
    if tag not in _RESOLVED:
        return text
    found, value = _implicit(text, dates=tag == _TIMESTAMP)
    if tag == _FLOAT and found == _INT and isinstance(value, int):
        return float(value)
    if found != tag:
        raise ScalarError(f"{text[:60]!r} is not of the type {tag.removeprefix(_PREFIX)}")
    return value


def is_plain_text(text: str) -> bool:
    """Whether unquoted `text` is read as the string it is, by YAML 1.1 readers too."""
    if not text or _AMBIGUOUS.fullmatch(text):
        return False
    return _implicit(text, dates=True)[0] == _STR
