"""When manifests say that they were made, in all the ways that they say it."""

import json
import time

import pytest

from kitd.oci.created import MAX_CONFIG_BYTES, created_by_annotation, created_by_config

CREATED = "org.opencontainers.image.created"
AT_US = 1_704_164_645_000_000
"""2024-01-02T03:04:05Z"""


def by_both(text):
    """Return what is understood of a text, wherever it stands."""
    found = created_by_annotation({"other": "x", CREATED: text})
    assert created_by_config(json.dumps({"created": text}).encode()) == found
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-02T03:04:05Z", AT_US),
        ("2024-01-02t03:04:05z", AT_US),
        ("2024-01-02T03:04:05+00:00", AT_US),
        ("2024-01-02T05:34:05+02:30", AT_US),
        ("2024-01-01T22:04:05-05:00", AT_US),
        ("2024-01-02 03:04:05Z", AT_US),
        ("2024-01-02T03:04:05.5Z", AT_US + 500_000),
        ("2024-01-02T03:04:05.123456Z", AT_US + 123_456),
        ("2024-01-02T03:04:05.123456789Z", AT_US + 123_456),
        ("1970-01-01T00:00:00Z", 0),
    ],
)
def test_a_time_is_understood_with_its_zone(text, expected):
    assert by_both(text) == expected


@pytest.fixture
def in_tokyo(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_tokyo")
def test_a_time_without_a_zone_is_utc():
    assert by_both("2024-01-02T03:04:05") == AT_US
    assert by_both("2024-01-02") == AT_US - (3 * 3600 + 4 * 60 + 5) * 1_000_000


@pytest.mark.parametrize(
    "text",
    [
        *("1969-12-31T23:59:59Z", "1900-01-01T00:00:00Z", "0001-01-01T00:00:00"),
        *("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "1970-01-01T00:00:00+01:00"),
    ],
)
def test_nothing_is_older_than_the_epoch(text):
    """Builds that leave the time out write a year of their own."""
    assert by_both(text) == 0


@pytest.mark.parametrize("zone", ["", "Z", "+23:59", "-23:59"])
def test_the_last_time_there_is_is_in_range(zone):
    found = by_both(f"9999-12-31T23:59:59{zone}")
    assert found is not None
    assert 253_402_214_400_000_000 < found < 253_402_387_200_000_000


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "now", "nan", "1704164645", "2024", "2024-13-01", "2024-02-30T00:00:00Z"),
        *("2024-01-02T24:00:00Z", "2024-01-02T03:04:60Z", "2024-01-02T03:04:05+24:00"),
        *("10000-01-01T00:00:00Z", "0000-01-01T00:00:00Z", "-0001-01-01T00:00:00Z"),
        *("2024-01-02T03:04:05Z\n", "\0", "٢٠٢٤-01-02", "9" * 100_000),
    ],
    ids=lambda text: repr(text[:30]),
)
def test_other_texts_are_no_time(text):
    assert by_both(text) is None


@pytest.mark.parametrize("annotations", [{}, {"created": "2024-01-02T03:04:05Z"}])
def test_without_the_annotation_nobody_knows(annotations):
    assert created_by_annotation(annotations) is None


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"null", b"[]", b"{}", b'{"created":null}', b'{"created":1704164645}'),
        *(b'{"created":["2024-01-02T03:04:05Z"]}', b'{"Created":"2024-01-02T03:04:05Z"}'),
        *(b'{"config":{"created":"2024-01-02T03:04:05Z"}}', b"\xff", b"[" * 100_000),
        b'{"created":"2024-01-02T03:04:05Z","created":"2024-01-02T03:04:05Z"}',
        b'{"created":"2024-01-02T03:04:05Z"}' + b" " * MAX_CONFIG_BYTES,
    ],
    ids=lambda content: repr(content[:30]),
)
def test_a_config_that_says_nothing_is_no_error(content):
    assert created_by_config(content) is None
