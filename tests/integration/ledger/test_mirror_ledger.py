"""What mirrors remember, in a real file: edges, events, starts, ages."""

from dataclasses import replace

import pytest

from kitd.ledger import mirror_ledger
from kitd.ledger.mirror_ledger import EdgeRow, MirrorLedger, RuleCounts
from kitd.mirror.edge import (
    Agreed,
    Back,
    Conflict,
    Eased,
    Edge,
    Failed,
    Gone,
    Memory,
    Referred,
    Removed,
)
from kitd.oci.digest import Digest
from kitd.oci.reference import Repository

A, B, C = (Digest(f"sha256:{letter * 64}") for letter in "abc")
HERE = Repository("a.example.com", "team/model")
THERE = Repository("b.example.com:5000", "model")
ELSEWHERE = Repository("c.example.com", "model")


@pytest.fixture
def mirrors(database, clock) -> MirrorLedger:
    return MirrorLedger(database, clock)


@pytest.fixture
def told(events):
    """Return type, subject and data of what was told so far."""

    async def told():
        return [(event.type, event.subject, event.data) for event in await events.read(0, 100)]

    return told


def edge(tag="v1", target_tag=None, source=HERE, target=THERE):
    return Edge(source, tag, target, target_tag or tag)


def agreed(which=None, digest=A, **fields):
    plain = {"with_referrers": False, "copied": False}
    return Agreed(edge=which or edge(), digest=digest, **{**plain, **fields})


def failed(which=None, code="registry_busy"):
    return Failed(which or edge(), code, "it did not work out")


async def remembered(mirrors, which=None):
    which = which or edge()
    memory = await mirrors.edges(which.source, which.target)
    found = memory.get((which.tag, which.target_tag))
    # Whose it is has tests of its own.
    return None if found is None else replace(found, rule=None, returned=False)


async def row_of(mirrors, rule="prod"):
    (row,) = await mirrors.rows(rule, 10)
    return row


async def test_of_what_was_never_seen_nothing_is_known(mirrors):
    assert await mirrors.edges(HERE, THERE) == {}
    assert await mirrors.rows("prod", 10) == []
    assert await mirrors.counts() == {}
    assert await mirrors.sources("prod") == []
    assert await mirrors.starts() == {}
    assert await mirrors.ages([A]) == {}
    assert not await mirrors.are_agreed(edge(), A)


async def test_nothing_to_note_writes_nothing(mirrors, sql, told):
    await mirrors.note("prod", [])
    assert sql("SELECT count(*) FROM mirror_edges") == [(0,)]
    assert await told() == []


async def test_an_agreement_is_remembered_with_its_time(mirrors, clock):
    await mirrors.note("prod", [agreed()])
    first_us = clock.at_us
    assert await remembered(mirrors) == Memory(A, first_us, 0, None)
    clock.advance(5)
    await mirrors.note("prod", [agreed(digest=B, with_referrers=True)])
    assert await remembered(mirrors) == Memory(B, clock.at_us, clock.at_us, None)
    clock.advance(5)
    await mirrors.note("prod", [agreed(digest=B)])
    assert await remembered(mirrors) == Memory(B, clock.at_us, first_us + 5_000_000, None)


async def test_edges_are_by_both_tags(mirrors):
    renamed, other = edge("v1", "eu-v1"), edge("v1", target=ELSEWHERE)
    await mirrors.note("prod", [agreed(renamed), agreed(digest=B), agreed(other, digest=C)])
    memory = await mirrors.edges(HERE, THERE)
    assert {tags: each.digest for tags, each in memory.items()} == {
        ("v1", "eu-v1"): A,
        ("v1", "v1"): B,
    }


async def test_what_was_copied_is_told_and_what_was_equal_is_not(mirrors, told):
    await mirrors.note("prod", [agreed()])
    assert await told() == []
    await mirrors.note("prod", [agreed(copied=True, sent_bytes=17)])
    assert await told() == [
        (
            "kit.mirrored",
            f"kit:{A}",
            {
                "source": "a.example.com/team/model:v1",
                "target": "b.example.com:5000/model:v1",
                "mirror": "prod",
                "bytes": 17,
            },
        )
    ]


async def test_a_failure_leaves_what_was_agreed_and_the_next_agreement_ends_it(mirrors, clock):
    await mirrors.note("prod", [agreed()])
    before = await remembered(mirrors)
    clock.advance(5)
    await mirrors.note("prod", [failed()])
    assert await remembered(mirrors) == replace(before, has_failed=True)
    row = await row_of(mirrors)
    assert (row.error_code, row.error_message) == ("registry_busy", "it did not work out")

    await mirrors.note("prod", [agreed()])
    row = await row_of(mirrors)
    assert (row.error_code, row.error_message) == (None, None)


async def test_the_first_that_is_known_may_be_a_failure(mirrors):
    await mirrors.note("prod", [failed()])
    assert await remembered(mirrors) == Memory(None, 0, 0, None, has_failed=True)
    assert await row_of(mirrors) == EdgeRow(
        edge=edge(),
        rule="prod",
        digest=None,
        equal_us=None,
        gone_us=None,
        conflict=None,
        error_code="registry_busy",
        error_message="it did not work out",
    )


async def test_since_when_a_tag_is_gone_is_noted_once(mirrors, clock):
    await mirrors.note("prod", [agreed()])
    clock.advance(5)
    gone_us = clock.at_us
    for _ in range(2):
        await mirrors.note("prod", [Gone(edge())])
        clock.advance(5)
    assert await remembered(mirrors) == Memory(A, gone_us - 5_000_000, 0, gone_us)
    await mirrors.note("prod", [agreed()])
    memory = await remembered(mirrors)
    assert memory is not None
    assert memory.gone_us is None


async def test_what_was_removed_is_forgotten_and_told(mirrors, told):
    await mirrors.note("prod", [agreed(), agreed(edge("v2")), Gone(edge())])
    await mirrors.note("prod", [Removed(edge())])
    assert set(await mirrors.edges(HERE, THERE)) == {("v2", "v2")}
    assert await told() == [
        (
            "mirror.removed",
            "tag:b.example.com:5000/model:v1",
            {
                "source": "a.example.com/team/model:v1",
                "target": "b.example.com:5000/model:v1",
                "mirror": "prod",
            },
        )
    ]


async def test_a_conflict_is_told_once_however_often_it_is_met(mirrors, told):
    await mirrors.note("prod", [agreed()])
    before = await remembered(mirrors)
    for _ in range(3):
        await mirrors.note("prod", [Conflict(edge(), B, C)])
    assert await remembered(mirrors) == before
    assert (await row_of(mirrors)).conflict == f"{B} {C}"
    assert await told() == [
        (
            "mirror.conflict",
            "tag:b.example.com:5000/model:v1",
            {
                "source": "a.example.com/team/model:v1",
                "target": "b.example.com:5000/model:v1",
                "mirror": "prod",
                "source_digest": B,
                "target_digest": C,
                "overwritten": False,
            },
        )
    ]


async def test_another_conflict_is_told_and_so_is_one_that_comes_back(mirrors, told):
    conflicts = [
        Conflict(edge(), B, C),
        Conflict(edge(), A, C),
        Conflict(edge("v2"), A, C),
    ]
    await mirrors.note("prod", conflicts)
    await mirrors.note("prod", [agreed(digest=B)])
    assert {row.edge.tag: row.conflict for row in await mirrors.rows("prod", 10)} == {
        "v1": None,
        "v2": f"{A} {C}",
    }
    await mirrors.note("prod", [conflicts[1]])
    found = [(data["source"][-2:], data["source_digest"]) for _, _, data in await told()]
    assert found == [("v1", B), ("v1", A), ("v2", A), ("v1", A)]


async def test_notes_are_written_together_or_not_at_all(mirrors, told):
    broken = Conflict(edge("v2"), B, object())  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        await mirrors.note("prod", [agreed(copied=True), broken])
    assert await mirrors.edges(HERE, THERE) == {}
    assert await told() == []


# The other direction.


async def test_what_the_other_direction_remembers_counts_where_it_is_newer(mirrors, clock):
    there = edge("v1", "eu-v1")
    back = edge("eu-v1", "v1", source=THERE, target=HERE)
    await mirrors.note("there", [agreed(there, with_referrers=True)])
    first_us = clock.at_us
    clock.advance(5)
    await mirrors.note("back", [agreed(back, digest=B)])
    assert await remembered(mirrors, there) == Memory(B, clock.at_us, first_us, None)
    assert await remembered(mirrors, back) == Memory(B, clock.at_us, 0, None)

    clock.advance(5)
    await mirrors.note("there", [agreed(there, digest=C)])
    assert await remembered(mirrors, there) == Memory(C, clock.at_us, first_us, None)
    assert await remembered(mirrors, back) == Memory(C, clock.at_us, 0, None)


async def test_what_the_other_direction_agreed_is_known_where_this_one_never_ran(mirrors, clock):
    await mirrors.note("back", [agreed(edge(source=THERE, target=HERE))])
    assert await remembered(mirrors) == Memory(A, clock.at_us, 0, None)


async def test_of_what_the_other_direction_failed_at_nothing_is_known(mirrors):
    await mirrors.note("back", [failed(edge(source=THERE, target=HERE))])
    assert await mirrors.edges(HERE, THERE) == {}


async def test_a_tag_that_is_gone_stays_so_whatever_the_other_direction_has(mirrors, clock):
    await mirrors.note("there", [agreed(), Gone(edge())])
    gone_us = clock.at_us
    clock.advance(5)
    await mirrors.note("back", [agreed(edge(source=THERE, target=HERE), digest=B)])
    assert await remembered(mirrors) == Memory(B, clock.at_us, 0, gone_us)


async def test_on_what_was_removed_nothing_is_agreed_in_either_direction(mirrors):
    """Somebody may put it back: what the other direction remembers would call that settled."""
    there, back = edge("v1", "eu-v1"), edge("eu-v1", "v1", source=THERE, target=HERE)
    other = edge("eu-v2", "v2", source=THERE, target=HERE)
    await mirrors.note("there", [agreed(there)])
    await mirrors.note("back", [agreed(back), agreed(other), Gone(back)])
    await mirrors.note("back", [Removed(back)])
    assert await mirrors.edges(HERE, THERE, ["v1"]) == {}
    assert set(await mirrors.edges(THERE, HERE)) == {("eu-v2", "v2")}


# What both ends have already.


async def test_ends_are_agreed_on_what_they_were_last_seen_with(mirrors):
    await mirrors.note("prod", [agreed()])
    assert await mirrors.are_agreed(edge(), A)
    assert not await mirrors.are_agreed(edge(), B)
    assert not await mirrors.are_agreed(edge(target=ELSEWHERE), A)
    assert not await mirrors.are_agreed(edge("v2"), A)


async def test_an_agreement_holds_in_both_directions(mirrors, clock):
    there, back = edge("v1", "eu-v1"), edge("eu-v1", "v1", source=THERE, target=HERE)
    await mirrors.note("there", [agreed(there)])
    assert await mirrors.are_agreed(back, A)
    clock.advance(5)
    await mirrors.note("back", [agreed(back, digest=B)])
    for which in (there, back):
        assert await mirrors.are_agreed(which, B)
        assert not await mirrors.are_agreed(which, A)


@pytest.mark.parametrize("which", [edge(), edge(source=THERE, target=HERE)])
@pytest.mark.parametrize("trouble", [failed, Gone])
async def test_what_is_in_trouble_is_not_agreed(mirrors, which, trouble):
    """Nobody knows how the target stands: the next event has to have it looked at."""
    await mirrors.note("prod", [agreed()])
    await mirrors.note("prod", [trouble(which)])
    assert not await mirrors.are_agreed(edge(), A)
    await mirrors.note("prod", [agreed(which)])
    assert await mirrors.are_agreed(edge(), A)


# For people.


async def test_rows_in_trouble_come_first(mirrors):
    await mirrors.note(
        "prod",
        [
            agreed(edge("a")),
            agreed(edge("b")),
            agreed(edge("c", source=ELSEWHERE)),
            *(agreed(edge("gone")), Gone(edge("gone"))),
            Conflict(edge("torn"), A, B),
            failed(edge("z")),
        ],
    )
    await mirrors.note("other", [failed(edge("x"))])
    tags = ["z", "torn", "gone", "a", "b", "c"]
    assert [row.edge.tag for row in await mirrors.rows("prod", 10)] == tags
    assert [row.edge.tag for row in await mirrors.rows("prod", 2)] == tags[:2]


async def test_edges_are_counted_by_mirror(mirrors, clock):
    await mirrors.note("prod", [agreed(edge("a")), failed(edge("b"))])
    clock.advance(5)
    await mirrors.note(
        "prod",
        [
            agreed(edge("c")),
            Gone(edge("a")),
            Conflict(edge("c"), A, B),
            failed(edge("c")),
        ],
    )
    await mirrors.note("new", [failed(edge("a", target=ELSEWHERE))])
    await mirrors.note(None, [agreed(edge("by-hand"))])
    assert await mirrors.counts() == {
        "prod": RuleCounts(edges=3, failed=2, conflicts=1, gone=1, equal_us=clock.at_us),
        "new": RuleCounts(edges=1, failed=1, conflicts=0, gone=0, equal_us=None),
    }


@pytest.mark.parametrize("owner", ["prod", None])
@pytest.mark.parametrize(
    "note",
    [
        pytest.param(Gone(edge()), id="gone"),
        pytest.param(Back(edge()), id="back"),
        pytest.param(Eased(edge()), id="eased"),
        pytest.param(failed(), id="failed"),
        pytest.param(Conflict(edge(), B, C), id="conflict"),
        pytest.param(Referred(edge(), A, 0), id="referred"),
    ],
)
async def test_who_only_sees_what_others_copied_does_not_come_by_it(mirrors, owner, note):
    """What is a mirror's own it may remove."""
    await mirrors.note(owner, [agreed()])
    await mirrors.note("other", [note])
    (memory,) = (await mirrors.edges(HERE, THERE)).values()
    assert memory.rule == owner


async def test_what_nobody_has_copied_is_of_the_mirror_that_tried_last(mirrors):
    await mirrors.note(None, [failed()])
    await mirrors.note("prod", [failed()])
    assert (await row_of(mirrors)).edge == edge()


async def test_an_edge_is_of_the_mirror_that_agreed_on_it_last(mirrors):
    await mirrors.note("old", [agreed()])
    await mirrors.note(None, [agreed()])
    assert (await row_of(mirrors, "old")).rule == "old"
    await mirrors.note("new", [agreed()])
    assert await mirrors.rows("old", 10) == []
    assert (await row_of(mirrors, "new")).edge == edge()


async def test_the_sources_of_a_mirror_are_those_that_it_was_seen_with(mirrors):
    await mirrors.note("prod", [agreed(), failed(edge("v2")), failed(edge(source=ELSEWHERE))])
    await mirrors.note("other", [agreed(edge(source=THERE, target=HERE))])
    assert set(await mirrors.sources("prod")) == {HERE, ELSEWHERE}
    assert await mirrors.sources("other") == [THERE]


# Starts and ages.


async def test_the_last_start_of_each_mirror_is_kept(mirrors):
    await mirrors.note_start("prod", 5)
    await mirrors.note_start("other", 7)
    await mirrors.note_start("prod", 6)
    assert await mirrors.starts() == {"prod": 6, "other": 7}


async def test_ages_are_learned_once_and_asked_for_by_digest(mirrors):
    await mirrors.learn_ages({A: 1, B: 2})
    await mirrors.learn_ages({A: 9, C: None})
    assert await mirrors.ages([A, C]) == {A: 1, C: None}
    assert await mirrors.ages([]) == {}


async def test_so_many_ages_are_kept_and_the_newest_of_them(mirrors, monkeypatch):
    monkeypatch.setattr(mirror_ledger, "MAX_AGES", 3)
    digests = [Digest(f"sha256:{number:064x}") for number in range(6)]
    for at, digest in enumerate(digests):
        await mirrors.learn_ages({digest: at})
    assert await mirrors.ages(digests) == {digest: int(digest[-1]) for digest in digests[3:]}


async def test_what_a_person_copies_takes_an_edge_from_no_mirror(
    mirrors,
):
    await mirrors.note("prod", [agreed()])
    await mirrors.note(None, [agreed(digest=B)])
    memory = await mirrors.edges(edge().source, edge().target)
    assert [found.rule for found in memory.values()] == ["prod"]


async def test_what_was_referred_to_says_nothing_of_the_tags(mirrors, clock):
    await mirrors.note("prod", [agreed(), Gone(edge())])
    before = await remembered(mirrors)
    clock.at_us += 5_000_000
    await mirrors.note("prod", [Referred(edge(), A, 0)])
    assert await remembered(mirrors) == replace(before, referrers_us=clock.at_us)
    await mirrors.note("prod", [Back(edge())])
    assert (await remembered(mirrors)).gone_us is None


async def test_many_edges_are_read_a_page_at_a_time(mirrors, monkeypatch):
    monkeypatch.setattr(mirror_ledger, "PAGE", 3)
    tags = [f"v{number}" for number in range(8)]
    await mirrors.note("prod", [agreed(edge(tag)) for tag in tags])
    await mirrors.note("back", [agreed(edge(tag, source=THERE, target=HERE)) for tag in tags[4:]])
    await mirrors.note("prod", [failed(edge(""))])
    memory = await mirrors.edges(HERE, THERE)
    assert sorted(tag for tag, _ in memory) == tags
    assert {tag for (tag, _), found in memory.items() if found.returned} == set(tags[4:])
    assert set(await mirrors.edges(HERE, THERE, ["v1", "x"])) == {("v1", "v1")}


async def test_what_a_person_copied_back_is_returned_by_no_mirror(mirrors):
    await mirrors.note("prod", [agreed()])
    await mirrors.note(None, [agreed(edge(source=THERE, target=HERE))])
    (memory,) = (await mirrors.edges(HERE, THERE)).values()
    assert not memory.returned


async def test_of_a_source_that_was_not_there_all_of_it_has_failed(mirrors, clock):
    whole = edge("")
    await mirrors.note("prod", [agreed(), failed(whole, "registry_unreachable")])
    assert await mirrors.had_no_source(HERE, THERE)
    assert not await mirrors.had_no_source(HERE, ELSEWHERE)
    row = (await mirrors.rows("prod", 10))[0]
    assert (row.edge, row.error_code) == (whole, "registry_unreachable")
    counts = (await mirrors.counts())["prod"]
    assert (counts.edges, counts.failed) == (1, 1)
    clock.advance(5)
    assert await mirrors.given_up(clock.at_us) == [row]
    await mirrors.note("prod", [Removed(whole)])
    assert not await mirrors.had_no_source(HERE, THERE)


async def test_what_failed_is_eased_or_gone_and_counts_no_more(mirrors):
    for note in (Eased, Gone):
        await mirrors.note("prod", [failed()])
        assert (await mirrors.counts())["prod"].failed == 1
        await mirrors.note("prod", [note(edge())])
        assert (await mirrors.counts())["prod"].failed == 0


async def test_what_was_overwritten_is_told_with_what_is_there_instead(mirrors, told):
    await mirrors.note("prod", [agreed(digest=B, copied=True, overwrote=C)])
    (conflict, copied) = await told()
    assert (conflict[0], copied[0]) == ("mirror.conflict", "kit.mirrored")
    assert conflict[2]["target_digest"] == C
    assert conflict[2]["overwritten"]
    assert (await row_of(mirrors)).conflict is None


async def test_an_index_is_known_by_the_manifests_that_it_lists(mirrors, sql):
    await mirrors.note("prod", [agreed(below=frozenset({B, C})), agreed(edge("v2"))])
    assert await mirrors.agreed_on(HERE, THERE, [C]) == {A: (("v1", "v1"), ("v2", "v2"))}
    assert set(await mirrors.agreed_on(HERE, THERE, [A, B])) == {A}
    assert await mirrors.agreed_on(HERE, ELSEWHERE, [A, B]) == {}
    other = Digest(f"sha256:{'9' * 64}")
    assert await mirrors.agreed_among(HERE, THERE, [A, C, other]) == {A, C}
    assert await mirrors.agreed_among(HERE, ELSEWHERE, [A, C]) == frozenset()
    await mirrors.tidy()
    assert sql("SELECT count(*) FROM index_manifests") == [(2,)]
    await mirrors.note("prod", [agreed(digest=B), agreed(edge("v2"), digest=B)])
    await mirrors.tidy()
    assert sql("SELECT count(*) FROM index_manifests") == [(0,)]


async def test_a_manifest_is_known_whichever_direction_agreed_on_it(mirrors):
    """A signature may be pushed at either side of a pair."""
    here = edge("v1", "eu-v1")
    await mirrors.note("there", [agreed(here, below=frozenset({B})), agreed(edge("v2"), digest=C)])
    await mirrors.note("back", [agreed(edge("v2", source=THERE, target=HERE), digest=C)])
    assert await mirrors.agreed_on(THERE, HERE, [B, C]) == {
        A: (("eu-v1", "v1"),),
        C: (("v2", "v2"),),
    }
    assert await mirrors.agreed_among(THERE, HERE, [A, B, C]) == {A, B, C}


async def test_what_was_removed_counts_for_a_day_unless_a_person_agreed(mirrors, clock, sql):
    await mirrors.note("prod", [Removed(edge("v1")), Removed(edge("v2"), by_person=True)])
    await mirrors.note("prod", [Removed(edge("", source=THERE, target=HERE))])
    assert await mirrors.removed(HERE, THERE) == 1
    assert await mirrors.removed(THERE, HERE) == 0
    clock.advance(24 * 3600 - 1)
    await mirrors.note("prod", [Removed(edge("v3"))])
    await mirrors.tidy()
    assert await mirrors.removed(HERE, THERE) == 2
    clock.advance(2)
    assert await mirrors.removed(HERE, THERE) == 1
    await mirrors.tidy()
    assert sql("SELECT count(*) FROM mirror_removals") == [(1,)]
