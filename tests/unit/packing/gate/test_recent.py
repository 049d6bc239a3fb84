"""Where nobody can tell whether a file is written, it has to be quiet as long as its size asks."""

import math

import pytest

from kitd.packing.gate.recent import GATE
from kitd.packing.gate.subject import Moment, Subject
from kitd.packing.scan import Entry

NOW_NS = 1_800_000_000_000_000_000
SECOND_NS = 1_000_000_000


def is_held(*, age_s, size=0, written=None, patience_s=900.0):
    changed_ns = NOW_NS - int(age_s * SECOND_NS)
    entry = Entry(b"a", False, 0o100644, 1, 2, size, changed_ns, changed_ns, (0,))
    moment = Moment(NOW_NS, patience_s * SECOND_NS)
    if not GATE.concerns(entry, moment):
        return False
    return GATE.finding(Subject(entry, -1, moment, written)) is not None


@pytest.mark.parametrize(
    ("size", "quiet_s"), [(0, 2), (400_000_000, 2), (2_000_000_000, 10), (10**12, 120)]
)
def test_the_quiet_time_grows_with_the_size(size, quiet_s):
    assert is_held(size=size, age_s=quiet_s - 0.1)
    assert not is_held(size=size, age_s=quiet_s + 0.1)


def test_a_file_of_which_is_known_that_nobody_writes_it_is_not_held():
    assert not is_held(age_s=0, written=False)


def test_a_clock_that_ran_ahead_holds_no_longer():
    assert is_held(age_s=-1)
    assert not is_held(age_s=-3600)


def test_the_patience_bounds_it():
    assert not is_held(age_s=5, size=10**12, patience_s=3)
    assert is_held(age_s=5, size=10**12, patience_s=math.inf)
