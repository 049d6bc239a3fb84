"""JSON-RPC 2.0 messages, one a line. Pure: bytes in, values out, and back.

Framing: compact UTF-8 JSON, ended by a newline. Compact JSON holds no raw newline, so a line is
exactly one message; blank lines are skipped. kitd is stricter than the specification where a
lenient reading would hide a mistake: duplicate keys, unknown members, NaN, integers beyond 64 bits,
lone surrogates and null ids are refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from kitd.errors import KitdError
from kitd.oci.json_reader import InvalidJsonError, Json, read_json
from kitd.rpc.error import InvalidRequestError, ParseError, WireError

MAX_LINE_BYTES = 1 << 20
"""The longest request, its newline not counted."""
MAX_RESPONSE_BYTES = 4 << 20
"""The longest response, its newline not counted."""
MAX_BATCH = 64
MAX_DEPTH = 32
MAX_NAME = 256
"""Characters of a method name, and of an id that is a string."""

RequestId = int | str

_MEMBERS = frozenset({"jsonrpc", "id", "method", "params"})


@dataclass(frozen=True, slots=True)
class TooLong:
    """A line went beyond the limit. Nothing after it can be read: its end is unknown."""

    max_bytes: int


class Decoder:
    """Cuts a byte stream into lines; holds at most one incomplete line."""

    def __init__(self, max_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._partial = bytearray()
        self._failed = False

    @property
    def is_within_line(self) -> bool:
        """Whether a line has begun whose end has not come yet."""
        return bool(self._partial.strip())

    def feed(self, data: bytes) -> tuple[bytes | TooLong, ...]:
        """Return the lines that `data` completes, without newlines.

        `TooLong` is the last item ever returned: what comes after it is ignored.
        """
        if self._failed:
            return ()
        items: list[bytes | TooLong] = []
        first, *others = data.split(b"\n")
        if not self._extend(first):
            return (TooLong(self._max_bytes),)
        if not others:
            return ()
        *whole, rest = others
        # Of a flood of newlines each costs something: what is blank is dropped first.
        for line in (bytes(self._partial), *whole):
            if line and line.strip():
                if len(line) > self._max_bytes:
                    self._failed = True
                    return (*items, TooLong(self._max_bytes))
                items.append(line)
        self._partial.clear()
        if not self._extend(rest):
            items.append(TooLong(self._max_bytes))
        return tuple(items)

    def _extend(self, part: bytes) -> bool:
        """Add to the incomplete line; False where that goes beyond the limit."""
        if len(self._partial) + len(part) > self._max_bytes:
            self._failed = True
            self._partial.clear()
            return False
        self._partial += part
        return True


@dataclass(frozen=True, slots=True)
class Request:
    """A call that is answered. `params` is structured; the method says which shape it takes."""

    id: RequestId
    method: str
    params: Json


@dataclass(frozen=True, slots=True)
class Notification:
    """A call that is not answered."""

    method: str
    params: Json


@dataclass(frozen=True, slots=True)
class Violation:
    """What stands where a call should be; answered with `error`, to `id` where one was readable."""

    id: RequestId | None
    error: KitdError


Call = Request | Notification | Violation


@dataclass(frozen=True, slots=True)
class Batch:
    """Calls that are answered together."""

    calls: tuple[Call, ...]


def parse(line: bytes) -> Call | Batch:
    """Return the message of one line. Raises nothing: what is wrong with it is a `Violation`."""
    try:
        document = read_json(
            line, max_bytes=MAX_LINE_BYTES, max_depth=MAX_DEPTH, parse_int=_bounded
        )
    except InvalidJsonError as error:
        return Violation(None, ParseError(error.message))
    if not isinstance(document, list):
        return _call(document)
    if not 0 < len(document) <= MAX_BATCH:
        reason = f"a batch holds 1 to {MAX_BATCH} calls, this one {len(document)}"
        return Violation(None, InvalidRequestError(reason))
    return Batch(tuple(map(_call, document)))


def encode_result(request_id: RequestId, result: object) -> bytes:
    """Return a response. Raises `TypeError` and `ValueError` for what JSON cannot say.

    What is raw in the result (`msgspec.Raw`) has to be compact JSON.
    """
    return _line({"jsonrpc": "2.0", "id": request_id, "result": result})


def encode_error(request_id: RequestId | None, error: WireError) -> bytes:
    """Return an error response."""
    return _line({"jsonrpc": "2.0", "id": request_id, "error": error})


def encode_notification(method: str, params: object) -> bytes:
    """Return a notification."""
    return _line({"jsonrpc": "2.0", "method": method, "params": params})


def encode_batch(responses: Sequence[bytes]) -> bytes:
    """Return the response to a batch from the responses to its calls."""
    return b"[" + b",".join(responses) + b"]"


def _line(message: Mapping[str, object]) -> bytes:
    line = msgspec.json.encode(message)
    # What msgspec encodes has none; what it was given raw could end the line, and begin another.
    if b"\n" in line:
        raise ValueError("a message would be more than one line")
    return line


def _bounded(digits: str) -> int:
    # Twenty characters hold every 64-bit integer; longer ones would cost time before they fail.
    number = int(digits[:21])
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError("an integer does not fit in 64 bits")
    return number


def _id_of(document: Mapping[str, Json]) -> RequestId | None:
    """Return the id, or None where it is missing or not one."""
    value = document.get("id")
    if isinstance(value, str):
        return value if len(value) <= MAX_NAME else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _problem(document: Mapping[str, Json]) -> str | None:
    """Return why an object is not a call, or None if it is one."""
    if document.get("jsonrpc") != "2.0":
        return 'jsonrpc must be "2.0"'
    method = document.get("method")
    if not isinstance(method, str) or not 0 < len(method) <= MAX_NAME:
        return f"method must be a string of 1 to {MAX_NAME} characters"
    if "id" in document and _id_of(document) is None:
        return f"id must be an integer or a string of at most {MAX_NAME} characters"
    if "params" in document and not isinstance(document["params"], dict | list):
        return "params must be an object"
    if unknown := document.keys() - _MEMBERS:
        return f"unknown member {min(unknown)[:80]!r}"
    return None


def _call(document: Json) -> Call:
    if not isinstance(document, dict):
        return Violation(None, InvalidRequestError("a call must be an object"))
    request_id = _id_of(document)
    if problem := _problem(document):
        return Violation(request_id, InvalidRequestError(problem))
    method, params = document["method"], document.get("params", {})
    if request_id is None:
        return Notification(method, params)
    return Request(request_id, method, params)
