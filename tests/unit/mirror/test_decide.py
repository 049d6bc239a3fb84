import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitd.mirror.decide import (
    FEW,
    MANY,
    SHARE,
    Decision,
    Departures,
    Verdict,
    decide,
    departures,
    digest_tags,
    subject_of,
)
from kitd.mirror.order import Conflicts
from kitd.oci.digest import Digest
from kitd.oci.referrer import referrers_tag

A, B, C = (Digest(f"sha256:{letter * 64}") for letter in "abc")
DIGESTS = st.sampled_from([A, B, C])
NOW_US = 1_700_000_000_000_000


@pytest.mark.parametrize("returns", [False, True])
@pytest.mark.parametrize("conflicts", Conflicts)
@pytest.mark.parametrize(
    ("source", "target", "agreed", "verdict"),
    [
        pytest.param(A, A, None, Verdict.EQUAL, id="equal, and nothing remembered"),
        pytest.param(A, A, A, Verdict.EQUAL, id="equal as ever"),
        pytest.param(A, A, B, Verdict.EQUAL, id="both moved to the same"),
        pytest.param(A, None, None, Verdict.COPY, id="new"),
        pytest.param(A, None, A, Verdict.COPY, id="the target lost it"),
        pytest.param(A, None, B, Verdict.COPY, id="the target lost it, and the source moved"),
        pytest.param(A, B, B, Verdict.COPY, id="only the source moved"),
    ],
)
def test_what_is_no_conflict_needs_no_rule(source, target, agreed, verdict, conflicts, returns):
    decision = decide(
        source, target, agreed, conflicts=conflicts, returns=returns, deletes_return=False
    )
    assert decision == Decision(verdict)


@pytest.mark.parametrize(
    ("agreed", "conflicts", "returns", "expected"),
    [
        # Only the target moved.
        (A, Conflicts.OVERWRITE, True, Decision(Verdict.LEFT)),
        (A, Conflicts.KEEP, True, Decision(Verdict.LEFT)),
        (A, Conflicts.OVERWRITE, False, Decision(Verdict.COPY)),
        (A, Conflicts.KEEP, False, Decision(Verdict.KEPT)),
        # Both moved.
        (C, Conflicts.OVERWRITE, True, Decision(Verdict.COPY, True)),
        (C, Conflicts.KEEP, True, Decision(Verdict.KEPT, True)),
        (C, Conflicts.OVERWRITE, False, Decision(Verdict.COPY, True)),
        (C, Conflicts.KEEP, False, Decision(Verdict.KEPT, True)),
        # They were never seen equal.
        (None, Conflicts.OVERWRITE, True, Decision(Verdict.COPY, True)),
        (None, Conflicts.KEEP, True, Decision(Verdict.KEPT, True)),
        (None, Conflicts.OVERWRITE, False, Decision(Verdict.COPY)),
        (None, Conflicts.KEEP, False, Decision(Verdict.KEPT)),
    ],
)
def test_a_target_that_moved_is_for_the_rule_to_say(agreed, conflicts, returns, expected):
    assert (
        decide(A, B, agreed, conflicts=conflicts, returns=returns, deletes_return=returns)
        == expected
    )


@given(
    source=DIGESTS,
    target=DIGESTS | st.none(),
    agreed=DIGESTS | st.none(),
    conflicts=st.sampled_from(Conflicts),
    returns=st.booleans(),
)
def test_nothing_is_copied_for_nothing(source, target, agreed, conflicts, returns):
    decision = decide(
        source, target, agreed, conflicts=conflicts, returns=returns, deletes_return=False
    )
    assert (decision.verdict is Verdict.EQUAL) == (source == target)
    has_both_moved = target is not None and agreed not in (source, target)
    assert has_both_moved or not decision.is_conflict
    if returns and source == agreed and target not in (None, source):
        assert decision == Decision(Verdict.LEFT)


@pytest.mark.parametrize("conflicts", Conflicts)
@pytest.mark.parametrize(
    ("source", "agreed", "expected"),
    [(A, A, Verdict.LEFT), (A, B, Verdict.COPY), (A, None, Verdict.COPY)],
)
def test_what_was_removed_from_the_target_of_a_pair_is_for_the_other_mirror(
    source, agreed, expected, conflicts
):
    decision = decide(source, None, agreed, conflicts=conflicts, returns=True, deletes_return=True)
    assert decision == Decision(expected)


@given(
    one=DIGESTS,
    other=DIGESTS,
    agreed=DIGESTS | st.none(),
    one_overwrites=st.booleans(),
    deletes=st.booleans(),
)
def test_of_two_opposite_rules_exactly_one_copies(one, other, agreed, one_overwrites, deletes):
    """Two that copied would swap what they have for ever; of two that did not, neither is right."""
    there, back = list(Conflicts) if one_overwrites else reversed(Conflicts)
    verdicts = [
        decide(
            source, target, agreed, conflicts=conflicts, returns=True, deletes_return=deletes
        ).verdict
        for source, target, conflicts in ((one, other, there), (other, one, back))
    ]
    assert verdicts.count(Verdict.COPY) == (one != other)
    if agreed not in (one, other) and one != other:
        assert verdicts.index(Verdict.COPY) == (not one_overwrites)


def decide_departures(gone, *, known, removed=0, now_us=NOW_US, grace_s=60.0, allowed=False):
    return departures(
        gone, known=known, removed=removed, now_us=now_us, grace_s=grace_s, allowed=allowed
    )


def leave(count, known, *, ago_s=60.0, **fields):
    gone = {f"t{number:03}": NOW_US - round(ago_s * 1e6) for number in reversed(range(count))}
    return decide_departures(gone, known=known, **fields)


def test_a_tag_goes_once_its_grace_is_over():
    gone = {"long": NOW_US - 61_000_000, "now": NOW_US - 60_000_000, "soon": NOW_US - 59_999_999}
    found = decide_departures(gone, known=10)
    assert found == Departures(("long", "now"))


def test_without_a_grace_a_tag_goes_at_once():
    assert leave(1, 9, ago_s=0.0, grace_s=0.0) == Departures(("t000",))


def test_a_clock_that_was_set_back_removes_nothing():
    assert leave(1, 9, ago_s=-3600.0) == Departures()


@pytest.mark.parametrize(
    ("count", "known"),
    [
        pytest.param(0, 0, id="none of none"),
        pytest.param(0, 5, id="none"),
        pytest.param(1, 2, id="half, and few"),
        pytest.param(FEW, 2 * FEW, id="half, and few still"),
        pytest.param(FEW + 1, round((FEW + 1) / SHARE), id="more than few, and the share"),
        pytest.param(MANY, 10 * MANY, id="many, and no more than that"),
    ],
)
def test_so_many_tags_go(count, known):
    assert leave(count, known) == Departures(tuple(f"t{number:03}" for number in range(count)))


@pytest.mark.parametrize(
    ("count", "known"),
    [
        pytest.param(1, 1, id="the only one"),
        pytest.param(2, 2, id="all, and few"),
        pytest.param(2, 3, id="most, and few"),
        pytest.param(FEW, 2 * FEW - 1, id="most, and few still"),
        pytest.param(FEW + 1, round((FEW + 1) / SHARE) - 1, id="more than few, and than the share"),
        pytest.param(MANY + 1, 100 * MANY, id="more than many, and a small share"),
    ],
)
def test_more_are_held_until_a_person_allows_it(count, known):
    held = leave(count, known)
    assert held.due == ()
    assert held.held == f"{count} of {known} tags are gone from the source"
    allowed = leave(count, known, allowed=True)
    assert len(allowed.due) == count
    assert allowed.held is None


def test_tags_whose_grace_goes_on_stay_and_count():
    gone = {f"t{number:02}": NOW_US - number * 1_000_000 for number in range(20)}
    found = decide_departures(gone, known=100, grace_s=15.0)
    assert found.due == ("t15", "t16", "t17", "t18", "t19")
    assert decide_departures(gone, known=99, grace_s=15.0).held
    assert decide_departures(gone, known=99, grace_s=20.0) == Departures()


def test_what_went_before_counts_for_what_goes_next():
    assert leave(1, 80, removed=20).held == (
        "21 of 100 tags are gone from the source, 20 of them removed within a day"
    )
    assert leave(1, 81, removed=19).due == ("t000",)
    assert leave(1, 10_000, removed=MANY).held
    assert leave(1, 80, removed=20, allowed=True).due == ("t000",)


@pytest.mark.parametrize("grace_s", [0.0, 600.0])
@pytest.mark.parametrize(("known", "goes"), [(201, 40), (1001, 50), (9, 4)])
def test_a_source_that_is_emptied_tag_by_tag_is_held_like_one_that_is_empty(known, goes, grace_s):
    """A tag goes each quarter of a minute, and a look at all comes each minute."""
    gone = {f"v{number:04}": number * 15_000_000 for number in range(known - 1)}
    removed = 0
    for minute in range(1, known):
        now_us = minute * 60_000_000
        found = decide_departures(
            {tag: us for tag, us in gone.items() if us <= now_us},
            known=known - removed,
            removed=removed,
            now_us=now_us,
            grace_s=grace_s,
        )
        for tag in found.due:
            del gone[tag]
        removed += len(found.due)
    assert removed <= goes


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        (f"sha256-{'a' * 64}", (A, "")),
        (f"sha256-{'a' * 64}.sig", (A, ".sig")),
        (f"sha256-{'a' * 64}.att", (A, ".att")),
        (f"sha256-{'b' * 64}.sbom", (B, ".sbom")),
    ],
)
def test_a_digest_tag_is_about_a_manifest(tag, expected):
    assert subject_of(tag) == expected


@pytest.mark.parametrize(
    "tag",
    [
        *("", "latest", "sha256", "sha256-", f"sha256-{'a' * 63}", f"sha256-{'A' * 64}"),
        *(f"sha256:{'a' * 64}", f"md5-{'a' * 64}", f"sha256-{'a' * 64}.", f"xsha256-{'a' * 64}"),
        *(f"sha256-{'a' * 64}.SIG", f"sha256-{'a' * 64}.sig.att", f"sha256-{'a' * 64}\n"),
        *(f"sha256-{'a' * 64}-1", f"sha256-{'a' * 64}.{'x' * 17}"),
        *(f"{algorithm}-{'a' * n}" for algorithm in ("sha256", "sha512") for n in (65, 96, 128)),
    ],
)
def test_other_tags_are_about_nothing(tag):
    assert subject_of(tag) is None


def test_the_tag_that_lists_what_refers_to_a_longer_digest_is_a_digest_tag():
    """Its name has the first 64 digits, which is as many as a tag has room for."""
    subject = subject_of(referrers_tag(Digest(f"sha512:{'0f' * 64}")))
    assert subject is not None
    assert subject[1] == ""


def test_what_is_kept_under_digest_tags_is_found_again():
    found = [subject_of(tag) for tag in digest_tags(A)]
    assert found == [(A, ".sig"), (A, ".att"), (A, ".sbom")]
