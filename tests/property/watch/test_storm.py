"""However notifications are lost: a rescan follows each loss, and not too many come."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from kitd.watch.storm import CALM_S, FREE_RESCANS, MAX_GAP_S, Storm, gap_s

pauses_s = st.one_of(
    st.floats(0, 2), st.floats(0, 400), st.sampled_from([0.0, 1.0, MAX_GAP_S, CALM_S, 1e9])
)


def losses(pauses: list[float]) -> list[tuple[float, Storm]]:
    now_s, storm, seen = 1000.0, Storm(), []
    for pause_s in pauses:
        now_s += pause_s
        storm = storm.lost(now_s)
        seen.append((now_s, storm))
    return seen


@given(st.lists(pauses_s, min_size=1))
def test_every_loss_is_followed_by_a_rescan_in_bounded_time(pauses: list[float]):
    for now_s, storm in losses(pauses):
        assert now_s <= storm.due_s <= now_s + MAX_GAP_S


@given(st.lists(pauses_s, min_size=1))
def test_rescans_keep_their_distance(pauses: list[float]):
    storms = [storm for _, storm in losses(pauses)]
    for storm, after in itertools.pairwise(storms):
        if after.rescans == 1 and after != storm:
            assert after.due_s - storm.due_s >= CALM_S
        else:
            assert (
                after.due_s - storm.due_s
                >= (gap_s(storm.rescans) if after != storm else 0.0) - 1e-6
            )


@given(st.floats(0, 1e9))
def test_the_first_losses_are_free_and_calm_makes_them_free_again(start_s: float):
    storm = Storm()
    for at_s in (start_s, start_s + 2 * CALM_S):
        for _ in range(FREE_RESCANS):
            storm = storm.lost(at_s)
            assert storm.due_s == at_s
        storm = storm.lost(at_s)
        assert storm.due_s > at_s


def test_gaps_double_from_a_second_to_five_minutes():
    gaps = [gap_s(rescans) for rescans in range(14)]
    assert gaps == [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert gap_s(10**6) == 300
