"""The line that shows progress."""

import pytest

from kitd.client.record import Progress
from kitd.ctl.progress import progress_line


@pytest.mark.parametrize(
    ("progress", "rate", "line"),
    [
        (Progress("scanning", 0, 0), None, "scanning"),
        (Progress("pulling", 2048, 0), None, "pulling  2.0 KiB"),
        (
            Progress("packing", 1024, 4096),
            512.0,
            "packing  [######------------------]  25%  1.0 KiB of 4.0 KiB  512 B/s",
        ),
        (
            Progress("packing", 9999, 4096),
            None,
            "packing  [########################] 100%  4.0 KiB of 4.0 KiB",
        ),
        (Progress("a\x1bb", 0, 0), 0.0, "a�b"),
    ],
)
def test_the_line_says_what_is_known(progress, rate, line):
    assert progress_line(progress, rate, 80) == line


def test_the_line_fits():
    assert progress_line(Progress("packing", 1, 2), 1e6, 20) == "packing  [##########…"[:19] + "…"
