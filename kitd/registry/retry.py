"""What an answer says of its host, and whether its request is sent again. Pure.

This is patience for seconds, inside one attempt of a job. Whether a request may be repeated is a
matter of what it does: reading, storing a manifest and opening an upload may; a request that
carries a part of a blob is resumed by whoever sends the blob, who first asks what arrived.
"""

from kitd.registry.governor import OUTAGE_S, PATIENCE_S, Closed, Closure, Outcome

TRIES = 5
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 8.0
SLACK_S = 0.1
"""What may have passed since."""

NO_ANSWER = Outcome(failed=True)
"""The connection could not be made, or broke."""
SILENCE = Outcome(failed=True, overloaded=True)
"""The host took too long."""

_TOO_MANY = 429
_UNAVAILABLE = 503
_TIMED_OUT = frozenset({408, 504, 522, 524})
"""Said by the host, by a gateway before it (RFC 9110, 15.6.5), by Cloudflare."""
_PASSING = frozenset({408, 499, 500, 502, 503, 504, *range(520, 530)})
"""499 is nginx's for a connection that was closed under it, those from 520 on are Cloudflare's."""
_UNSUPPORTED = frozenset({501, 505})
"""The 5xx of a host that is well."""


def outcome_of(status: int, retry_after_s: float | None) -> Outcome:
    """Return what an answer says of its host; `retry_after_s` is its Retry-After, if any."""
    if status == _TOO_MANY:
        return Outcome(refused=True, overloaded=True, retry_after_s=retry_after_s)
    if status == _UNAVAILABLE:
        return Outcome(failed=True, overloaded=True, retry_after_s=retry_after_s)
    failed = status >= 500 and status not in _UNSUPPORTED
    return Outcome(failed=failed, overloaded=status in _TIMED_OUT)


def is_passing(status: int | None, closed: Closed | None, *, repeatable: bool) -> bool:
    """Whether the same request may get a better answer within this attempt.

    `status` is None where there was no answer, `closed` says whether its host may be asked again;
    `repeatable` whether the request may be sent again although the host may have done what it asks.
    After a 429 every request may: nothing was done.
    """
    if closed is not None:
        most_s = OUTAGE_S if closed.closure is Closure.FAILING else PATIENCE_S
        if closed.for_s >= most_s - SLACK_S:
            return False
    if status == _TOO_MANY:
        return True
    return repeatable and (status is None or status in _PASSING)


def delay_s(tries: int, draw: float) -> float:
    """Return the wait after so many tries: full jitter, `draw` is uniform in [0, 1)."""
    return draw * min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** (tries - 1))
