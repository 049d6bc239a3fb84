"""The rules of settling, one by one. Time is a number; nothing waits."""

import pytest

from kitd.errors import KitdError
from kitd.hold import HOLD_FILE, Hold
from kitd.watch.settle import (
    CONFIRM_S,
    NOISY_S,
    NOISY_SCAN_S,
    Broken,
    Scan,
    SettleConfig,
    Settled,
    Settler,
    Snapshot,
    State,
    WatchState,
)

PATIENT = SettleConfig(quiet_s=2.0, max_wait_s=900.0)


def look(settler: Settler, fingerprint: str, at_s: float) -> Settler:
    """Take the scan that is due at `at_s`, as an instant."""
    assert settler.due(at_s) == Scan()
    return settler.scanned(Snapshot(fingerprint), at_s, at_s)


def settle(settler: Settler, fingerprint: str, hinted_s: float) -> Settler:
    """Hint, be quiet, scan twice, announce."""
    settler = look(settler.hinted(hinted_s), fingerprint, hinted_s + 2)
    settler = look(settler, fingerprint, hinted_s + 2 + CONFIRM_S)
    assert settler.due(hinted_s + 2 + CONFIRM_S) == Settled(fingerprint)
    return settler.announced(fingerprint, hinted_s + 2 + CONFIRM_S)


def test_does_nothing_unasked():
    settler = Settler(PATIENT)
    assert settler.next_deadline_s() is None
    assert settler.due(1e9) is None
    assert settler.state(0) == WatchState(State.DIRTY, "it was not looked at yet")


def test_a_hint_leads_to_two_scans_after_the_quiet_time():
    settler = Settler(PATIENT).hinted(10)
    assert settler.due(11.9) is None
    assert settler.state(11.5).state is State.DIRTY
    assert settler.state(11.5).describe(11.5) == "waiting for 2 s without a change: 0.5 s to go"
    settler = look(settler, "a", 12)
    assert settler.state(12).state is State.SETTLING
    assert settler.due(12.1) is None
    assert look(settler, "a", 12 + CONFIRM_S).due(13) == Settled("a")


def test_every_hint_begins_the_quiet_time_again():
    settler = Settler(PATIENT)
    for tenth in range(10):
        settler = settler.hinted(tenth / 10)
    assert settler.next_deadline_s() == pytest.approx(2.9)


def test_a_hint_between_the_two_scans_asks_for_two_more():
    settler = look(Settler(PATIENT).hinted(0), "a", 2).hinted(2.1)
    settler = look(settler, "a", 4.1)
    assert settler.due(4.1) is None
    assert look(settler, "a", 4.1 + CONFIRM_S).due(5) == Settled("a")


def test_scans_that_differ_begin_the_quiet_time_again():
    settler = look(Settler(PATIENT).hinted(0), "a", 2)
    settler = look(settler, "b", 3)
    assert settler.next_deadline_s() == 5
    assert settler.state(4).state is State.DIRTY
    assert look(settler, "b", 5).due(5) == Settled("b")


def test_a_hint_during_the_second_scan_is_not_lost():
    settler = look(Settler(PATIENT).hinted(0), "a", 2).hinted(3.5)
    settler = settler.scanned(Snapshot("a"), 3, 4)
    assert settler.due(5.4) is None
    assert settler.due(5.5) == Scan()


def test_an_unchanged_tree_is_not_announced():
    settler = Settler(PATIENT, "a").hinted(0)
    settler = look(look(settler, "a", 2), "a", 3)
    assert settler.due(1e9) is None
    assert settler.state(3).reason == "nothing changed since the last kit"


def test_a_state_is_announced_once():
    settler = settle(Settler(PATIENT), "a", 0)
    assert settler.state(9).reason == "at rest; a pack of this state is on its way"
    settler = look(look(settler.hinted(10), "a", 12), "a", 13)
    assert settler.due(1e9) is None


def test_a_rescan_is_immediate_and_needs_no_hint():
    settler = Settler(PATIENT, "a").rescan(100)
    settler = look(settler, "b", 100)
    assert settler.state(100).state is State.DIRTY
    assert settler.next_deadline_s() == 102
    assert look(settler, "b", 102).due(102) == Settled("b")


def test_a_rescan_that_finds_nothing_is_the_only_one():
    settler = look(Settler(PATIENT, "a").rescan(100), "a", 100)
    assert settler.next_deadline_s() is None


def test_a_rescan_asked_for_during_a_scan_leads_to_another():
    settler = Settler(PATIENT, "a").rescan(100).rescan(101)
    settler = settler.scanned(Snapshot("a"), 100, 102)
    assert settler.due(102) == Scan()


def test_rescans_cannot_shorten_the_quiet_time():
    settler = Settler(PATIENT).hinted(0)
    for now in (0.5, 1.0, 1.5):
        settler = look(settler.rescan(now), "a", now)
        assert settler.next_deadline_s() == 2


def test_changing_back_before_the_pack_is_announced_again():
    settler = settle(Settler(PATIENT, "a"), "b", 0)
    settler = settle(settler, "a", 10)
    # The pack of "b" ends late; what was announced since is still to come.
    settler = settler.packed("b").hinted(20)
    assert look(look(settler, "a", 22), "a", 23).due(23) is None


def test_min_interval_delays_the_next_version_and_loses_nothing():
    settler = settle(Settler(SettleConfig(min_interval_s=60)), "a", 0)
    turn = 2 + CONFIRM_S + 60
    settler = look(settler.hinted(10), "b", 12)
    assert settler.state(20).state is State.SETTLING
    assert settler.state(20).reason == "waiting for its turn, one version every 60 s"
    assert settler.next_deadline_s() == turn
    settler = look(settler, "c", turn)
    assert look(settler, "c", turn + 2).due(turn + 2) == Settled("c")


def test_a_tree_that_never_rests_is_reported_and_never_announced():
    settler = Settler(SettleConfig(max_wait_s=10)).hinted(0)
    now = 0.0
    for step in range(2000):
        now = step / 2
        settler = settler.hinted(now)
        if settler.due(now) == Scan():
            settler = settler.scanned(Snapshot(f"version {step}"), now, now)
        assert not isinstance(settler.due(now), Settled)
    assert settler.state(now).state is State.BLOCKED
    assert settler.state(now).reason.startswith("still changing after 10 s")


def test_a_tree_that_changes_without_hints_is_reported_too():
    settler = Settler(SettleConfig(max_wait_s=10)).rescan(0)
    for now in (0, 2, 4, 6, 8):
        settler = look(settler, f"version {now}", now)
        assert settler.state(now).state is State.DIRTY
    settler = look(settler, "version 10", 10)
    assert settler.state(10).state is State.BLOCKED
    assert look(settler, "version 10", 12).due(12) == Settled("version 10")


@pytest.mark.parametrize(
    ("quiet_s", "max_wait_s", "first_s"), [(2, 900, NOISY_S), (60, 900, 120), (2, 10, 10)]
)
def test_hints_that_never_cease_cannot_hold_back_what_rests(quiet_s, max_wait_s, first_s):
    settler = Settler(SettleConfig(quiet_s=quiet_s, max_wait_s=max_wait_s)).hinted(0)
    scans = []
    for now in range(1, int(first_s + NOISY_SCAN_S) + 1):
        assert not isinstance(settler.due(now), Settled)
        settler = settler.hinted(now)
        if settler.due(now) == Scan():
            settler = settler.scanned(Snapshot("a"), now, now)
            scans.append(now)
    assert scans == [first_s, first_s + NOISY_SCAN_S]
    assert settler.due(scans[-1]) == Settled("a")


def test_what_was_hinted_during_the_deciding_scan_is_looked_at_again():
    settler = Settler(SettleConfig(max_wait_s=10))
    for now in range(10):
        settler = settler.hinted(now)
    settler = settler.hinted(10).scanned(Snapshot("a"), 10, 10)
    for now in range(11, 74):
        settler = settler.hinted(now)
    settler = settler.scanned(Snapshot("a"), 72, 74)
    assert settler.due(74) == Settled("a")
    assert settler.announced("a", 74).due(75) == Scan()


def test_a_broken_project_is_blocked_with_its_reason_until_it_is_mended():
    error = KitdError("Kitfile line 3: a tab", hint="use spaces")
    settler = Settler(PATIENT, "a").rescan(0).scanned(Broken(error), 0, 0)
    assert settler.state(0).state is State.BLOCKED
    assert settler.state(0).reason == "Kitfile line 3: a tab (use spaces)"
    assert settler.next_deadline_s() is None
    settler = settler.hinted(10)
    assert settler.state(10).state is State.BLOCKED
    settler = look(settler, "b", 12)
    assert settler.state(12).state is State.SETTLING
    assert look(settler, "b", 13).due(13) == Settled("b")


def test_a_project_mended_during_the_scan_is_looked_at_again():
    settler = Settler(PATIENT).rescan(0).hinted(1)
    settler = settler.scanned(Broken(KitdError("no Kitfile")), 0, 2)
    assert settler.due(3) == Scan()


def test_a_held_project_is_left_alone_and_looked_at_on_release():
    settler = Settler(PATIENT, "a").hold().hinted(0).rescan(1)
    assert settler.due(100) is None
    assert settler.next_deadline_s() is None
    assert settler.state(100).state is State.HELD
    settler = look(settler.release(100), "b", 100)
    settler = look(settler, "b", 102)
    assert settler.due(102) == Settled("b")


def test_a_hold_keeps_back_what_had_settled():
    settler = look(look(Settler(PATIENT).hinted(0), "a", 2), "a", 3).hold()
    assert settler.due(4) is None
    assert settler.release(5).due(5) is None


def test_release_of_what_is_not_held_changes_nothing():
    settler = Settler(PATIENT)
    assert settler.release(1) is settler


def test_no_quiet_time_still_confirms():
    settler = look(Settler(SettleConfig(quiet_s=0)).hinted(5), "a", 5)
    assert settler.due(5) is None
    assert look(settler, "a", 5 + CONFIRM_S).due(6) == Settled("a")


WRITER = Hold("writer", "model.bin", "a program has it open for writing")


def probe(settler: Settler, at_s: float, *holds: Hold) -> Settler:
    """Take the scan that is due at `at_s` of a tree in the state "a"."""
    assert settler.due(at_s) == Scan()
    return settler.scanned(Snapshot("a", holds), at_s, at_s)


def test_a_held_tree_is_not_announced_and_looked_at_ever_less_often():
    settler = probe(Settler(PATIENT).hinted(0), 2, WRITER)
    now_s = 2 + CONFIRM_S
    pauses = []
    for _ in range(8):
        settler = probe(settler, now_s, WRITER)
        deadline_s = settler.next_deadline_s()
        assert deadline_s is not None
        assert settler.due(deadline_s - 0.01) is None
        pauses.append(deadline_s - now_s)
        now_s = deadline_s
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert probe(settler, now_s).due(now_s) == Settled("a")


def test_the_state_names_the_first_hold_and_carries_all():
    temporary = Hold("temporary", "x.part", "its name says that it is not finished")
    settler = probe(Settler(PATIENT).hinted(0), 2, WRITER, temporary)
    state = settler.state(2)
    assert state.state is State.SETTLING
    assert state.reason == "model.bin: a program has it open for writing (and 1 more)"
    assert state.holds == (WRITER, temporary)
    assert settler.state(901).state is State.BLOCKED


def test_a_hold_file_shows_as_held():
    hold = Hold(HOLD_FILE, ".kitd-hold", "nothing is packed while it is there")
    assert probe(Settler(PATIENT).hinted(0), 2, hold).state(2).state is State.HELD


def test_a_hint_ends_the_pauses_between_the_looks():
    settler = probe(Settler(PATIENT).hinted(0), 2, WRITER)
    for at_s in (2.25, 3.25, 5.25, 9.25):
        settler = probe(settler, at_s, WRITER)
    settler = settler.hinted(10)
    assert settler.next_deadline_s() == 12


def test_what_holds_a_packed_state_is_of_no_concern():
    settler = Settler(PATIENT, "a").hinted(0)
    settler = probe(probe(settler, 2, WRITER), 3, WRITER)
    assert settler.next_deadline_s() is None
    assert settler.state(3).reason == "nothing changed since the last kit"


def test_a_tree_that_moves_under_its_packs_has_to_be_quiet_for_longer():
    settler = settle(Settler(PATIENT), "a", 0)
    quiet = []
    now_s = 10.0
    for _ in range(8):
        settler = settler.moved("a", now_s)
        deadline_s = settler.next_deadline_s()
        assert deadline_s is not None
        quiet.append(deadline_s - now_s)
        now_s = deadline_s
        settler = look(look(settler, "a", now_s), "a", now_s + CONFIRM_S)
        now_s += CONFIRM_S
        assert settler.due(now_s) == Settled("a")
        settler = settler.announced("a", now_s)
    assert quiet == pytest.approx([4, 8, 16, 32, 64, 120, 120, 120])
    assert settler.packed("a").hinted(5000).next_deadline_s() == 5002


def test_news_of_an_older_state_that_moved_change_nothing():
    settler = settle(settle(Settler(PATIENT), "a", 0), "b", 10)
    assert settler.moved("a", 20) == settler


def test_what_moved_does_not_use_up_its_turn():
    settler = settle(Settler(SettleConfig(min_interval_s=600)), "a", 0).moved("a", 10)
    settler = look(look(settler, "b", 14), "b", 15)
    assert settler.due(15) == Settled("b")


def test_the_turn_of_an_earlier_life_counts():
    settler = Settler(SettleConfig(min_interval_s=600), "a").last_turn(-100).hinted(0)
    settler = look(settler, "b", 2)
    assert settler.next_deadline_s() == 500


def test_a_scan_that_may_have_missed_a_change_settles_nothing():
    settler = probe(Settler(PATIENT).hinted(0), 2)
    racy = settler.scanned(Snapshot("a", racy=True), 2 + CONFIRM_S, 2 + CONFIRM_S)
    assert racy.due(2 + CONFIRM_S) is None
    deadline_s = racy.next_deadline_s()
    assert deadline_s is not None
    assert deadline_s > 2 + CONFIRM_S
    assert probe(racy, deadline_s).due(deadline_s) == Settled("a")


def test_a_state_whose_pack_failed_is_announced_again_ever_less_often():
    settler, now_s = settle(Settler(PATIENT), "a", 0), 10.0
    pauses = []
    for _ in range(8):
        settler = settler.failed("a", now_s)
        assert settler.state(now_s).reason == "at rest in a state whose pack came to nothing"
        deadline_s = settler.next_deadline_s()
        assert deadline_s is not None
        pauses.append(deadline_s - now_s)
        settler = settle(settler, "a", deadline_s)
        now_s = deadline_s + 10
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    settler = settle(settler.packed("a").hinted(now_s), "b", now_s)
    assert settler.failed("b", now_s).next_deadline_s() == now_s + 60


def test_a_state_whose_pack_was_cancelled_waits_to_be_asked_for():
    settler = settle(Settler(PATIENT), "a", 0).cancelled("a")
    assert settler.next_deadline_s() is None
    assert settler.state(10).reason == "at rest in a state whose pack came to nothing"
    again = settle(settler.rescan(20), "a", 20)
    assert again.state(30).reason == "at rest; a pack of this state is on its way"
    gone = settle(Settler(PATIENT, "old"), "a", 0).cancelled("a").hinted(10)
    back = look(look(gone, "old", 12), "old", 13)
    assert back.state(13).reason == "nothing changed since the last kit"


def test_what_becomes_of_an_older_pack_is_of_no_concern():
    settler = settle(Settler(PATIENT), "b", 0)
    assert settler.failed("a", 5) is settler
    assert settler.cancelled("a") is settler
