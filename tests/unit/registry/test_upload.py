import pytest

from kitd.registry.upload_session import COMMIT_LEAST_S, commit_idle_s, parse_received


@pytest.mark.parametrize(
    ("value", "sent", "received"),
    [
        ("0-299", 300, 300),
        ("0-99", 300, 100),
        ("bytes=0-99", 300, 100),
        ("0-0", 0, 0),
        ("0-0", 300, 0),
        ("0-0", 1, 1),
        ("0-300", 300, None),
        ("1-299", 300, None),
        ("", 300, None),
        ("bytes=0--1", 0, 0),
        ("0--2", 300, None),
        ("0-" + "9" * 50, 300, None),
    ],
)
def test_a_range_says_how_much_has_arrived(value, sent, received):
    assert parse_received(value, sent=sent) == received


def test_large_blobs_may_take_longer_to_be_put_together():
    assert commit_idle_s(0) == COMMIT_LEAST_S
    assert commit_idle_s(50_000_000_000) == 1000.0
