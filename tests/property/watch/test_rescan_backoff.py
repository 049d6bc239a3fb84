"""However notifications are lost: a rescan follows each loss, and not too many come."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from kitd.watch.rescan_backoff import CALM_S, FREE_RESCANS, MAX_GAP_S, RescanBackoff, gap_s

pauses_s = st.one_of(
    st.floats(0, 2), st.floats(0, 400), st.sampled_from([0.0, 1.0, MAX_GAP_S, CALM_S, 1e9])
)


def losses(pauses: list[float]) -> list[tuple[float, RescanBackoff]]:
    now_s, backoff, seen = 1000.0, RescanBackoff(), []
    for pause_s in pauses:
        now_s += pause_s
        backoff = backoff.lost(now_s)
        seen.append((now_s, backoff))
    return seen


@given(st.lists(pauses_s, min_size=1))
def test_every_loss_is_followed_by_a_rescan_in_bounded_time(pauses: list[float]):
    for now_s, backoff in losses(pauses):
        assert now_s <= backoff.due_s <= now_s + MAX_GAP_S


@given(st.lists(pauses_s, min_size=1))
def test_rescans_keep_their_distance(pauses: list[float]):
    storms = [backoff for _, backoff in losses(pauses)]
    for backoff, after in itertools.pairwise(storms):
        if after.rescans == 1 and after != backoff:
            assert after.due_s - backoff.due_s >= CALM_S
        else:
            assert (
                after.due_s - backoff.due_s
                >= (gap_s(backoff.rescans) if after != backoff else 0.0) - 1e-6
            )


@given(st.floats(0, 1e9))
def test_the_first_losses_are_free_and_calm_makes_them_free_again(start_s: float):
    backoff = RescanBackoff()
    for at_s in (start_s, start_s + 2 * CALM_S):
        for _ in range(FREE_RESCANS):
            backoff = backoff.lost(at_s)
            assert backoff.due_s == at_s
        backoff = backoff.lost(at_s)
        assert backoff.due_s > at_s


def test_gaps_double_from_a_second_to_five_minutes():
    gaps = [gap_s(rescans) for rescans in range(14)]
    assert gaps == [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert gap_s(10**6) == 300
