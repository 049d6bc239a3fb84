"""Errors on the wire: JSON-RPC's own, and the numbers of kitd's (JSON-RPC 2.0, section 5.1).

A number follows from an error's `code` by one table; errors that no other room raises are here.
"""

from collections.abc import Mapping
from typing import ClassVar

import msgspec

from kitd.errors import Disposition, KitdError

MAX_MESSAGE = 2000
"""Characters of a message or a hint that are sent; what people read is far shorter."""

FAILED = -33000
"""Any error that has no number of its own; `data.code` names it."""

NUMBERS: Mapping[str, int] = {
    "parse_error": -32700,
    "invalid_request": -32600,
    "method_not_found": -32601,
    "invalid_params": -32602,
    "internal": -32603,
    "request_cancelled": -32800,
    "not_found": -33001,
    "conflict": -33002,
    "denied": -33003,
    "queue_full": -33004,
    "stopping": -33005,
    "cursor_truncated": -33006,
    "cursor_future": -33007,
    "too_large": -33008,
    "idempotency_mismatch": -33009,
    "unavailable": -33010,
}
"""kitd's own stay outside the band that JSON-RPC reserves (-32768 … -32000)."""


class ParseError(KitdError):
    """The line is not JSON, or not JSON that kitd takes."""

    code = "parse_error"


class InvalidRequestError(KitdError):
    """The JSON is not a request."""

    code = "invalid_request"


class MethodNotFoundError(KitdError):
    """There is no method of this name."""

    code = "method_not_found"


class InvalidParamsError(KitdError):
    """The parameters are not those of the method."""

    code = "invalid_params"


class RequestCancelledError(KitdError):
    """The caller took the request back; what it had started goes on."""

    code = "request_cancelled"


class InternalError(KitdError):
    """kitd itself is at fault; the log has the rest under the reference that the message names."""

    code = "internal"


class DeniedError(KitdError):
    """The caller's role does not allow this."""

    code = "denied"


class TooLargeError(KitdError):
    """A message is larger than the protocol allows."""

    code = "too_large"


class QueueFullError(KitdError):
    """A limit on what may go on at once is reached; there is room again once something ends."""

    code = "queue_full"
    disposition: ClassVar[Disposition] = Disposition.RETRY

    def __init__(self, message: str, *, hint: str | None = None, retry_after_s: float) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class StoppingError(KitdError):
    """The daemon is on its way out."""

    code = "stopping"
    disposition: ClassVar[Disposition] = Disposition.RETRY


class ErrorData(msgspec.Struct, frozen=True):
    """The part of an error that is for programs."""

    code: str
    retryable: bool
    retry_after_ms: int | None = None
    hint: str | None = None


class WireError(msgspec.Struct, frozen=True):
    """The `error` member of a response."""

    code: int
    message: str
    data: ErrorData


def wire_error(error: KitdError) -> WireError:
    """Return an error as it is sent."""
    after_s = error.retry_after_s
    return WireError(
        NUMBERS.get(error.code, FAILED),
        error.message[:MAX_MESSAGE],
        ErrorData(
            error.code,
            retryable=error.disposition is not Disposition.FAIL,
            retry_after_ms=None if after_s is None else round(after_s * 1000),
            hint=None if error.hint is None else error.hint[:MAX_MESSAGE],
        ),
    )
