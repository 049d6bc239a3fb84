"""The line that shows progress."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitd.client.record import Progress
from kitd.ctl.cells import cells_of
from kitd.ctl.progress import SAMPLE_S, Rate, progress_line

GIB = 1 << 30


@pytest.mark.parametrize(
    ("progress", "rate", "line"),
    [
        (Progress("scanning", 0, 0), None, "scanning"),
        (Progress("pulling", 2048, 0), None, "pulling  2.0 KiB"),
        (
            Progress("packing", 1024, 4096),
            512.0,
            "packing  [###-----------]   25%  1.0 of 4.0 KiB  512 B/s",
        ),
        (Progress("packing", 9999, 4096), None, "packing  [##############]  100%  4.0 of 4.0 KiB"),
        (
            Progress("packing", 512, 4096),
            0.2,
            "packing  [#-------------]   12%  512 B of 4.0 KiB  stalled",
        ),
        (Progress("packing", 4096, 4096), 0.0, "packing  [##############]  100%  4.0 of 4.0 KiB"),
        (Progress("a\x1bb", 0, 0), 0.0, "a�b"),
    ],
)
def test_the_line_says_what_is_known(progress, rate, line):
    assert progress_line(progress, rate, 79) == line


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (
            119,
            "pushing  [########----------------]   33%  8.0 of 24.0 GiB  112.4 MiB/s  2m 26s left",
        ),
        (79, "pushing  [####----------]   33%  8.0 of 24.0 GiB  112.4 MiB/s  2m 26s left"),
        (59, "pushing  [##------]   33%  8.0 of 24.0 GiB  2m 26s left"),
        (39, "pushing  [##------]   33%  2m 26s left"),
        (28, "pushing   33%  2m 26s left"),
        (14, "pushing   33%"),
        (5, "push…"),
    ],
)
def test_the_line_leaves_out_what_tells_least(width, line):
    rate = 112.4 * (1 << 20) + 1
    assert progress_line(Progress("pushing", 8 * GIB, 24 * GIB), rate, width, 145.1) == line


@given(
    st.text(max_size=30),
    st.integers(0, 1 << 62),
    st.integers(0, 1 << 62),
    st.none() | st.floats(0, 1e15),
    st.none() | st.floats(0, 1e7),
    st.integers(1, 200),
)
def test_the_line_fits(phase, done, total, rate, left_s, width):
    assert cells_of(progress_line(Progress(phase, done, total), rate, width, left_s)) <= width


def test_a_steady_rate_is_told_after_a_second_and_what_is_left_after_two():
    rate = Rate(100.0, 5000)
    rate.add(100.5, 5500)
    assert rate.at(100.5) is None
    for step in range(1, 40):
        rate.add(100.5 + step / 4, 5500 + step * 250)
    assert rate.at(110.25) == pytest.approx(1000)
    assert rate.left_s(110.25, 25250) == pytest.approx(10)
    assert rate.left_s(110.25, 0) is None


def test_a_rate_is_smooth_and_falls_while_nothing_moves():
    rate = Rate(0.0, 0)
    for step in range(1, 81):
        rate.add(step / 4, step * 250)
    rate.add(20.25, 20000 + 2500)
    assert 1000 < rate.at(20.25) < 1700
    assert 0 < rate.at(24) < rate.at(21)
    assert rate.at(25.25) == 0
    assert rate.left_s(20 + 3600, 1 << 40) is None


def test_what_begins_anew_has_a_rate_of_its_own():
    rate = Rate(0.0, 1 << 40)
    rate.add(5.0, 10)
    assert rate.at(5.5) is None
    rate.add(7.0, 2010)
    assert rate.at(7.0) == pytest.approx(1000)


def steadily(rate, at_s, count, a_second, *, for_s):
    """Move so many bytes a second, four times in each; return when it is and how many there are."""
    for _ in range(int(for_s * 4)):
        at_s, count = at_s + 0.25, count + a_second // 4
        rate.add(at_s, count)
    return at_s, count


def test_a_stall_has_no_time_left_and_what_follows_it_has_its_own_rate():
    rate = Rate(0.0, 0)
    at_s, count = steadily(rate, 0.0, 0, 1000, for_s=20)
    # A daemon may go on to tell the same.
    at_s, _ = steadily(rate, at_s, count, 0, for_s=4)
    assert rate.left_s(at_s, 1 << 20) > 0
    at_s, _ = steadily(rate, at_s, count, 0, for_s=1)
    assert (rate.at(at_s), rate.left_s(at_s, 1 << 20)) == (0, None)
    at_s, _ = steadily(rate, at_s + 60, count, 500_000, for_s=12)
    assert rate.at(at_s) == pytest.approx(500_000, rel=0.1)


@pytest.mark.parametrize("before_s", [0, 0.25, 2, 10])
@pytest.mark.parametrize("jumps", [1, 2])
def test_what_was_there_already_is_not_counted(before_s, jumps):
    rate = Rate(0.0, 0)
    at_s, count = steadily(rate, 0.0, 0, 1000, for_s=before_s)
    for _ in range(jumps):
        at_s, count = at_s + 0.25, count + (10 << 30)
        rate.add(at_s, count)
    at_s, count = steadily(rate, at_s, count, 1000, for_s=2)
    assert rate.at(at_s) == pytest.approx(1000)
    assert rate.left_s(at_s, count + 5000) == pytest.approx(5)


def test_bytes_that_come_in_portions_have_the_rate_that_they_have_on_average():
    rate = Rate(0.0, 0)
    for second in range(1, 31):
        rate.add(second - 0.75, (second - 1) * 8_000_000)
        rate.add(second, second * 8_000_000)
    assert rate.at(30.0) == pytest.approx(8_000_000, rel=0.2)


def test_a_rate_that_rises_is_told_after_some_seconds():
    rate = Rate(0.0, 0)
    at_s, count = steadily(rate, 0.0, 0, 1000, for_s=60)
    at_s, _ = steadily(rate, at_s, count, 1_000_000, for_s=8)
    assert rate.at(at_s) > 500_000


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 1 << 50)), max_size=100))
def test_a_rate_is_never_above_what_was_moved(steps):
    rate, at_s, count, most = Rate(0.0, 0), 0.0, 0, 0.0
    for passed_s, moved in steps:
        at_s, count = at_s + passed_s, count + moved
        rate.add(at_s, count)
        most = max(most, count / SAMPLE_S)
        assert 0 <= (rate.at(at_s) or 0) <= most * 1.001
