"""JSON-RPC 2.0 as the client sees it: requests out, answers and notifications in. Pure.

One compact JSON object a line. The blocking and the asynchronous connection share this module and
differ only in how they wait.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from kitd.client.error import ProtocolError, RpcError

MAX_REQUEST_BYTES = 1 << 20
MAX_LINE_BYTES = 4 << 20
"""The longest line the daemon sends."""
MAX_NOTIFICATIONS = 10_000
"""Notifications that may wait for a reader who is busy with a call."""
SILENCE_S = 45.0
"""A subscription hears at least a heartbeat every 15 s; three missing ones mean a dead peer."""

Document = Mapping[str, Any]
"""A JSON object as it came: the peer may send keys that this version does not know."""


class Response(NamedTuple):
    """The answer to the call `id`: a result, or the error it failed with."""

    id: int | str | None
    result: Any
    error: RpcError | None


class Notification(NamedTuple):
    """Something the daemon says unasked, such as an event of a subscription."""

    method: str
    params: Document


def encode_request(identifier: int, method: str, params: Document) -> bytes:
    """Return the line that calls `method`. Raises `ProtocolError` if the daemon would refuse it."""
    request = {"jsonrpc": "2.0", "id": identifier, "method": method, "params": params}
    try:
        line = json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise ProtocolError(
            f"{method}: {error.object[error.start : error.end]!r} cannot be sent as UTF-8",
            hint="rename files whose names are not UTF-8",
        ) from error
    if len(line) >= MAX_REQUEST_BYTES:
        raise ProtocolError(f"{method}: the request has {len(line)} bytes, the limit is 1 MiB")
    return line + b"\n"


def decode_message(line: bytes) -> Response | Notification:
    """Read one line of the daemon. Raises `ProtocolError`."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the daemon sent a line that is not JSON: {line[:60]!r}") from error
    if isinstance(message, dict):
        method, params = message.get("method"), message.get("params", {})
        if isinstance(method, str) and "id" not in message and isinstance(params, dict):
            return Notification(method, params)
        identifier = message.get("id")
        if identifier is None or isinstance(identifier, int | str):
            if "result" in message:
                return Response(identifier, message["result"], None)
            if isinstance(message.get("error"), dict):
                return Response(identifier, None, _read_error(message["error"]))
    raise ProtocolError(f"the daemon sent a line that is not JSON-RPC: {line[:60]!r}")


def _read_error(error: Document) -> RpcError:
    data = error.get("data")
    details: Document = data if isinstance(data, dict) else {}
    hint = details.get("hint")
    return RpcError(
        str(details.get("code", "failed")),
        str(error.get("message", "the daemon gave no reason")),
        hint=hint if isinstance(hint, str) else None,
        retryable=details.get("retryable") is True,
    )
