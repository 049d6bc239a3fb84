"""What an error means for its job, and how long it waits."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitd.errors import Disposition, KitdError, UnavailableError
from kitd.queue.job import Failure
from kitd.queue.retry import (
    MAX_CRASHES,
    MAX_SNOOZE_S,
    SNOOZE_S,
    ComeBack,
    Die,
    GiveUp,
    PartlyDoneError,
    Pause,
    RetryPolicy,
    StepAside,
    blamed,
    failure_of,
    judge,
)

POLICY = RetryPolicy(max_attempts=3, base_s=2.0, cap_s=60.0)
DRAWS = st.floats(0, 1, exclude_max=True)


class MovedError(KitdError):
    code = "input_changed"
    disposition = Disposition.SNOOZE


class GoneError(KitdError):
    code = "input_changed"
    disposition = Disposition.STEP_ASIDE


class Parts(msgspec.Struct):
    done: int
    failed: int


class InvalidError(KitdError):
    code = "invalid_input"


@given(st.integers(1, 10_000), DRAWS, st.floats(0.01, 60), st.floats(0.01, 10_000))
def test_the_delay_is_a_share_of_a_capped_power_of_two(attempt, draw, base_s, cap_s):
    delay_s = RetryPolicy(9, base_s, cap_s).delay_s(attempt, draw)
    assert math.isfinite(delay_s)
    assert 0 <= delay_s <= cap_s
    if attempt < 30:
        assert delay_s <= base_s * 2 ** (attempt - 1)


@pytest.mark.parametrize(
    ("attempt", "ceiling_s"), [(1, 2.0), (2, 4.0), (3, 8.0), (5, 32.0), (6, 60.0), (9_999, 60.0)]
)
def test_the_jitter_is_full(attempt, ceiling_s):
    assert POLICY.delay_s(attempt, 0.0) == 0.0
    assert POLICY.delay_s(attempt, 0.5) == ceiling_s / 2
    assert ceiling_s * 0.99 < POLICY.delay_s(attempt, 0.999) < ceiling_s


def test_a_passing_error_burns_an_attempt_and_comes_back(job):
    error = UnavailableError("the registry is away", hint="wait")
    failure = Failure("unavailable", "the registry is away", "wait")
    assert judge(error, job(attempt=2), POLICY, 0.5) == ComeBack(failure, 2.0, burned=True)


def test_what_an_attempt_made_of_its_parts_is_kept_with_its_failure(job):
    error = PartlyDoneError("one is missing", hint="wait", result=Parts(done=2, failed=1))
    failure = failure_of(error)
    assert failure == Failure("internal", "one is missing", "wait", b'{"done":2,"failed":1}')
    assert judge(error, job(attempt=1), POLICY, 0.5) == GiveUp(failure)


@pytest.mark.parametrize("attempt", [3, 4, 100])
def test_the_last_attempt_that_fails_ends_the_job(job, attempt):
    verdict = judge(UnavailableError("away"), job(attempt=attempt), POLICY, 0.5)
    assert verdict == GiveUp(Failure("unavailable", "away", None))


def test_the_patience_is_the_jobs_and_not_the_policys(job):
    """A job keeps what it was promised when it was made, whatever release runs it."""
    assert isinstance(
        judge(UnavailableError("x"), job(max_attempts=9, attempt=8), POLICY, 0), ComeBack
    )
    assert isinstance(
        judge(UnavailableError("x"), job(max_attempts=1, attempt=1), POLICY, 0), GiveUp
    )


@given(draw=DRAWS, attempt=st.integers(1, 50))
def test_what_cannot_get_better_ends_at_once(job, draw, attempt):
    error = InvalidError("the Kitfile has no name")
    assert judge(error, job(attempt=attempt), POLICY, draw) == GiveUp(failure_of(error))


@given(draw=DRAWS, attempt=st.integers(1, 50))
def test_an_input_that_moved_never_burns_an_attempt(job, draw, attempt):
    error = MovedError("weights.bin changed while it was read")
    verdict = judge(error, job(attempt=attempt), POLICY, draw)
    assert verdict == ComeBack(failure_of(error), SNOOZE_S, burned=False)


@pytest.mark.parametrize(
    ("claim", "delay_s"), [(1, 2.0), (2, 4.0), (3, 8.0), (7, 120.0), (10_000, 120.0)]
)
def test_an_input_that_keeps_moving_is_left_alone_for_longer_and_longer(job, claim, delay_s):
    verdict = judge(MovedError("moved"), job(attempt=1, claim=claim), POLICY, 0.5)
    assert verdict == ComeBack(failure_of(MovedError("moved")), delay_s, burned=False)


@given(draw=DRAWS, attempt=st.integers(1, 50), claim=st.integers(1, 50))
def test_a_job_whose_reason_is_gone_steps_aside_whatever_is_left_of_its_patience(
    job, draw, attempt, claim
):
    error = GoneError("the project changed since it came to rest", hint="it is packed at rest")
    verdict = judge(error, job(attempt=attempt, claim=claim), POLICY, draw)
    assert verdict == StepAside(Failure("input_changed", error.message, error.hint))


class BusyError(UnavailableError):
    def __init__(self, retry_after_s: float) -> None:
        super().__init__("too many requests")
        self.retry_after_s = retry_after_s


@given(
    draw=DRAWS,
    attempt=st.integers(1, 50),
    unburned=st.integers(0, 50),
    retry_after_s=st.floats(0, 86_400),
)
def test_a_job_that_was_told_how_long_to_wait_burns_nothing_and_never_comes_earlier(
    job, draw, attempt, unburned, retry_after_s
):
    """Not even in its last attempt; the more often it came in vain, the more it is spread."""
    waiting = job(attempt=attempt, claim=attempt + unburned, max_attempts=attempt)
    verdict = judge(BusyError(retry_after_s), waiting, POLICY, draw)
    assert isinstance(verdict, ComeBack)
    assert not verdict.burned
    spread_s = min(MAX_SNOOZE_S, SNOOZE_S * 2.0 ** min(unburned, 10))
    assert retry_after_s <= verdict.delay_s <= retry_after_s + spread_s


class FullError(KitdError):
    code = "no_space"
    disposition = Disposition.PAUSE


class DeadError(KitdError):
    code = "worker_died"
    disposition = Disposition.CRASH


@pytest.mark.parametrize(("claim", "delay_s"), [(1, 2.0), (2, 4.0), (10_000, 120.0)])
def test_a_job_that_found_no_room_burns_nothing_and_is_tried_less_and_less_often(
    job, claim, delay_s
):
    verdict = judge(FullError("full"), job(attempt=1, claim=claim), POLICY, 0.5)
    assert verdict == Pause(Failure("no_space", "full", None), delay_s)


@pytest.mark.parametrize(("crashes", "attempt"), [(0, 1), (1, 2)])
def test_a_death_burns_an_attempt_and_is_counted(job, crashes, attempt):
    verdict = judge(DeadError("it died"), job(crashes=crashes, attempt=attempt), POLICY, 0.5)
    assert isinstance(verdict, ComeBack)
    assert (verdict.burned, verdict.crashed, verdict.delay_s) == (True, True, attempt * 1.0)


def test_the_third_death_in_a_row_is_the_last(job):
    dead = job(id=12, crashes=MAX_CRASHES - 1, attempt=1, max_attempts=99)
    verdict = judge(DeadError("a packing process ended"), dead, POLICY, 0.5)
    assert isinstance(verdict, GiveUp)
    assert verdict.failure.code == "poison"
    assert "3 times" in verdict.failure.message
    assert "a packing process ended" in verdict.failure.message
    assert "kitctl jobs retry 12" in verdict.failure.hint


def test_a_death_in_the_last_attempt_ends_the_job_as_any_error(job):
    verdict = judge(DeadError("it died"), job(attempt=3), POLICY, 0.5)
    assert verdict == GiveUp(Failure("worker_died", "it died", None))


@pytest.mark.parametrize(
    ("crashes", "expected"),
    [
        ({}, set()),
        ({1: 0}, {1}),
        ({1: 0, 2: 1, 3: 0}, {1, 2, 3}),
        ({1: 0, 2: 2, 3: 1}, {2}),
        ({1: 2, 2: 3}, {1, 2}),
    ],
)
def test_where_a_suspect_ran_nobody_else_is_blamed(job, crashes, expected):
    running = [job(id=number, crashes=count) for number, count in crashes.items()]
    assert {suspect.id for suspect in blamed(iter(running))} == expected


@pytest.mark.parametrize("disposition", Disposition)
def test_every_disposition_has_its_verdict(job, disposition):
    class SomeError(KitdError):
        code = "some"

    SomeError.disposition = disposition
    verdicts = {
        Disposition.FAIL: GiveUp,
        Disposition.RETRY: ComeBack,
        Disposition.SNOOZE: ComeBack,
        Disposition.STEP_ASIDE: StepAside,
        Disposition.PAUSE: Pause,
        Disposition.CRASH: ComeBack,
        Disposition.FATAL: Die,
    }
    assert type(judge(SomeError("x"), job(), POLICY, 0.5)) is verdicts[disposition]
