"""The header with which a server says when to come back (RFC 9110, 10.2.3). Pure."""

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER_S = 24 * 3600.0
"""No server's window is longer; a larger number is a mistake or an attack."""


def parse_retry_after(value: str, *, now: datetime) -> float | None:
    """Return the seconds to wait from a Retry-After header: a number or a date.

    None where it cannot be read.
    """
    try:
        delay_s = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
            # A date without a zone is meant as GMT.
            delay_s = (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds()
        except (ValueError, OverflowError):
            return None
    return min(max(delay_s, 0.0), MAX_RETRY_AFTER_S) if math.isfinite(delay_s) else None
