"""Retry-After, in the forms that servers write it in."""

from datetime import UTC, datetime

import pytest

from kitd.retry_after import MAX_RETRY_AFTER_S, parse_retry_after

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "delay_s"),
    [
        ("0", 0),
        ("120", 120),
        ("-5", 0),
        ("1e99", MAX_RETRY_AFTER_S),
        ("nan", None),
        ("soon", None),
        ("60\n", 60),
        ("Fri, 02 Jan 2026 03:05:05 GMT", 60),
        ("Fri, 02 Jan 2026 03:05:05 -0000", 60),
        ("Fri, 02 Jan 2026 03:00:00 GMT", 0),
        ("Fri, 99 Jan 2026 03:00:00 GMT", None),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2026 00:00:00 +99999999999999999999", None),
        ("Mon, 01 Jan 2026 99999999999999999999:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, delay_s):
    assert parse_retry_after(value, now=NOW) == delay_s
