"""Numbers, times and foreign texts as a person sees them."""

import unicodedata
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitd.ctl import format as formats
from kitd.ctl.format import InvalidDurationError, parse_duration_s

NOW = formats.timestamp_s("2026-01-02T03:04:05Z")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1126, "1.0 KiB"),
        (1127, "1.1 KiB"),
        (1048575, "1023.9 KiB"),
        (1048576, "1.0 MiB"),
        (int(2.59 * 2**30), "2.5 GiB"),
        (2**40, "1.0 TiB"),
        (5 * 2**50, "5.0 PiB"),
        (2**63, "8192.0 PiB"),
    ],
)
def test_sizes_are_rounded_down_as_kit_does(count, text):
    assert formats.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0s"),
        (0.44, "0.4s"),
        (12.9, "12s"),
        (60, "1m"),
        (200, "3m 20s"),
        (3600, "1h"),
        (7500, "2h 5m"),
        (90000, "1d 1h"),
    ],
)
def test_durations_have_two_units(seconds, text):
    assert formats.duration(seconds) == text


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (None, "-"),
        ("yesterday", "-"),
        ("2026-01-02T03:04:05Z", "just now"),
        ("2026-01-02T03:04:06Z", "just now"),
        ("2026-01-02T03:03:35.5Z", "29s ago"),
        ("2026-01-02T03:00:05Z", "4m ago"),
        ("2026-01-02T01:04:05Z", "2h ago"),
        ("2025-12-31T03:04:05Z", "2d ago"),
        ("2027-01-02T03:04:05Z", "soon"),
    ],
)
def test_ages_have_one_unit(time, text):
    assert formats.age(time, NOW + 0.2) == text


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (None, "-"),
        ("tomorrow", "-"),
        ("2026-01-02T03:04:05Z", "now"),
        ("2026-01-02T03:03:05Z", "now"),
        ("2026-01-02T03:04:35.5Z", "in 30s"),
        ("2026-01-02T03:08:05Z", "in 4m"),
        ("2026-01-02T05:04:05Z", "in 2h"),
        ("2026-01-05T03:04:05Z", "in 3d"),
    ],
)
def test_the_time_until_something_has_one_unit(time, text):
    assert formats.until(time, NOW) == text


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_are_read_as_the_standard_library_reads_them(time):
    text = time.isoformat().replace("+00:00", "Z")
    assert formats.timestamp_s(text) == pytest.approx(time.timestamp(), abs=1e-4)


@given(st.text(alphabet="0123456789-:.TZ+٣", max_size=30))
def test_what_is_no_time_is_no_error(text):
    assert formats.timestamp_s(text) is None or text.endswith("Z")


@pytest.mark.parametrize(
    "text", ["2026-01-02T03:04:05", "2026-01-02T03:04:05+01:00", "26-1-2T3:4:5Z"]
)
def test_only_utc_is_read(text):
    assert formats.timestamp_s(text) is None


def test_elapsed_runs_until_now_without_an_end():
    assert formats.elapsed("2026-01-02T03:03:05Z", None, NOW) == "1m"
    assert formats.elapsed("2026-01-02T03:03:05Z", "2026-01-02T03:03:07Z", NOW) == "2.0s"
    assert formats.elapsed(None, None, NOW) == "-"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("2s", 2),
        ("15m", 900),
        ("1h", 3600),
        ("1d", 86400),
        ("1h30m", 5400),
        ("1d2h3m4s5ms", 93784.005),
        ("999999999d", formats.MAX_DURATION_S),
    ],
)
def test_durations_are_read(text, seconds):
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        *("", "s", "5", "-5s", "1.5s", "5 s", "5S", "5w", "٣s", "9" * 20 + "s"),
        *("1h30", "30m1h", "1m1m", "1hm", "1h 30m"),
    ],
)
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(InvalidDurationError):
        parse_duration_s(text)


@pytest.mark.parametrize("time", ["1970-01-01T00:00:00Z", "2024-02-29T23:59:59Z"])
def test_times_are_written_as_they_are_read(time):
    assert formats.rfc3339(formats.timestamp_s(time)) == time


def test_control_characters_do_not_reach_the_terminal():
    assert formats.printable("a\x1b[31mb\nc\u202e\ud800") == "a�[31mb�c��"


def test_letters_emoji_and_spaces_of_all_scripts_are_left_as_they_are():
    text = "à 9\u00a0kg 9\u202fkg 重\u3000み 👩\u200d🔬 می\u200cخواهم ❤\ufe0f"
    assert formats.printable(text) == text


@given(st.characters())
def test_spaces_and_joiners_are_all_that_is_shown_of_what_python_does_not_print(character):
    is_shown = unicodedata.category(character) == "Zs" or character in "\u200c\u200d"
    is_shown = is_shown or character.isprintable()
    assert formats.printable(character) == (character if is_shown else "�")


def test_digests_and_plurals():
    assert formats.short_digest("sha256:" + "ab" * 32) == "abababababab"
    assert (formats.plural(1, "layer"), formats.plural(0, "layer")) == ("1 layer", "0 layers")
