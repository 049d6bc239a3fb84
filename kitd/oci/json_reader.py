"""Strict reading of JSON documents that come from outside.

Wraps the standard library's decoder with what hostile input needs: a size bound, a depth bound,
no duplicate keys, no NaN or Infinity, and one error type. Typed getters name the JSON path.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from kitd.errors import KitdError

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]

MAX_INTEGER = 2**63 - 1
"""What sizes are in every other implementation, and in the ledger."""
MAX_DEPTH = 64
"""Deeper documents than any manifest, config or webhook in use."""

MAX_DIGITS = 1000
"""Of an integer: what turns longer ones into numbers takes time that grows with their square."""

_STRING = re.compile(rb'"[^"]*"?')
_AS_LISTS = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


class InvalidJsonError(KitdError):
    """The bytes are not the JSON document that was asked for."""

    code = "invalid_json"


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise InvalidJsonError(f"the key {twice[:80]!r} is given twice")
    return mapping


def _constant(name: str) -> NoReturn:
    raise InvalidJsonError(f"{name} is not JSON")


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise InvalidJsonError(f"a number has {len(text)} digits, more than {MAX_DIGITS}")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InvalidJsonError(f"{text[:80]} is too large for a number")
    return number


def _deeper_than(levels: int, content: bytes) -> bool:
    """Whether brackets nest deeper than `levels`: by peeling, at the speed of `bytes.replace`."""
    brackets = _STRING.sub(b"", content.replace(b"\\\\", b"").replace(b'\\"', b""))
    brackets = brackets.translate(_AS_LISTS, _NOT_BRACKETS)
    for _ in range(levels):
        if not brackets:
            return False
        # Each round removes the innermost level, and only that.
        brackets = brackets.replace(b"[]", b"")
    # What was never closed counts too: the decoder would recurse into it.
    return b"[]" in brackets or brackets.count(b"[") > levels


def read_json(
    content: bytes,
    *,
    max_bytes: int,
    max_depth: int = MAX_DEPTH,
    parse_int: Callable[[str], int] = _integer,
) -> Json:
    """Decode one JSON document. Raises `InvalidJsonError` and nothing else.

    `parse_int` reads the digits of an integer and may refuse them with a `ValueError`.
    """
    if len(content) > max_bytes:
        raise InvalidJsonError(f"the document has {len(content)} bytes, more than {max_bytes}")
    # Counting brackets is cheap beside a recursion error in the middle of a decoder.
    if content.count(b"[") + content.count(b"{") > max_depth and _deeper_than(max_depth, content):
        raise InvalidJsonError(f"the document is nested deeper than {max_depth} levels")
    try:
        # JSON is UTF-8 (RFC 8259, section 8.1). Left to itself the decoder would also take UTF-16,
        # in which brackets hide from the count above.
        document: Json = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_constant,
            parse_float=_finite,
            parse_int=parse_int,
        )
        if b"\\u" in content:
            # An escape can stand for half a surrogate pair: a string that nothing can store.
            json.dumps(document, ensure_ascii=False).encode("utf-8")
    except ValueError as error:
        raise InvalidJsonError(f"not JSON: {error}") from error
    return document


def read_object(content: bytes, *, max_bytes: int) -> Mapping[str, Json]:
    """Decode one JSON object. Raises `InvalidJsonError`."""
    document = read_json(content, max_bytes=max_bytes)
    if not isinstance(document, Mapping):
        raise InvalidJsonError("expected a JSON object")
    return document


class Reader:
    """Typed access to a JSON object; every failure names the path."""

    __slots__ = ("_error", "_mapping", "_path")

    def __init__(
        self, mapping: Mapping[str, Json], error: Callable[[str], KitdError], path: str = ""
    ) -> None:
        self._mapping = mapping
        self._error = error
        self._path = path

    def raising(self, error: Callable[[str], KitdError]) -> "Reader":
        """Return the same object, whose failures are another error."""
        return Reader(self._mapping, error, self._path)

    def fail(self, key: str, expected: str) -> KitdError:
        """Return the error that says what stands at `key` is not `expected`."""
        found = "nothing" if key not in self._mapping else repr(self._mapping[key])[:60]
        return self._error(f"{self._path}{key}: expected {expected}, found {found}")

    def value(self, key: str) -> Json:
        """Return what stands at `key`, of any type; None where the key is missing."""
        return self._mapping.get(key)

    def text(self, key: str, default: str | None = None) -> str:
        """Return a string; `default` where the key is missing or null."""
        value = self._mapping.get(key)
        if isinstance(value, str):
            return value
        if value is None and default is not None:
            return default
        raise self.fail(key, "a string")

    def wrong(self, key: str, problem: str) -> KitdError:
        """Return the error that says what is wrong with what stands at `key`."""
        return self._error(f"{self._path}{key}: {problem}")

    def optional_text(self, key: str) -> str | None:
        """Return a string, or None where the key is missing or null."""
        value = self._mapping.get(key)
        if value is None or isinstance(value, str):
            return value
        raise self.fail(key, "a string")

    def integer(self, key: str, *, minimum: int = 0) -> int:
        """Return an integer of at least `minimum` and at most `MAX_INTEGER`."""
        value = self._mapping.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            if minimum <= value <= MAX_INTEGER:
                return value
            raise self._error(f"{self._path}{key}: expected an integer from {minimum} to 2^63-1")
        raise self.fail(key, f"an integer of at least {minimum}")

    def text_map(self, key: str) -> Mapping[str, str]:
        """Return a map of strings; empty where the key is missing or null."""
        value = self._mapping.get(key)
        if value is None:
            return {}
        if isinstance(value, Mapping):
            strings = {name: item for name, item in value.items() if isinstance(item, str)}
            if len(strings) == len(value):
                return strings
        raise self.fail(key, "a map of strings")

    def child(self, key: str) -> "Reader":
        """Return the object at `key`."""
        value = self._mapping.get(key)
        if isinstance(value, Mapping):
            return Reader(value, self._error, f"{self._path}{key}.")
        raise self.fail(key, "an object")

    def optional_child(self, key: str) -> "Reader | None":
        """Return the object at `key`, or None where it is missing or null."""
        return None if self._mapping.get(key) is None else self.child(key)

    def children(self, key: str, *, at_most: int) -> "list[Reader]":
        """Return the objects of the list at `key`; empty where it is missing or null."""
        value = self._mapping.get(key)
        if value is None:
            return []
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise self.fail(key, "a list")
        if len(value) > at_most:
            raise self._error(f"{self._path}{key}: {len(value)} items, more than {at_most}")
        readers = []
        for position, item in enumerate(value):
            if not isinstance(item, Mapping):
                raise self._error(f"{self._path}{key}[{position}]: expected an object")
            readers.append(Reader(item, self._error, f"{self._path}{key}[{position}]."))
        return readers
