import pytest

from kitd.config.problem import InvalidValueError
from kitd.config.quantity import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("2s", 2.0),
        ("15m", 900.0),
        ("1h", 3600.0),
        ("1d", 86_400.0),
        ("1h30m", 5400.0),
        ("0s", 0.0),
        ("366d", 31_622_400.0),
    ],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "s", "-2s", "2 s", "2S", "1.5s", "2w", "٢s", "367d"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(InvalidValueError):
        parse_duration(text)


def test_a_duration_without_a_unit_says_what_is_missing() -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse_duration("2")
    assert caught.value.hint == "write a number and its unit: ms, s, m, h or d"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (0.5, "500ms"), (2.0, "2s"), (90.0, "90s"), (900.0, "15m"), (172_800.0, "2d")],
)
def test_durations_are_shown_in_the_largest_exact_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("123", 123),
        ("123B", 123),
        ("64MiB", 64 * 2**20),
        ("200GiB", 200 * 2**30),
        ("10GB", 10**10),
        ("5kB", 5000),
        ("5KB", 5000),
        ("1.5KiB", 1536),
        ("0.3B", 0),
        ("0GiB", 0),
    ],
)
def test_sizes_are_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1 GiB", "1gib", "1G", "1e3", "8192PiB", "١"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(InvalidValueError):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (123, "123B"), (1536, "1536B"), (2**20, "1MiB"), (10**10, "10GB"), (2**40, "1TiB")],
)
def test_sizes_are_shown_in_the_largest_exact_unit(size: int, text: str) -> None:
    assert format_size(size) == text
