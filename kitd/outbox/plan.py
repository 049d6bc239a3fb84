"""What an endpoint is told, when it is told again, and when that is given up. Pure."""

import enum
from collections.abc import Sequence
from fnmatch import fnmatchcase

from kitd.outbox.error import EndpointGoneError, EndpointRefusedError

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 300.0
"""How long an endpoint that fails is left alone: doubles between these two."""
MAX_RETRY_AFTER_S = 3600.0
"""An endpoint that asks for more time than this is asked again all the same."""
TOO_OLD_US = 24 * 3600 * 1_000_000
OWN_TYPES = "notification."
"""What begins like this tells of notifications, and is never one: each would make another."""

_GONE = 410


class Dropped(enum.StrEnum):
    """Why an endpoint is never told of some events."""

    TOO_OLD = "too_old"
    """They were `TOO_OLD_US` old, and the endpoint still failed."""
    FORGOTTEN = "forgotten"
    """The ledger has forgotten them; nobody knows any more which of them were wanted."""


def is_wanted(event_type: str, types: Sequence[str]) -> bool:
    """Whether an endpoint with these globs is told of events of a type."""
    return not event_type.startswith(OWN_TYPES) and any(
        fnmatchcase(event_type, glob) for glob in types
    )


def delay_s(failures: int, retry_after_s: float | None, draw: float) -> float:
    """Return the wait after so many failures in a row; `draw` is uniform in [0, 1).

    Half of it is jitter; `retry_after_s`, what the endpoint asked for, is the least.
    """
    # The exponent is bounded because the count is not.
    most_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures - 1, 30))
    asked_s = min(retry_after_s or 0.0, MAX_RETRY_AFTER_S)
    return max(most_s * (1.0 + draw) / 2.0, asked_s)


def is_too_old(at_us: int, now_us: int) -> bool:
    """Whether an event is not tried again once its endpoint has failed."""
    return now_us - at_us > TOO_OLD_US


def refusal(status: int, host: str, retry_after_s: float | None) -> EndpointRefusedError | None:
    """Return the error that an answer stands for; None for a 2xx, which is all that counts."""
    if 200 <= status < 300:
        return None
    if status == _GONE:
        return EndpointGoneError(
            f"{host} says that the endpoint is gone (HTTP {status})",
            hint="take it out of notifications in the configuration, or mend its URL",
            retry_after_s=retry_after_s,
        )
    hint = "look at the log of the endpoint"
    if 300 <= status < 400:
        hint = "redirects are not followed: configure the URL that it leads to"
    elif status in (401, 403):
        hint = "see whether the endpoint and secret_file have the same secret"
    elif status == 404:
        hint = "mend its URL in the configuration"
    return EndpointRefusedError(
        f"{host} answered HTTP {status}", hint=hint, retry_after_s=retry_after_s
    )
