"""Whatever a host answers and whenever: it is asked for no more than it takes, and everybody's turn
comes."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kitd.registry.governor import (
    FAILURES,
    FIRST_CLOSED_S,
    MAX_CLOSED_S,
    MAX_LIMIT,
    OUTAGE_S,
    PATIENCE_S,
    SPREAD_S,
    TROUBLED_S,
    Closure,
    Governor,
    Lane,
    Outcome,
    Ticket,
)
from kitd.registry.retry import NO_ANSWER, SILENCE, outcome_of

WAITS_S = st.none() | st.sampled_from([0.0, 0.5, 17.0, 59.0, 61.0, 86_400.0])
OUTCOMES = st.one_of(
    st.sampled_from([NO_ANSWER, SILENCE, outcome_of(200, None), outcome_of(500, None)]),
    st.builds(outcome_of, st.sampled_from([429, 503]), WAITS_S),
)
DRAWS = st.floats(0, 1, exclude_max=True)


class Host(RuleBasedStateMachine):
    """A governor with requests that come, end and give up; the class knows what was promised."""

    def __init__(self) -> None:
        super().__init__()
        self.draw = 0.5
        self.governor = Governor(lambda: self.draw)
        self.now_s = 1000.0
        self.waiting: list[Ticket] = []
        self.under_way: list[Ticket] = []
        self.forbidden_until_s = 0.0
        self.failures = 0
        self.tripped_s: float | None = None
        self.since_trip: list[Ticket] = []

    def look(self) -> None:
        look = self.governor.look(self.now_s)
        for ticket in look.admitted:
            self.check_admission(ticket)
            self.waiting.remove(ticket)
            self.under_way.append(ticket)
        for ticket in look.refused:
            closed = self.governor.closed(self.now_s)
            assert closed is not None
            waited_s = self.now_s - ticket.asked_s
            failing = closed.closure is Closure.FAILING and closed.for_s > 0
            patience_s = OUTAGE_S if failing else PATIENCE_S
            assert waited_s + closed.for_s >= patience_s or not ticket.patient
            self.waiting.remove(ticket)
        if look.again_s is not None:
            assert look.again_s > self.now_s
        elif self.waiting:
            # Somebody's end will bring the next look.
            assert self.under_way

    def check_admission(self, ticket: Ticket) -> None:
        lane = [other for other in self.under_way if other.lane is ticket.lane]
        assert len(lane) < self.governor.limit(ticket.lane)
        before = [other for other in self.waiting if other.lane is ticket.lane]
        assert before[0] is ticket, "somebody was overtaken"
        assert self.now_s >= self.forbidden_until_s
        if self.tripped_s is not None:
            assert self.now_s >= self.tripped_s + FIRST_CLOSED_S
            self.since_trip.append(ticket)
            kinds = [probe.lane is Lane.TOKEN for probe in self.since_trip]
            assert len(kinds) == len(set(kinds)), "more than one request and its token"

    @rule(lane=st.sampled_from(Lane), patient=st.booleans())
    def ask(self, lane: Lane, patient: bool) -> None:
        self.waiting.append(self.governor.ask(lane, self.now_s, patient=patient))
        self.look()
        if self.governor.closed(self.now_s) is not None:
            assert all(ticket.patient for ticket in self.waiting)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), outcome=OUTCOMES, draw=DRAWS, ends=st.booleans())
    def settle(self, data: st.DataObject, outcome: Outcome, draw: float, ends: bool) -> None:
        ticket = data.draw(st.sampled_from(self.under_way))
        self.draw = draw
        self.governor.settle(ticket, outcome, self.now_s)
        if outcome.retry_after_s is not None:
            asked_s = self.now_s + outcome.retry_after_s
            self.forbidden_until_s = max(self.forbidden_until_s, asked_s)
        elif outcome.refused:
            self.forbidden_until_s = max(self.forbidden_until_s, self.now_s + FIRST_CLOSED_S)
        self.failures = self.failures + 1 if outcome.failed else 0
        if not outcome.failed:
            self.tripped_s, self.since_trip = None, []
        elif self.failures == FAILURES or ticket in self.since_trip:
            self.tripped_s = self.now_s
            self.since_trip = [probe for probe in self.since_trip if probe is not ticket]
        if ends:
            self.end(ticket)
        self.look()

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def give_up_under_way(self, data: st.DataObject) -> None:
        self.end(data.draw(st.sampled_from(self.under_way)))
        self.look()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up_waiting(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(ticket)
        self.governor.leave(ticket)
        self.look()

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 30.0, 120.0]))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.look()

    @rule()
    def pass_time_to_the_next_look(self) -> None:
        again_s = self.governor.look(self.now_s).again_s
        if again_s is not None:
            self.now_s = again_s
            self.look()

    def end(self, ticket: Ticket) -> None:
        self.under_way.remove(ticket)
        if ticket in self.since_trip:
            self.since_trip.remove(ticket)
        self.governor.leave(ticket)

    @invariant()
    def limits_stay_in_bounds(self) -> None:
        assert all(1 <= self.governor.limit(lane) <= MAX_LIMIT for lane in Lane)

    @invariant()
    def a_closed_host_is_in_trouble(self) -> None:
        closed = self.governor.closed(self.now_s)
        assert closed is None or closed.closure in self.governor.troubles(self.now_s)

    @invariant()
    def it_is_idle_when_nobody_is_there(self) -> None:
        assert self.governor.idle == (not self.waiting and not self.under_way)

    def teardown(self) -> None:
        """In a world that is well again everybody is admitted or told, within a minute or so."""
        deadline_s = self.now_s + PATIENCE_S + SPREAD_S * len(self.waiting) + 1.0
        while self.waiting or self.under_way:
            for ticket in tuple(self.under_way):
                self.governor.settle(ticket, Outcome(), self.now_s)
                self.failures, self.tripped_s, self.since_trip = 0, None, []
                self.end(ticket)
            self.look()
            again_s = self.governor.look(self.now_s).again_s
            if not self.under_way and again_s is not None:
                self.now_s = again_s
                self.look()
        assert self.now_s <= deadline_s


TestHost = Host.TestCase
TestHost.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


def asked(governor: Governor, lane: Lane, count: int, now_s: float = 0.0) -> Iterator[Ticket]:
    for _ in range(count):
        governor.ask(lane, now_s)
    yield from governor.look(now_s).admitted


@given(st.lists(st.sampled_from([429, 503, 200, 500]), max_size=200))
def test_the_limit_grows_by_one_a_full_window_and_is_halved_once_a_window(statuses):
    """Requests come in full windows: every answer of one window is about the same moment."""
    governor = Governor(lambda: 0.0)
    now_s = 0.0
    for status in statuses:
        before = governor.limit(Lane.SMALL)
        window = list(asked(governor, Lane.SMALL, before, now_s))
        for ticket in window:
            governor.settle(ticket, outcome_of(status, 0.0 if status == 429 else None), now_s)
        after = governor.limit(Lane.SMALL)
        if status in (429, 503):
            assert after == max(before // 2, 1) or not window
        elif len(window) == before and status == 200:
            assert after == min(before + 1, MAX_LIMIT)
        for ticket in window:
            governor.leave(ticket)
        # Whoever was not admitted here is refused in a while, or comes with the next window.
        now_s += 2 * MAX_CLOSED_S
        for ticket in governor.look(now_s).admitted:
            governor.settle(ticket, Outcome(), now_s)
            governor.leave(ticket)


def test_a_limit_that_nobody_comes_near_to_does_not_grow():
    governor = Governor(lambda: 0.0)
    for _ in range(100):
        (ticket,) = asked(governor, Lane.READING, 1)
        governor.settle(ticket, Outcome(), 0.0)
        governor.leave(ticket)
    assert governor.limit(Lane.READING) == 8


def test_transfers_keep_neither_questions_nor_each_other_waiting_but_within_their_lane():
    governor = Governor(lambda: 0.0)
    assert len(list(asked(governor, Lane.WRITING, 50))) == 8
    assert len(list(asked(governor, Lane.READING, 50))) == 8
    assert len(list(asked(governor, Lane.SMALL, 3))) == 3


@given(st.integers(1, 59), st.lists(DRAWS, min_size=8, max_size=8))
def test_after_a_window_requests_come_one_by_one_until_one_is_answered_well(window_s, draws):
    given_draws = iter(draws)
    governor = Governor(lambda: next(given_draws))
    (first,) = asked(governor, Lane.SMALL, 1)
    governor.settle(first, outcome_of(429, window_s), 0.0)
    governor.leave(first)
    for _ in range(3):
        governor.ask(Lane.SMALL, 0.0)
    now_s, moments = 0.0, []
    while (look := governor.look(now_s)).again_s is not None:
        moments += [now_s] * len(look.admitted)
        now_s = look.again_s
    moments += [now_s] * len(look.admitted)
    gaps_s = [late - early for early, late in pairwise([window_s, *moments])]
    assert gaps_s == pytest.approx([draw * SPREAD_S for draw in draws[:3]], abs=1e-6)


def test_a_host_that_does_not_say_for_how_long_is_left_alone_for_twice_as_long_each_time():
    governor = Governor(lambda: 0.0)
    now_s, waits_s = 0.0, []
    for _ in range(8):
        (ticket,) = asked(governor, Lane.SMALL, 1, now_s)
        governor.settle(ticket, outcome_of(429, None), now_s)
        governor.leave(ticket)
        closed = governor.closed(now_s)
        assert closed.closure is Closure.FORBIDDEN
        waits_s.append(closed.for_s)
        now_s += closed.for_s
    assert waits_s == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_breaker_opens_for_twice_as_long_each_time_and_closes_with_a_good_answer():
    governor = Governor(lambda: 0.0)
    now_s, waits_s = 0.0, []
    for _ in range(FAILURES - 1):
        (ticket,) = asked(governor, Lane.SMALL, 1, now_s)
        governor.settle(ticket, NO_ANSWER, now_s)
        governor.leave(ticket)
    assert governor.closed(now_s) is None
    for _ in range(8):
        (ticket,) = asked(governor, Lane.SMALL, 1, now_s)
        governor.settle(ticket, NO_ANSWER, now_s)
        governor.leave(ticket)
        closed = governor.closed(now_s)
        assert closed.closure is Closure.FAILING
        waits_s.append(closed.for_s)
        now_s += closed.for_s
    assert waits_s == [1, 2, 4, 8, 16, 32, 60, 60]
    (probe,) = asked(governor, Lane.SMALL, 20, now_s)
    governor.settle(probe, Outcome(), now_s)
    assert len(governor.look(now_s).admitted) == 7
    assert governor.closed(now_s) is None


def test_a_good_answer_between_them_keeps_failures_from_opening_the_breaker():
    governor = Governor(lambda: 0.0)
    for number in range(100):
        (ticket,) = asked(governor, Lane.WRITING, 1)
        good = number % FAILURES == 0
        governor.settle(ticket, Outcome() if good else outcome_of(500, None), 0.0)
        governor.leave(ticket)
    assert governor.closed(0.0) is None


def test_a_request_behind_long_transfers_waits_as_long_as_these_take():
    governor = Governor(lambda: 0.0)
    transfers = list(asked(governor, Lane.WRITING, 8))
    governor.ask(Lane.WRITING, 0.0)
    look = governor.look(36_000.0)
    assert (look.admitted, look.refused, look.again_s) == ((), (), None)
    governor.leave(transfers[0])
    assert len(governor.look(36_000.0).admitted) == 1


def trip(governor: Governor, now_s: float = 0.0) -> None:
    for _ in range(FAILURES):
        (ticket,) = asked(governor, Lane.SMALL, 1, now_s)
        governor.settle(ticket, NO_ANSWER, now_s)
        governor.leave(ticket)


def test_a_host_is_in_trouble_from_its_closure_to_a_good_answer_however_seldom_it_is_asked():
    governor = Governor(lambda: 0.0)
    assert governor.troubles(0.0) == frozenset()
    trip(governor)
    now_s = 0.0
    for _ in range(20):
        now_s += 900.0
        assert governor.closed(now_s) is None
        assert governor.troubles(now_s) == {Closure.FAILING}
        (ticket,) = asked(governor, Lane.SMALL, 1, now_s)
        governor.settle(ticket, NO_ANSWER, now_s)
        governor.leave(ticket)
    (ticket,) = asked(governor, Lane.SMALL, 1, now_s + 900)
    governor.settle(ticket, outcome_of(429, 10), now_s + 900)
    assert governor.troubles(now_s + 1800) == {Closure.FORBIDDEN}
    governor.settle(ticket, Outcome(), now_s + 900)
    assert governor.troubles(now_s + 900) == {Closure.FORBIDDEN}, "it wants no others even so"
    governor.settle(ticket, Outcome(), now_s + 910)
    assert governor.troubles(now_s + 910) == frozenset()


def test_a_host_that_nobody_asks_any_more_is_spoken_of_for_so_long():
    governor = Governor(lambda: 0.0)
    trip(governor)
    assert governor.troubles(TROUBLED_S) == {Closure.FAILING}
    assert governor.troubles(TROUBLED_S + FIRST_CLOSED_S) == frozenset()


def test_the_request_that_closed_the_breaker_may_go_on_for_hours():
    governor = Governor(lambda: 0.0)
    trip(governor)
    (download,) = asked(governor, Lane.READING, 1, 1.0)
    governor.settle(download, Outcome(), 1.0)
    trip(governor, 2.0)
    assert len(list(asked(governor, Lane.SMALL, 2, 3.0))) == 1


def test_nobody_waits_for_longer_than_he_has_patience_for_the_answer_to_the_one_request():
    governor = Governor(lambda: 0.0)
    trip(governor)
    assert len(list(asked(governor, Lane.SMALL, 2, 1.0))) == 1
    again_s = governor.look(1.0).again_s
    assert again_s == 1.0 + PATIENCE_S
    assert len(governor.look(again_s).refused) == 1


def test_who_waits_for_the_one_request_hears_at_once_that_it_failed():
    governor = Governor(lambda: 0.0)
    trip(governor)
    (probe,) = asked(governor, Lane.WRITING, 2, 1.0)
    now_s = 2.0 + OUTAGE_S
    assert governor.look(now_s).refused == ()
    governor.settle(probe, NO_ANSWER, now_s)
    assert len(governor.look(now_s).refused) == 1


def test_a_half_open_breaker_is_tried_with_a_question_if_there_is_one():
    """A transfer may take an hour before it has an answer."""
    governor = Governor(lambda: 0.0)
    trip(governor)
    for lane in (Lane.WRITING, Lane.READING, Lane.SMALL):
        governor.ask(lane, 0.0)
    assert [ticket.lane for ticket in governor.look(1.0).admitted] == [Lane.SMALL]


def test_the_breaker_lets_the_token_of_its_one_request_pass():
    governor = Governor(lambda: 0.0)
    trip(governor)
    assert [t.lane for t in asked(governor, Lane.WRITING, 2, 1.0)] == [Lane.WRITING]
    assert [t.lane for t in asked(governor, Lane.TOKEN, 2, 1.0)] == [Lane.TOKEN]


def test_after_a_closure_requests_come_in_the_order_in_which_they_asked_whatever_their_lane():
    governor = Governor(lambda: 0.5)
    trip(governor)
    now_s = FIRST_CLOSED_S + SPREAD_S
    (probe,) = asked(governor, Lane.SMALL, 1, now_s)
    lanes = [Lane.WRITING, Lane.SMALL, Lane.READING]
    tickets = [probe, *(governor.ask(lane, now_s) for lane in lanes)]
    governor.settle(probe, outcome_of(408, None), now_s)
    came = [probe]
    while (now_s := governor.look(now_s).again_s) is not None:
        came += governor.look(now_s).admitted
    assert came == tickets
