import pytest

from kitd.errors import KitdError, NotFoundError, UnavailableError
from kitd.rpc.error import (
    FAILED,
    NUMBERS,
    DeniedError,
    InternalError,
    InvalidParamsError,
    InvalidRequestError,
    MethodNotFoundError,
    ParseError,
    QueueFullError,
    RequestCancelledError,
    StoppingError,
    TooLargeError,
    wire_error,
)


class NotInTheCacheError(NotFoundError):
    pass


class StateConflictError(KitdError):
    code = "conflict"


class MissingTokenError(KitdError):
    code = "registry_denied"


class RateLimitedError(KitdError):
    code = "rate_limited"

    def __init__(self, retry_after_s: float | None) -> None:
        super().__init__("too fast")
        self.retry_after_s = retry_after_s


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (ParseError("x"), -32700),
        (InvalidRequestError("x"), -32600),
        (MethodNotFoundError("x"), -32601),
        (InvalidParamsError("x"), -32602),
        (InternalError("x"), -32603),
        (RequestCancelledError("x"), -32800),
        (NotFoundError("x"), -33001),
        (NotInTheCacheError("x"), -33001),
        (StateConflictError("x"), -33002),
        (DeniedError("x"), -33003),
        (QueueFullError("x", retry_after_s=1), -33004),
        (StoppingError("x"), -33005),
        (TooLargeError("x"), -33008),
        (UnavailableError("x"), -33010),
        (MissingTokenError("x"), FAILED),
    ],
)
def test_the_number_follows_from_the_code(error, number):
    wire = wire_error(error)
    assert (wire.code, wire.data.code) == (number, error.code)


def test_kitds_own_numbers_are_outside_the_reserved_band_and_distinct():
    own = [number for number in NUMBERS.values() if number < -32999]
    assert all(number < -32768 for number in own)
    assert len(set(NUMBERS.values())) == len(NUMBERS)


@pytest.mark.parametrize(
    ("error", "retryable"),
    [(StoppingError("x"), True), (UnavailableError("x"), True), (DeniedError("x"), False)],
)
def test_retryable_is_what_the_disposition_says(error, retryable):
    assert wire_error(error).data.retryable is retryable


@pytest.mark.parametrize(
    ("error", "after_ms"),
    [
        (QueueFullError("x", retry_after_s=1.5), 1500),
        (RateLimitedError(0.25), 250),
        (RateLimitedError(None), None),
        (DeniedError("x"), None),
    ],
)
def test_an_error_that_knows_when_to_come_back_says_so(error, after_ms):
    assert wire_error(error).data.retry_after_ms == after_ms


def test_long_texts_are_cut():
    wire = wire_error(KitdError("x" * 10_000, hint="y" * 10_000))
    assert len(wire.message) == 2000
    assert wire.data.hint is not None
    assert len(wire.data.hint) == 2000
