"""What may go, in which order, and why the rest stays."""

from dataclasses import replace

import pytest

from kitd.config.model import CacheConfig
from kitd.oci.descriptor import describe
from kitd.oci.reference import Reference, Repository
from kitd.store.collection import (
    GRACE_S,
    PARTIAL_KEPT_S,
    CachedKit,
    Space,
    StoredBlob,
    excess_bytes,
    expendable_partials,
    forecast,
    may_go,
    plan_collection,
)

HERE = Repository("localhost", "model")
THERE = Repository("registry.example.com", "model")
NOW_US = 1_800_000_000_000_000
MINUTE_US = 60_000_000
OLD_US = NOW_US - 100 * MINUTE_US


def blob(name, size=100):
    return replace(describe("layer", name.encode()), size=size)


def kit(name, *layers, **fields):
    """Return an untagged kit that nobody used for long."""
    plain = {
        "target": replace(describe("manifest", name.encode()), size=10),
        "children": layers,
        "subject": None,
        "used_us": OLD_US,
        "tags": (),
        "repositories": (HERE,),
        "locations": (),
    }
    return CachedKit(**{**plain, **fields})


def tagged(name):
    return (Reference(HERE, tag=name),)


def stored(*descriptors, written_us=OLD_US):
    return [StoredBlob(each.digest, each.size, written_us) for each in descriptors]


def plan(kits, blobs=(), leased=()):
    return plan_collection(kits, blobs, leased, keep_recent_s=600, now_us=NOW_US)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"pinned_as": "model:v1"}, "pinned as model:v1"),
        ({"needed_by": 12}, "needed by job 12"),
        ({"project": "demo"}, "the last kit of project demo"),
        ({"tags": tagged("v1")}, "model:v1 is in no registry that kitd knows of"),
        ({"used_us": NOW_US - 3 * MINUTE_US}, "used 3 min ago"),
        ({"used_us": NOW_US + 3 * MINUTE_US}, "used 0 s ago"),
        # A clock that was ahead for hours must not keep a kit for as long.
        ({"used_us": NOW_US + 300 * MINUTE_US}, None),
        ({"tags": tagged("v1"), "locations": (THERE,)}, None),
        ({}, None),
    ],
)
def test_what_speaks_for_a_kit(fields, why):
    one = kit("one", **fields)
    found = plan([one])
    assert found.kept.get(one.digest) == why
    assert (one in [each for bundle in found.bundles for each in bundle.kits]) == (why is None)


def test_what_is_leased_stays():
    one = kit("one")
    assert plan([one], leased=[one.digest]).kept == {one.digest: "in use"}


def test_a_kept_kit_keeps_what_it_consists_of_and_refers_to_and_what_refers_to_it():
    part, subject = kit("part"), kit("subject")
    index = kit("index", part.target, subject=subject.digest, pinned_as="model:all")
    signature = kit("signature", subject=index.digest)
    other = kit("other")
    found = plan([part, subject, index, signature, other])
    assert found.kept == {
        index.digest: "pinned as model:all",
        part.digest: f"part of {index.name}",
        subject.digest: f"{index.name} refers to it",
        signature.digest: f"refers to {index.name}",
    }


def test_what_a_kit_builds_on_stays_for_it():
    """Even if that kit may go: whoever pulls it again needs both."""
    parent = kit("parent", built_on_by=kit("child").digest)
    child = kit("child", tags=tagged("child"), locations=(THERE,))
    found = plan([parent, child])
    assert found.kept == {parent.digest: "model:child builds on it"}
    assert [each.kits for each in found.bundles] == [(child,)]


def test_what_a_kit_may_build_on_stays_until_that_is_known():
    parent = kit("parent", may_be_built_on=True)
    assert plan([parent]).kept == {parent.digest: "it is not known yet whether a kit builds on it"}


def test_a_part_that_is_kept_does_not_keep_the_index():
    part = kit("part", pinned_as="model:part")
    index = kit("index", part.target)
    assert plan([part, index]).kept.keys() == {part.digest}


def test_what_names_each_other_goes_together():
    part = kit("part")
    index, signature = kit("index", part.target), kit("signature", subject=part.digest)
    alone = kit("alone")
    found = {
        frozenset(k.digest for k in b.kits) for b in plan([part, index, signature, alone]).bundles
    }
    assert found == {
        frozenset({part.digest, index.digest, signature.digest}),
        frozenset({alone.digest}),
    }


def test_what_is_elsewhere_goes_first_and_each_least_recently_used_first():
    kits = [
        kit("here, late", used_us=OLD_US - 1),
        kit("here, early", used_us=OLD_US - 9),
        kit("there, late", used_us=OLD_US - 2, locations=(THERE,)),
        kit("there, early", used_us=OLD_US - 3, locations=(THERE,), tags=tagged("v1")),
    ]
    order = [bundle.kits[0] for bundle in plan(kits).bundles]
    assert order == [kits[3], kits[2], kits[1], kits[0]]


def test_a_bundle_is_as_recent_as_its_most_recent_part_and_elsewhere_if_all_of_it_is():
    part = kit("part", used_us=OLD_US - 9, locations=(THERE,))
    index = kit("index", part.target, used_us=OLD_US - 1)
    alone = kit("alone", used_us=OLD_US - 5)
    assert [len(bundle.kits) for bundle in plan([part, index, alone]).bundles] == [1, 2]


def test_blobs_that_no_kit_needs_go_once_they_are_old():
    needed, old, young, leased = (blob(name) for name in ("needed", "old", "young", "leased"))
    found = plan(
        [kit("one", needed, pinned_as="model:v1")],
        [
            *stored(needed, old, leased),
            *stored(young, written_us=NOW_US - 59 * MINUTE_US),
        ],
        [leased.digest],
    )
    assert [each.digest for each in found.unreferenced] == [old.digest]
    assert found.spared == {
        leased.digest: "in use",
        young.digest: "no kit needs it yet: written 59 min ago",
    }


def test_a_file_from_the_far_future_was_written_by_a_wrong_clock():
    odd = stored(blob("odd"), written_us=NOW_US + int(2 * GRACE_S) * 1_000_000)
    assert [each.digest for each in plan([], odd).unreferenced] == [odd[0].digest]


@pytest.mark.parametrize(
    ("space", "excess"),
    [
        (Space(100, 1000), 0),
        (Space(150, 1000), 50),
        (Space(90, 450), 50),
        (Space(150, 380), 120),
        (Space(450, 499), 350),
        # Others filled the disk: the cache gives what it has, but for what is to be kept.
        (Space(70, 0), 50),
        (Space(15, 0), 0),
    ],
)
def test_the_limit_that_asks_for_more_decides(space, excess):
    limits = CacheConfig(use_at_most_bytes=100, leave_free_bytes=500, keep_at_least_bytes=20)
    assert excess_bytes(space, limits) == excess


def test_nothing_goes_below_what_is_to_be_kept():
    limits = CacheConfig(use_at_most_bytes=10, keep_at_least_bytes=60, leave_free_bytes=0)
    assert may_go(Space(100, 0), limits, 40)
    assert not may_go(Space(100, 0), limits, 41)
    assert not may_go(Space(10, 0), replace(limits, keep_at_least_bytes=0), 5)


def test_the_forecast_stops_as_soon_as_the_limits_hold_and_counts_shared_blobs_once():
    shared, own = blob("shared"), [blob("a"), blob("b"), blob("c")]
    kits = [
        kit(f"kit {number}", shared, layer, used_us=OLD_US - number, locations=(THERE,))
        for number, layer in enumerate(own)
    ]
    manifests = [each.target for each in kits]
    # 3 layers of 100, a shared one of 100, 3 manifests of 10
    found = forecast(
        kits,
        stored(shared, *own, *manifests),
        [],
        {},
        Space(430, 0),
        CacheConfig(use_at_most_bytes=220, leave_free_bytes=0),
        now_us=NOW_US,
    )
    gone = {decision.digest for decision in found.decisions if decision.goes}
    assert gone == {each.digest for each in (*kits[1:], *own[1:])}
    assert (found.freed_bytes, found.over_bytes) == (220, 0)
    reasons = {decision.digest: decision.why for decision in found.decisions}
    assert reasons[kits[0].digest] == "the limits hold without that"
    assert reasons[kits[2].digest] == f"{THERE} has it, not used for 100 min"
    assert reasons[shared.digest] == f"part of {kits[0].name}"
    assert reasons[own[1].digest] == f"only part of {kits[1].name}"
    # What goes is listed first.
    assert all(decision.goes for decision in found.decisions[: len(gone)])


def test_the_forecast_tells_what_the_limits_still_lack():
    found = forecast(
        [kit("one", pinned_as="model:v1")],
        [],
        [],
        {},
        Space(500, 0),
        CacheConfig(use_at_most_bytes=100, leave_free_bytes=0),
        now_us=NOW_US,
    )
    assert (found.freed_bytes, found.over_bytes) == (0, 400)


ROOMY, TIGHT = Space(300, 1000), Space(300, 0)
LIMITS = CacheConfig(use_at_most_bytes=1000, leave_free_bytes=150)


def partials(*ages_s):
    return [
        StoredBlob(blob(f"partial {number}").digest, 100, NOW_US - int(age_s * 1_000_000))
        for number, age_s in enumerate(ages_s)
    ]


def given_up(found, *, blobs=(), leased=(), space=ROOMY):
    return expendable_partials(found, blobs, leased, space, LIMITS, now_us=NOW_US)


def test_what_arrived_of_a_blob_stays_for_a_week_where_there_is_room():
    young, old = partials(PARTIAL_KEPT_S - 60, PARTIAL_KEPT_S + 60)
    assert given_up([young, old]) == {old.digest: "nobody went on with it for 10081 min"}


def test_where_room_is_needed_the_oldest_goes_first_and_no_more_than_has_to():
    found = partials(10, 3000, 200)
    assert given_up(found, space=TIGHT) == {
        found[1].digest: "the cache needs the room",
        found[2].digest: "the cache needs the room",
    }


def test_what_arrives_right_now_stays_whatever_it_takes():
    found = partials(10, 2 * PARTIAL_KEPT_S)
    assert given_up(found, leased=[each.digest for each in found], space=TIGHT) == {}


def test_what_arrived_of_a_blob_that_is_there_goes():
    (found,) = partials(10)
    assert given_up([found], blobs=[replace(found, size=500)]) == {
        found.digest: "the blob came from elsewhere"
    }


def test_what_arrived_goes_before_any_kit_and_is_told():
    old, young = partials(3000, 10)
    layer = blob("layer")
    kits = [kit("one", layer, locations=(THERE,))]
    found = forecast(
        kits,
        stored(layer, kits[0].target),
        [],
        {},
        Space(310, 0),
        CacheConfig(use_at_most_bytes=210, leave_free_bytes=0),
        now_us=NOW_US,
        partials=[young, old],
    )
    gone = [decision for decision in found.decisions if decision.goes]
    assert [(each.kind, each.digest, each.size) for each in gone] == [("partial", old.digest, 100)]
    assert (found.freed_bytes, found.over_bytes) == (100, 0)
    reasons = {decision.digest: decision.why for decision in found.decisions}
    assert reasons[young.digest] == "the next pull goes on with it: written 10 s ago"
