"""When a cut download goes on, and over how many connections."""

import pytest

from kitd.registry.download_plan import (
    ENOUGH_BYTES_S,
    MAX_CONNECTIONS,
    PROGRESS_BYTES,
    REOPEN_AFTER_S,
    REST_S,
    WINDOW_S,
    ConnectionCount,
    Reopening,
)

MIB = 1 << 20


def test_the_first_cut_is_forgiven_and_the_second_at_the_same_place_is_not():
    reopening = Reopening()
    assert reopening.allows(0, 0.0)
    assert not reopening.allows(0, 0.0)


@pytest.mark.parametrize(
    ("progress", "passed_s", "allowed"),
    [
        (PROGRESS_BYTES, 0.0, True),
        (PROGRESS_BYTES - 1, REOPEN_AFTER_S - 1, False),
        (0, REOPEN_AFTER_S, True),
    ],
)
def test_later_ones_are_forgiven_for_progress_or_after_a_minute(progress, passed_s, allowed):
    reopening = Reopening()
    reopening.allows(5 * MIB, 100.0)
    assert reopening.allows(5 * MIB + progress, 100.0 + passed_s) == allowed


class Link:
    """A reader that does nothing but wait for a link, window after window."""

    def __init__(self, speed_of, waiting=1.0):
        self.connections = ConnectionCount(0.0)
        self.speed_of = speed_of
        self.waiting = waiting
        self.now_s = 0.0

    def counts(self, windows):
        counts = []
        for _ in range(windows):
            self.now_s += WINDOW_S
            self.connections.received(int(self.speed_of(self.connections.count) * WINDOW_S))
            self.connections.waited(WINDOW_S * self.waiting)
            self.connections.review(self.now_s)
            counts.append(self.connections.count)
        return counts


def test_connections_double_as_long_as_that_pays():
    link = Link(lambda count: count * 20 * MIB)
    assert link.counts(6) == [2, 4, 8, 8, 8, 8]
    assert MAX_CONNECTIONS == 8


def test_where_more_do_not_pay_they_go_and_are_tried_again_after_a_rest():
    link = Link(lambda count: min(count, 4) * 20 * MIB)
    windows = 4 + int(REST_S / WINDOW_S)
    counts = link.counts(windows + 2)
    assert counts[:4] == [2, 4, 8, 4]
    assert set(counts[4 : windows - 1]) == {4}
    assert 8 in counts[windows - 1 :]


@pytest.mark.parametrize("speed", [20 * MIB, ENOUGH_BYTES_S - MIB])
def test_a_link_that_one_connection_fills_has_one_connection(speed):
    assert Link(lambda _: speed).counts(4) == [2, 1, 1, 1]


def test_a_link_that_is_as_fast_as_the_process_has_one_connection():
    assert Link(lambda count: count * ENOUGH_BYTES_S).counts(3) == [1, 1, 1]


def test_a_reader_that_is_slower_than_its_link_has_one_connection():
    assert Link(lambda count: count * 20 * MIB, waiting=0.4).counts(3) == [1, 1, 1]


def test_a_server_that_refuses_gets_half_as_many_and_never_less_than_one():
    link = Link(lambda count: count * 20 * MIB)
    link.counts(3)
    for expected in (4, 2, 1, 1):
        link.connections.refused(link.now_s)
        assert link.connections.count == expected
    assert link.counts(5) == [1] * 5
