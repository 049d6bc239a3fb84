"""JSON as Go's encoding/json writes it, which config and manifest digests depend on.

Compact, keys in the order given, `<`, `>`, `&`, U+2028 and U+2029 escaped, floats in the shortest
form that reads back, integers exact.
"""

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal

from kitd.oci.json_reader import Json

_ESCAPES = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


def encode_json(value: Json) -> bytes:
    """Return the value's bytes, without a newline. Floats must be finite, text well-formed."""
    return "".join(_pieces(value)).encode("utf-8")


def _pieces(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield _text(value)
    elif isinstance(value, float):
        yield format_float(value)
    elif isinstance(value, Mapping):
        opening = "{"
        for key, item in value.items():
            yield f"{opening}{_text(key)}:"
            yield from _pieces(item)
            opening = ","
        yield "}" if value else "{}"
    elif value is None or isinstance(value, int):
        yield json.dumps(value)
    else:
        opening = "["
        for item in value:
            yield opening
            yield from _pieces(item)
            opening = ","
        yield "]" if value else "[]"


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).translate(_ESCAPES)


def format_float(value: float) -> str:
    """Return a finite float as Go does: an exponent below 1e-6 and from 1e21, else none."""
    shortest = repr(value)
    if value == 0 or 1e-6 <= abs(value) < 1e21:
        # Python changes to exponents earlier; Decimal moves the point without rounding.
        return f"{Decimal(shortest):f}".removesuffix(".0")
    return re.sub(r"e([+-])0", r"e\1", shortest)
