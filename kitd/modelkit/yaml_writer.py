"""Kitfiles as YAML text, in the style of `kit`: what unpacking writes and a person reads.

Two spaces, lists indented under their key, quotes only where YAML needs them. Numbers are exact,
where `kit` prints them as floats. What is written reads back as the same Kitfile.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from kitd.modelkit.config_blob import to_document
from kitd.modelkit.json_writer import format_float
from kitd.modelkit.kitfile import Kitfile
from kitd.modelkit.yaml_scalar import is_plain_text
from kitd.oci.json_reader import Json

MAX_SIMPLE_KEY = 120
"""A longer key needs YAML's explicit form (YAML 1.2.2, section 8.2.2 allows 1024)."""

_INDICATORS = frozenset("#,[]{}&*!|>'\"%@`")
_SPECIAL = re.compile("[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd]")
_NOT_PLAIN = re.compile(r":(?: |$)| #|^[-?:](?: |$)|^---|^\.\.\.|^ | $")
_NOT_PLAIN_IN_FLOW = re.compile(r"[,?\[\]{}:]")
_NOT_LITERAL = re.compile(r"\A\s| (?:\n|\Z)")


def kitfile_to_yaml(kitfile: Kitfile) -> str:
    """Return the Kitfile without digests, ending in a newline."""
    return "".join(f"{line}\n" for line in _mapping(without_digests(to_document(kitfile))))


def value_to_yaml(value: Json) -> str:
    """Return a part of a Kitfile, ending in a newline.

    A text is written as it is: whoever asks for one wants it, and not YAML's quotes around it.
    """
    if isinstance(value, str):
        return value if value.endswith("\n") else f"{value}\n"
    if isinstance(value, Mapping) and value:
        lines = _mapping(value)
    elif isinstance(value, Sequence) and value:
        lines = _list(value)
    else:
        lines = iter([_inline(value, flow=False)])
    return "".join(f"{line}\n" for line in lines)


def without_digests(document: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return a config's JSON as its Kitfile would have it; `parameters` are left as they are."""
    stripped: dict[str, Json] = {}
    for key, value in document.items():
        if key in {"digest", "diffId"}:
            continue
        if key == "parameters" or isinstance(value, str):
            stripped[key] = value
        elif isinstance(value, Mapping):
            stripped[key] = without_digests(value)
        elif isinstance(value, Sequence):
            stripped[key] = tuple(
                without_digests(item) if isinstance(item, Mapping) else item for item in value
            )
    return stripped


def _mapping(mapping: Mapping[str, Json]) -> Iterator[str]:
    for key, value in mapping.items():
        written = _inline(key, flow=False)
        if len(written) > MAX_SIMPLE_KEY:
            yield f"? {written}"
            written = ""
        if key == "authors" and isinstance(value, tuple):
            yield f"{written}: [{', '.join(_inline(author, flow=True) for author in value)}]"
        elif isinstance(value, str) and (block := _literal(value)):
            yield f"{written}: {block[0]}"
            yield from _indented(block[1:])
        elif isinstance(value, Mapping) and value:
            yield f"{written}:"
            yield from _indented(_mapping(value))
        elif isinstance(value, Sequence) and not isinstance(value, str) and value:
            yield f"{written}:"
            yield from _indented(_list(value))
        else:
            yield f"{written}: {_inline(value, flow=False)}"


def _list(items: Sequence[Json]) -> Iterator[str]:
    for item in items:
        if isinstance(item, Mapping) and item:
            lines = list(_mapping(item))
        elif isinstance(item, str):
            lines = _literal(item) or [_inline(item, flow=False)]
        elif isinstance(item, Sequence) and item:
            lines = list(_list(item))
        else:
            lines = [_inline(item, flow=False)]
        yield f"- {lines[0]}"
        yield from _indented(lines[1:])


def _indented(lines: Iterator[str] | Sequence[str]) -> Iterator[str]:
    return (f"  {line}" if line else "" for line in lines)


def _literal(text: str) -> list[str] | None:
    """Return a text of several lines as a block scalar, header first, if one can hold it."""
    if "\n" not in text or _NOT_LITERAL.search(text) or _SPECIAL.search(text.replace("\n", "")):
        return None
    body = text.rstrip("\n")
    ending = len(text) - len(body)
    header = ("|-", "|")[ending] if ending < 2 else "|+"
    return [header, *body.split("\n"), *[""] * (ending - 1)]


def _inline(value: Json, *, flow: bool) -> str:
    if isinstance(value, str):
        return _string(value, flow=flow)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, Mapping):
        return "{}"
    return "[]" if isinstance(value, Sequence) else json.dumps(value)


def _float(value: float) -> str:
    # A float that JSON writes without a point would be read back as an integer.
    text = format_float(value)
    return text if re.search(r"[.e]", text) else f"{text}.0"


def _string(text: str, *, flow: bool) -> str:
    if _SPECIAL.search(text):
        return _double_quoted(text)
    if not is_plain_text(text):
        return _double_quoted(text)
    if (
        text[0] in _INDICATORS
        or _NOT_PLAIN.search(text)
        or (flow and _NOT_PLAIN_IN_FLOW.search(text))
    ):
        return "'" + text.replace("'", "''") + "'"
    return text


def _double_quoted(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    return _SPECIAL.sub(_escaped, quoted)


def _escaped(match: re.Match[str]) -> str:
    point = ord(match[0])
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
