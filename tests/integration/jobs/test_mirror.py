"""Mirrors between registries that listen, with a real cache and a real ledger."""

import asyncio
import os

import msgspec
import pytest

from fault_registry.quirks import Quirks
from fault_registry.storage import Manifest
from kitd.content.store import ContentNotFoundError
from kitd.jobs.mirror import find, report
from kitd.jobs.mirror.follow import BELIEVED_US
from kitd.jobs.mirror.kind import MIRROR
from kitd.jobs.mirror.report import MirrorIncompleteError, MirrorRefusedError
from kitd.jobs.mirror.source import PullsSpentError
from kitd.mirror.order import Conflicts, Deletes, Selection
from kitd.oci.reference import parse_repository
from kitd.queue.fact import RepositoryChanged
from kitd.registry.errors import RegistryNotFoundError
from tests.integration.jobs.world import actions, asked

MIB = 1 << 20
DAY_US = BELIEVED_US


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_tags_come_with_all_below_them_and_the_source_is_read_once(world, count):
    source = await world.registry()
    targets = [await world.registry("mirror/of-it") for _ in range(count)]
    shared = os.urandom(3 * MIB)
    for version in range(5):
        source.kit(f"v{version}", shared, os.urandom(2000))
    source.index("all", source.kit(None, shared), source.kit(None, os.urandom(300_000)))

    orders = [world.rule(source, target, by_many=count > 1) for target in targets]
    results = await asyncio.gather(*map(world.run, orders))

    assert all(actions(result) == {"copied": 6} for result in results)
    for target, result in zip(targets, results, strict=True):
        assert target.tags == source.tags
        assert not target.missing()
        assert result.bytes.sent == target.registry.tally.received_bytes() + sum(
            len(manifest.content) for manifest in target.repository.manifests.values()
        )
    for (_, digest), blob in source.registry.tally.blobs.items():
        assert blob.sent_bytes <= source.registry.storage.path(digest).stat().st_size
    # Of tags it is asked for each by the first, and by the others as far as they came later.
    assert asked(source)["manifest.get"] == len(source.repository.manifests)
    assert len(await world.told("kit.mirrored")) == 6 * count


async def test_a_second_pass_asks_the_source_once_a_tag_and_the_target_nothing(world):
    source, target = await world.registry(), await world.registry()
    for version in range(30):
        source.kit(f"v{version}")
    rule = world.rule(source, target)
    await world.run(rule)
    asked(source), asked(target)

    result = await world.run(rule, priority=0)

    assert result.edges == ()
    assert result.counts == {"unchanged": 30}
    assert asked(source) == {"tags.get": 1, "manifest.head": 30}
    assert not asked(target)


async def test_after_a_day_and_for_who_wants_to_know_the_target_is_looked_at(world):
    source, target = await world.registry(), await world.registry()
    for version in range(6):
        source.kit(f"v{version}")
    rule = world.rule(source, target)
    await world.run(rule)
    for late_us, thorough in ((DAY_US, False), (0, True)):
        world.clock.late_us += late_us
        del target.tags["v3"]
        result = await world.run(rule, thorough=thorough)
        assert actions(result) == {"unchanged": 5, "copied": 1}
        assert target.tags == source.tags


async def test_a_tag_that_moves_is_followed_and_only_what_is_new_is_sent(world):
    source, target = await world.registry(), await world.registry()
    base = os.urandom(2 * MIB)
    source.kit("latest", base)
    rule = world.rule(source, target)
    await world.run(rule)
    source.kit("latest", base, os.urandom(5000))
    source.tags["v2"] = source.tags["latest"]

    result = await world.run(rule, tags=("latest",))

    assert [(edge.action, edge.bytes < MIB) for edge in result.edges] == [("copied", True)]
    assert target.tags == {"latest": source.tags["latest"]}
    result = await world.run(rule)
    assert target.tags == source.tags
    assert actions(result) == {"copied": 1, "unchanged": 1}


async def test_what_refers_to_a_kit_comes_along_before_its_name(world):
    source, target = await world.registry(), await world.registry(referrers=False)
    kit = source.kit("v1")
    signature = source.kit(None, b"signature", subject=kit)
    source.kit(None, b"countersigned", subject=signature)
    await world.run(world.rule(source, target))
    assert target.referrers(kit) == source.referrers(kit)
    assert target.referrers(signature) == source.referrers(signature)
    kinds = [
        request.path.rpartition("/")[2]
        for request in target.registry.tally.requests
        if request.method == "PUT" and "/manifests/" in request.path
    ]
    assert kinds[-1] == "v1"
    assert signature["digest"] in kinds


async def test_a_signature_that_comes_later_is_taken_along_when_it_is_told_of(world):
    source, target = await world.registry(), await world.registry()
    kit = source.kit("v1")
    rule = world.rule(source, target)
    await world.run(rule)
    signature = source.kit(None, b"signature", subject=kit)

    await world.run(rule)
    assert not target.referrers(kit)
    result = await world.run(rule, tags=(), manifests=(signature["digest"],))

    assert target.referrers(kit) == {signature["digest"]}
    assert result.bytes.sent > 0
    source.kit(None, b"sbom", subject=kit)
    world.clock.late_us += 2 * 3600 * 1_000_000
    await world.run(rule)
    assert target.referrers(kit) == source.referrers(kit)


async def test_tags_that_are_about_a_digest_come_with_what_they_are_about(world):
    source, target = await world.registry(), await world.registry()
    kit, other = source.kit("v1"), source.kit("other")
    signature = f"{kit['digest'].replace(':', '-')}.sig"
    source.kit(signature)
    source.kit(f"{other['digest'].replace(':', '-')}.sig")
    rule = world.rule(source, target, tag="of-{tag}", select=Selection(include=("v*",)))
    await world.run(rule)
    assert target.tags.keys() == {"of-v1", signature}
    # One that is told of later, and one of what is not mirrored.
    attestation = f"{kit['digest'].replace(':', '-')}.att"
    source.kit(attestation)
    source.kit(f"{other['digest'].replace(':', '-')}.att")
    await world.run(rule, tags=(attestation, f"{other['digest'].replace(':', '-')}.att"))
    assert target.tags.keys() == {"of-v1", signature, attestation}
    source.kit("v2")
    late = f"{source.tags['v2'].replace(':', '-')}.sig"
    source.kit(late)
    await world.run(rule, tags=("v2",))
    assert late in target.tags


async def test_the_newest_are_those_that_were_made_last(world):
    source, target = await world.registry(), await world.registry()
    for number, tag in enumerate(("b", "d", "a", "c")):
        source.kit(tag, created=f"2026-01-0{number + 1}T00:00:00Z")
    rule = world.rule(source, target, select=Selection(newest=2))
    await world.run(rule)
    assert target.tags.keys() == {"a", "c"}
    asked(source)
    await world.run(rule)
    assert asked(source)["manifest.get"] == 0
    source.kit("e", created="2026-02-01T00:00:00Z")
    await world.run(rule, tags=("e",))
    assert target.tags.keys() == {"a", "c", "e"}
    await world.run(rule, tags=("b",))
    assert target.tags.keys() == {"a", "c", "e"}


async def test_the_newest_versions_are_those_with_the_highest_numbers(world):
    source, target = await world.registry(), await world.registry()
    for tag in ("1.10.0", "1.9.0", "2.0.0", "0.1.0", "other"):
        source.kit(tag)
    rule = world.rule(source, target, select=Selection(semver="<2", newest=2))
    await world.run(rule)
    assert target.tags.keys() == {"1.10.0", "1.9.0"}
    source.kit("1.8.0")
    await world.run(rule, tags=("1.8.0",))
    assert target.tags.keys() == {"1.10.0", "1.9.0"}
    source.kit("1.11.0")
    await world.run(rule, tags=("1.11.0",))
    assert target.tags.keys() == {"1.10.0", "1.9.0", "1.11.0"}


async def test_what_comes_to_refer_to_a_part_of_an_index_comes_along(world):
    source, target = await world.registry(), await world.registry()
    child = source.kit(None)
    source.index("all", child, source.kit(None))
    rule = world.rule(source, target)
    await world.run(rule)
    signature = source.kit(None, b"signature", subject=child)
    await world.run(rule, tags=(), manifests=(signature["digest"],))
    assert target.referrers(child) == {signature["digest"]}
    # What refers to that has an event of its own.
    countersigned = source.kit(None, b"countersigned", subject=signature)
    await world.run(rule, tags=(), manifests=(countersigned["digest"],))
    assert target.referrers(signature) == {countersigned["digest"]}
    source.kit(None, b"sbom", subject=child)
    world.clock.late_us += 2 * 3600 * 1_000_000
    await world.run(rule)
    assert target.referrers(child) == source.referrers(child)
    # Older tools keep it under a tag.
    named = f"{child['digest'].replace(':', '-')}.sig"
    source.kit(named)
    await world.run(rule, tags=(named,))
    assert target.tags[named] == source.tags[named]
    later = f"{child['digest'].replace(':', '-')}.att"
    source.kit(later)
    await world.run(rule)
    assert target.tags == source.tags


async def test_a_name_that_a_target_cannot_have_fails_by_itself(world):
    source, target = await world.registry(), await world.registry()
    source.kit("short")
    source.kit("l" * 128)
    with pytest.raises(MirrorRefusedError):
        await world.run(world.rule(source, target, tag="of-{tag}"))
    assert target.tags.keys() == {"of-short"}


async def test_one_target_in_trouble_holds_up_no_other(world):
    source = await world.registry()
    good, bad = await world.registry(), await world.registry(fail_every=1)
    for version in range(4):
        source.kit(f"v{version}", os.urandom(300_000))
    orders = [world.rule(source, target, by_many=True) for target in (good, bad)]
    done, failed = await asyncio.gather(*map(world.run, orders), return_exceptions=True)
    assert actions(done) == {"copied": 4}
    assert isinstance(failed, MirrorIncompleteError)
    assert "tags failed" in failed.message
    assert actions(failed.result) == {"failed": 4}
    assert good.tags == source.tags
    assert (await world.ledger.counts())["prod"].failed == 4
    bad.registry.quirks = Quirks()
    assert actions(await world.run(orders[1])) == {"copied": 4}
    assert bad.tags == source.tags
    assert (await world.ledger.counts())["prod"].failed == 0


async def test_a_tag_that_a_person_names_has_to_be_there(world):
    source, target = await world.registry(), await world.registry()
    source.kit("v1")
    by_hand = world.rule(source, target, tag="stable", tags=("v1",))
    by_hand = msgspec.structs.replace(by_hand, rule=None)
    result = await world.run(by_hand)
    assert [edge.target for edge in result.edges] == [f"{target.reference}:stable"]
    assert target.tags == {"stable": source.tags["v1"]}
    with pytest.raises(ContentNotFoundError, match="v2"):
        await world.run(by_hand, tags=("v2",))
    # Of a mirror of the configuration it is one that is gone by now.
    await world.run(world.rule(source, target), tags=("v2",))


async def test_wishes_of_people_are_one_only_if_they_are_the_same(world):
    source, target = await world.registry(), await world.registry()
    by_hand = msgspec.structs.replace(world.rule(source, target), rule=None)
    renamed = msgspec.structs.replace(world.rule(source, target, tag="x"), rule=None)
    some = msgspec.structs.replace(by_hand, select=Selection(include=("v*",)))
    keys = {MIRROR.request(order).key for order in (by_hand, renamed, some, by_hand)}
    assert len(keys) == 3


async def test_what_is_refused_for_good_is_told_as_that(world):
    source, target = await world.registry(), await world.registry()
    source.kit("good")
    broken = source.kit("broken", b"lost")
    lost = source.repository.manifests[broken["digest"]].document["layers"][0]["digest"]
    source.repository.blobs.discard(lost)
    with pytest.raises(MirrorRefusedError, match="not mirrored whole"):
        await world.run(world.rule(source, target))
    assert target.tags.keys() == {"good"}


async def test_a_source_that_never_was_there_is_an_error(world):
    source, target = await world.registry(), await world.registry()
    rule = world.rule(source, target)
    with pytest.raises(RegistryNotFoundError):
        await world.run(rule)
    # Whoever comes back to what has failed finds it.
    (row,) = await world.ledger.rows("prod", 10)
    assert (row.edge.tag, row.error_code) == ("", "not_found")
    assert await world.ledger.given_up(world.clock.now_us() + 1) == [row]
    source.kit("v1")
    await world.run(rule)
    assert not await world.ledger.given_up(world.clock.now_us() + 1)
    assert [row.edge.tag for row in await world.ledger.rows("prod", 10)] == ["v1"]


async def test_more_tags_than_are_looked_at_at_once(world, monkeypatch):
    monkeypatch.setattr(find, "BATCH", 4)
    monkeypatch.setattr(report, "MAX_REPORTED", 6)
    source, target = await world.registry(), await world.registry()
    kits = [source.kit(f"v{version}") for version in range(11)]
    source.tags["copy"] = kits[0]["digest"]
    source.kit(f"{kits[5]['digest'].replace(':', '-')}.sig")
    rule = world.rule(source, target, deletes=Deletes.PROPAGATE, grace_s=0.0)
    result = await world.run(rule)
    assert target.tags == source.tags
    assert result.counts == {"copied": 13}
    assert len(result.edges) == 6
    assert result.notes == ("7 more tags are not shown",)
    del source.tags["v10"]
    result = await world.run(rule)
    assert target.tags == source.tags
    assert result.counts == {"unchanged": 12, "deleted": 1}
    assert result.edges[0].action == "deleted"


async def test_ages_are_not_read_from_pulls_that_are_left_to_people(world):
    source, target = await world.registry(pulls=30), await world.registry()
    for number in range(40):
        source.kit(f"v{number:02}", created=f"2026-01-01T00:00:{number:02}Z")
    rule = world.rule(source, target, select=Selection(newest=2))
    for _ in range(2):
        with pytest.raises(PullsSpentError) as caught:
            await world.run(rule, priority=0)
        assert caught.value.retry_after_s > 0
        assert 20 <= source.registry.pulled <= 26
    # What was read is known, and a new window goes on.
    source.registry.quirks, source.registry.pulled = Quirks(pulls=30), 0
    await world.run(rule, priority=0)
    assert target.tags.keys() == {"v38", "v39"}
    assert source.registry.pulled <= 22


async def test_what_does_not_tell_its_age_is_asked_once(world):
    source, target = await world.registry(), await world.registry()
    for tag in ("a", "b"):
        source.kit(tag)
    source.kit("c", created="2026-01-01T00:00:00Z")
    rule = world.rule(source, target, select=Selection(newest=1))
    await world.run(rule)
    assert target.tags.keys() == {"c"}
    asked(source)
    await world.run(rule)
    assert asked(source)["manifest.get"] == 0


async def test_pulls_that_are_counted_are_not_all_spent(world):
    """A fifth is left to people, and what is unchanged costs none."""
    source, target = await world.registry(pulls=60), await world.registry()
    for version in range(80):
        source.kit(f"v{version}")
    rule = world.rule(source, target)
    for _ in range(2):
        with pytest.raises(MirrorIncompleteError, match="left to people") as caught:
            await world.run(rule, priority=0)
        assert caught.value.retry_after_s > 0
        assert source.registry.pulled == len(target.tags)
        assert 32 <= len(target.tags) <= 48
    source.registry.quirks, source.registry.pulled = Quirks(pulls=1000), 0
    await world.run(rule)
    assert target.tags == source.tags
    assert source.registry.pulled <= 48


# Deletes.


async def test_what_is_gone_stays_unless_the_mirror_propagates_deletes(world):
    source, target = await world.registry(), await world.registry()
    for tag in ("a", "b", "c"):
        source.kit(tag)
    rule = world.rule(source, target)
    await world.run(rule)
    del source.tags["b"]
    await world.run(rule, grace_s=0.0)
    assert target.tags.keys() == {"a", "b", "c"}


async def test_what_is_gone_for_long_enough_goes(world):
    source, target = await world.registry(), await world.registry()
    for tag in ("a", "b", "c"):
        source.kit(tag)
    rule = world.rule(source, target, deletes=Deletes.PROPAGATE, grace_s=3600.0)
    await world.run(rule)
    del source.tags["b"]
    for _ in range(2):
        await world.run(rule)
        assert "b" in target.tags
    world.clock.late_us += 3601 * 1_000_000
    result = await world.run(rule)
    assert target.tags == source.tags
    assert actions(result) == {"unchanged": 2, "deleted": 1}
    assert len(await world.told("mirror.removed")) == 1


async def test_what_comes_back_in_time_stays(world):
    source, target = await world.registry(), await world.registry()
    kits = {tag: source.kit(tag) for tag in ("a", "b", "c")}
    rule = world.rule(source, target, deletes=Deletes.PROPAGATE, grace_s=3600.0)
    await world.run(rule)
    del source.tags["b"]
    await world.run(rule)
    source.tags["b"] = kits["b"]["digest"]
    await world.run(rule)
    world.clock.late_us += 4000 * 1_000_000
    del source.tags["b"]
    await world.run(rule)
    assert "b" in target.tags


async def test_a_delete_that_is_told_of_is_noted_and_done_by_a_look_at_all(world):
    """How many are gone at once shows beside all others only."""
    source, target = await world.registry(), await world.registry()
    for tag in ("a", "b", "c"):
        source.kit(tag)
    rule = world.rule(source, target, deletes=Deletes.PROPAGATE, grace_s=3600.0)
    await world.run(rule)
    del source.tags["b"]
    await world.run(rule, tags=("b",))
    world.clock.late_us += 3601 * 1_000_000
    await world.run(rule, tags=("b",))
    assert "b" in target.tags
    await world.run(rule)
    assert target.tags.keys() == {"a", "c"}


async def test_events_one_by_one_empty_no_mirror(world):
    source, target = await world.registry(), await world.registry()
    tags = [f"v{number}" for number in range(12)]
    for tag in tags:
        source.kit(tag)
    rule = world.rule(source, target, deletes=Deletes.PROPAGATE, grace_s=0.0)
    await world.run(rule)
    source.tags.clear()
    for tag in tags:
        await world.run(rule, tags=(tag,))
    await world.run(rule)
    assert len(target.tags) == 12


async def test_a_rule_removes_what_it_copied_and_nothing_else(world):
    source, target = await world.registry(), await world.registry()
    for tag in ("v1", "v2", "nightly-1", "nightly-2", "by-hand"):
        source.kit(tag)
    archive = world.rule(source, target, select=Selection(include=("v*",)))
    nightly = world.rule(
        source,
        target,
        select=Selection(include=("nightly-*",)),
        deletes=Deletes.PROPAGATE,
        grace_s=0.0,
    )
    await world.run(archive)
    await world.run(nightly, rule="nightly")
    await world.run(world.rule(source, target), rule=None, tags=("by-hand",))
    other = world.rule(source, target, tag="other-{tag}")
    await world.run(other, rule=None, tags=("nightly-2",))
    for tag in ("v1", "nightly-1", "nightly-2", "by-hand"):
        del source.tags[tag]
    await world.run(nightly, rule="nightly", allow_deletes=True)
    assert target.tags.keys() == {"v1", "v2", "by-hand", "other-nightly-2"}


async def test_a_source_that_is_emptied_tag_by_tag_takes_no_more_along_than_at_once(world):
    """What goes in a day counts together, but for what a person has agreed to."""
    source, target = await world.registry(), await world.registry()
    tags = [f"v{number:02}" for number in range(12)]
    for tag in tags:
        source.kit(tag)
    rule = world.rule(source, target, deletes=Deletes.PROPAGATE, grace_s=0.0)
    await world.run(rule)
    for tag in tags[:8]:
        del source.tags[tag]
        last = await world.run(rule)
    assert sorted(target.tags) == tags[5:]
    assert "8 of 12 tags are gone from the source, 5 of them removed" in last.notes[0]
    await world.run(rule, allow_deletes=True)
    assert sorted(target.tags) == tags[8:]
    world.clock.late_us += DAY_US
    del source.tags[tags[8]]
    await world.run(rule)
    assert sorted(target.tags) == tags[9:]


async def test_a_rule_that_saw_often_what_others_copied_removes_none_of_it(world):
    source, target = await world.registry(), await world.registry()
    for tag in ("n-1", "n-2", "n-3", "n-4", "n-5", "v-1", "v-2", "by-hand"):
        source.kit(tag)
    deletes = {"deletes": Deletes.PROPAGATE}
    nightly = world.rule(source, target, select=Selection(include=("n-*",)), grace_s=0.0, **deletes)
    archive = world.rule(source, target, select=Selection(include=("v-*",)), grace_s=1e6, **deletes)
    await world.run(nightly, rule="nightly")
    await world.run(archive, rule="archive")
    await world.run(world.rule(source, target), rule=None, tags=("by-hand",))
    for tag in ("n-1", "v-1", "by-hand"):
        del source.tags[tag]
    for _ in range(3):
        await world.run(nightly, rule="nightly")
    assert target.tags.keys() == {"n-2", "n-3", "n-4", "n-5", "v-1", "v-2", "by-hand"}


async def test_a_repository_of_one_tag_that_is_gone_takes_no_mirror_along(world):
    source, target = await world.registry(), await world.registry()
    source.kit("only")
    rule = world.rule(source, target, deletes=Deletes.PROPAGATE, grace_s=0.0)
    await world.run(rule)
    source.registry.storage.repositories.clear()
    await world.run(rule)
    assert target.tags.keys() == {"only"}


async def test_what_was_gone_for_a_moment_long_ago_is_not_gone_for_long(world):
    source, target = await world.registry(), await world.registry()
    kits = {tag: source.kit(tag) for tag in ("a", "b", "c")}
    rule = world.rule(source, target, deletes=Deletes.PROPAGATE, grace_s=3600.0)
    await world.run(rule)
    del source.tags["b"]
    await world.run(rule)
    source.tags["b"] = kits["b"]["digest"]
    # Not meant any more, but there.
    await world.run(rule, select=Selection(exclude=("b",)))
    world.clock.late_us += 4000 * 1_000_000
    del source.tags["b"]
    await world.run(rule)
    assert "b" in target.tags


# What is remembered is not believed too long, nor too much.


async def test_a_tag_that_others_removed_is_back_within_a_day_however_often_it_is_run(world):
    source, target = await world.registry(), await world.registry()
    source.kit("v1")
    rule = world.rule(source, target)
    await world.run(rule)
    target.tags.clear()
    for _ in range(13):
        world.clock.late_us += DAY_US // 12
        await world.run(rule)
    assert target.tags == source.tags


async def test_a_target_that_lost_its_content_gets_it_again(world):
    source, target = await world.registry(), await world.registry()
    source.kit(None, b"signature", subject=source.kit("v1"))
    rule = world.rule(source, target)
    await world.run(rule)
    target.repository.blobs.clear()
    assert actions(await world.run(rule, thorough=True)) == {"copied": 1}
    assert not target.missing()
    target.registry.storage.repositories.clear()
    await world.run(rule, thorough=True)
    assert target.tags["v1"] == source.tags["v1"]
    assert not target.missing()


async def test_a_tag_that_moved_while_it_waited_for_its_turn_is_followed(world):
    source, target = await world.registry(), await world.registry(delay_s=0.15)
    for version in range(80):
        source.kit(f"v{version:02}")

    async def move_late():
        while len(target.tags) < 20:
            await asyncio.sleep(0.01)
        # Its turn comes last, seconds after it was asked for.
        assert "v79" not in target.tags
        source.kit("v79")

    mover = asyncio.create_task(move_late())
    await world.run(world.rule(source, target))
    await mover
    assert target.tags == source.tags


async def test_what_a_person_pushes_to_the_target_meanwhile_is_not_overwritten_unseen(world):
    source, target = await world.registry(), await world.registry(delay_s=0.6)
    source.kit("v1")
    rule = world.rule(source, target, conflicts=Conflicts.KEEP)
    await world.run(rule)
    source.kit("v1", os.urandom(1000), os.urandom(2000))
    theirs = []

    async def push_meanwhile():
        while not any(each.kind == "upload.begin" for each in target.registry.tally.requests):
            await asyncio.sleep(0.01)
        theirs.append(target.kit("v1")["digest"])

    target.registry.tally.requests.clear()
    pusher = asyncio.create_task(push_meanwhile())
    result = await world.run(rule)
    await pusher
    assert target.tags["v1"] == theirs[0]
    assert actions(result) == {"skipped": 1}
    assert len(await world.told("mirror.conflict")) == 1


async def test_one_bad_tag_stops_no_other(world):
    source, target = await world.registry(), await world.registry()
    for tag in ("a", "b", "c"):
        source.kit(tag)
    broken = source.tags["b"]
    kind = "application/vnd.docker.distribution.manifest.v1+json"
    source.repository.manifests[broken] = Manifest(kind, b"{}")
    with pytest.raises(MirrorRefusedError):
        await world.run(world.rule(source, target))
    assert target.tags.keys() == {"a", "c"}


async def test_where_no_tags_are_removed_a_manifest_goes_if_nothing_else_goes_with_it(world):
    source, target = await world.registry(), await world.registry(removes_tags=False)
    child = source.kit("part")
    source.index("all", child)
    for tag in ("a", "b", "c", "d", "e", "f"):
        source.kit(tag)
    source.tags["a-too"] = source.tags["a"]
    source.tags["b-too"] = source.tags["b"]
    rule = world.rule(source, target, deletes=Deletes.PROPAGATE, grace_s=0.0)
    await world.run(rule)
    del source.tags["part"], source.tags["a"], source.tags["b"], source.tags["b-too"]
    foreseen = await world.run(rule, dry_run=True)
    assert actions(foreseen) == {"deleted": 4, "unchanged": 6}
    result = await world.run(rule)
    assert actions(result) == {"deleted": 2, "skipped": 2, "unchanged": 6}
    why = {edge.source.rpartition(":")[2]: edge.why for edge in result.edges}
    assert "a-too" in why["a"]
    assert "part of all" in why["part"]
    assert target.tags.keys() == source.tags.keys() | {"a", "part"}
    assert not target.missing()


async def test_what_another_mirror_would_leave_is_not_removed(world):
    source, target = await world.registry(), await world.registry()
    for tag in ("v1", "v2", "x1", "x2"):
        source.kit(tag)
    spares = (Selection(include=("v*",)),)
    rule = world.rule(source, target, deletes=Deletes.PROPAGATE, grace_s=0.0, spares=spares)
    await world.run(rule)
    del source.tags["v1"], source.tags["x1"]
    await world.run(rule)
    assert target.tags.keys() == {"v1", "v2", "x2"}


async def test_what_failed_and_is_left_alone_now_is_no_trouble_any_more(world):
    source, target = await world.registry(), await world.registry()
    source.kit("v1")
    rule = world.rule(source, target, conflicts=Conflicts.KEEP)
    await world.run(rule)
    source.kit("v1")
    target.registry.quirks = Quirks(fail_every=1)
    with pytest.raises(MirrorIncompleteError):
        await world.run(rule)
    assert (await world.ledger.counts())["prod"].failed == 1
    target.registry.quirks = Quirks()
    target.kit("v1")
    assert actions(await world.run(rule)) == {"skipped": 1}
    counts = (await world.ledger.counts())["prod"]
    assert (counts.failed, counts.conflicts) == (0, 1)


# Guards.


@pytest.mark.parametrize("left", [0, 3])
async def test_many_at_once_wait_for_a_person(world, left):
    source, target = await world.registry(), await world.registry()
    for number in range(12):
        source.kit(f"v{number}")
    rule = world.rule(source, target, deletes=Deletes.PROPAGATE, grace_s=0.0)
    await world.run(rule)
    for tag in list(source.tags)[left:]:
        del source.tags[tag]
    result = await world.run(rule)
    assert len(target.tags) == 12
    assert "unless a person allows it" in result.notes[0]
    await world.run(rule, allow_deletes=True)
    assert target.tags == source.tags


async def test_a_repository_that_is_gone_takes_no_mirror_along(world):
    source, target = await world.registry(), await world.registry()
    source.kit("a")
    source.kit("b")
    rule = world.rule(source, target, deletes=Deletes.PROPAGATE, grace_s=0.0)
    await world.run(rule)
    source.registry.storage.repositories.clear()
    result = await world.run(rule)
    assert target.tags.keys() == {"a", "b"}
    assert any("is not there" in note for note in result.notes)


async def test_what_others_have_put_there_is_not_removed(world):
    source, target = await world.registry(), await world.registry()
    source.kit("a")
    source.kit("b")
    rule = world.rule(source, target, deletes=Deletes.PROPAGATE, grace_s=0.0)
    await world.run(rule)
    del source.tags["b"]
    target.kit("b")
    result = await world.run(rule)
    assert "b" in target.tags
    assert actions(result) == {"skipped": 1, "unchanged": len(source.tags)}
    # It is no concern of the mirror any more, and keeps nothing else from going.
    assert (await world.ledger.counts())["prod"].gone == 0
    assert actions(await world.run(rule)) == {"unchanged": len(source.tags)}


# Both ends move.


async def test_a_target_that_others_changed_is_put_right_or_kept(world):
    source, target = await world.registry(), await world.registry()
    source.kit("v1")
    rule = world.rule(source, target)
    await world.run(rule)
    theirs = target.kit("v1")["digest"]
    source.kit("v1")
    result = await world.run(rule, conflicts=Conflicts.KEEP)
    assert actions(result) == {"skipped": 1}
    assert target.tags["v1"] == theirs
    await world.run(rule, conflicts=Conflicts.KEEP)
    (conflict,) = await world.told("mirror.conflict")
    assert conflict.data["target_digest"] == theirs
    await world.run(rule)
    assert target.tags == source.tags


async def test_two_ways_meet_and_nobody_copies_back(world):
    one, two = await world.registry(), await world.registry()
    there = world.rule(one, two, returns=True)
    back = world.rule(two, one, returns=True, conflicts=Conflicts.KEEP)
    one.kit("a")
    two.kit("b")
    await world.run(there)
    await world.run(back)
    assert one.tags == two.tags
    for rule in (there, back):
        assert actions(await world.run(rule)) == {"unchanged": 2}
    two.kit("a")
    assert actions(await world.run(there, thorough=True)) == {"skipped": 1, "unchanged": 1}
    assert actions(await world.run(back)) == {"copied": 1, "unchanged": 1}
    assert one.tags == two.tags
    one.kit("a"), two.kit("a")
    assert actions(await world.run(back)) == {"skipped": 1, "unchanged": 1}
    assert actions(await world.run(there)) == {"copied": 1, "unchanged": 1}
    assert one.tags == two.tags


async def test_a_side_that_takes_back_what_it_pushed_has_the_other_carried_to_it(world):
    """The other way has looked by then, and found a conflict that was not its to solve."""
    one, two = await world.registry(), await world.registry()
    there = world.rule(one, two, returns=True)
    back = world.rule(two, one, returns=True, conflicts=Conflicts.KEEP)
    first = one.kit("a")
    await world.run(there)
    one.kit("a"), two.kit("a")
    assert actions(await world.run(back)) == {"skipped": 1}
    assert world.facts == ()
    one.tags["a"] = first["digest"]
    assert actions(await world.run(there, tags=("a",), thorough=True)) == {"skipped": 1}
    (fact,) = world.facts
    assert fact == RepositoryChanged(repository=parse_repository(two.reference), tags=("a",))
    await world.run(back, tags=fact.tags)
    assert one.tags == two.tags
    assert one.tags["a"] != first["digest"]


@pytest.mark.parametrize("side", [0, 1])
async def test_what_is_removed_on_one_side_of_a_pair_goes_on_the_other(world, side):
    """Whichever side it came from, and no job in between brings it back."""
    ends = [await world.registry(), await world.registry()]
    one, two = ends
    both = {"returns": True, "deletes_return": True, "deletes": Deletes.PROPAGATE}
    there = world.rule(one, two, grace_s=3600.0, **both)
    back = world.rule(two, one, grace_s=3600.0, conflicts=Conflicts.KEEP, **both)
    for tag in ("a", "b", "c"):
        one.kit(tag)
    two.kit("d")

    async def pass_by():
        for rule, name in ((there, "there"), (back, "back")):
            await world.run(rule, rule=name)

    await pass_by()
    assert one.tags == two.tags
    del ends[side].tags["b"], ends[side].tags["d"]
    for _ in range(2):
        await pass_by()
        # Nobody believes for longer than a day what the side that lost it had.
        world.clock.late_us += DAY_US // 2
    await pass_by()
    assert one.tags == two.tags
    assert one.tags.keys() == {"a", "c"}
    one.kit("b")
    await pass_by()
    assert one.tags == two.tags
    assert one.tags.keys() == {"a", "b", "c"}


async def test_what_a_person_puts_back_after_it_was_removed_stays_at_both_ends(world):
    """The other direction remembers that both had it, and must not have the last word."""
    one, two = await world.registry(), await world.registry()
    both = {"returns": True, "deletes_return": True, "deletes": Deletes.PROPAGATE}
    there = world.rule(one, two, grace_s=3600.0, **both)
    back = world.rule(two, one, grace_s=3600.0, conflicts=Conflicts.KEEP, **both)
    for tag in ("a", "b", "c"):
        one.kit(tag)
    await world.run(there, rule="there")
    await world.run(back, rule="back")
    digest = two.tags.pop("b")
    await world.run(back, rule="back")
    world.clock.late_us += DAY_US // 6
    await world.run(back, rule="back")
    assert one.tags.keys() == {"a", "c"}

    two.tags["b"] = digest
    assert actions(await world.run(back, rule="back", tags=("b",))) == {"copied": 1}
    for _ in range(2):
        await world.run(there, rule="there")
        await world.run(back, rule="back")
        world.clock.late_us += DAY_US // 6
    assert one.tags == two.tags
    assert one.tags.keys() == {"a", "b", "c"}


async def test_what_is_signed_on_the_other_side_of_a_pair_is_signed_on_both(world):
    """Either way: what refers to it, and the tag of cosign."""
    one, two = await world.registry(), await world.registry()
    there = world.rule(one, two, returns=True)
    back = world.rule(two, one, returns=True, conflicts=Conflicts.KEEP)
    kit = one.kit("v1")
    await world.run(there, rule="there")
    signature = two.kit(None, b"signature", subject=kit)
    await world.run(back, rule="back", tags=(), manifests=(signature["digest"],))
    assert one.referrers(kit) == {signature["digest"]}
    tag = f"{kit['digest'].replace(':', '-')}.sig"
    two.kit(tag)
    await world.run(back, rule="back", tags=(tag,))
    assert one.tags.keys() == {"v1", tag}


async def test_what_was_removed_by_mistake_a_thorough_look_brings_back(world):
    one, two = await world.registry(), await world.registry()
    one.kit("a")
    rule = world.rule(one, two, returns=True, deletes_return=True)
    await world.run(rule)
    two.tags.clear()
    world.clock.late_us += DAY_US
    assert actions(await world.run(rule)) == {"skipped": 1}
    await world.run(rule, thorough=True)
    assert one.tags == two.tags


# Plans.


async def test_a_plan_writes_nothing_down(world):
    source, target = await world.registry(), await world.registry()
    source.kit("v1")
    target.kit("v1")
    plan = await world.run(world.rule(source, target, conflicts=Conflicts.KEEP), dry_run=True)
    assert actions(plan) == {"skipped": 1}
    assert not await world.ledger.counts()
    assert not await world.told("mirror.conflict")


async def test_a_plan_tells_what_would_be_sent_and_sends_nothing(world):
    source, target = await world.registry(), await world.registry()
    shared = os.urandom(200_000)
    source.kit("v1", shared)
    await world.run(world.rule(source, target))
    source.kit("v2", shared, os.urandom(70_000))
    source.kit("v3", shared, os.urandom(80_000))
    before = dict(target.tags)
    asked(target)
    plan = await world.run(world.rule(source, target), dry_run=True)
    assert target.tags == before
    assert not {kind for kind in asked(target) if not kind.endswith((".head", ".get"))}
    assert plan.dry_run
    done = await world.run(world.rule(source, target))
    assert actions(plan) == actions(done) == {"copied": 2, "unchanged": 1}
    assert plan.bytes.sent == done.bytes.sent
    assert {e.target: e.bytes for e in plan.edges} == {e.target: e.bytes for e in done.edges}
