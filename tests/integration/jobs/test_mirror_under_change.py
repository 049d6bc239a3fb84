"""Mirrors whose ends change while they run, break, or count what is read of them."""

import asyncio
import os

import msgspec
import pytest

from fault_registry.quirks import Quirks
from kitd.errors import UnavailableError
from kitd.jobs.mirror import find
from kitd.jobs.mirror.report import MirrorIncompleteError
from kitd.jobs.mirror.source import MirrorSource, Pulls
from kitd.mirror.order import Conflicts, Deletes, Selection
from kitd.oci.reference import parse_repository
from kitd.oci.referrer import referrers_tag
from kitd.registry.errors import RegistryServerError
from tests.integration.jobs.world import asked

SWEEP = {"deletes": Deletes.PROPAGATE, "grace_s": 0.0}


def signature_tag(kit):
    return f"{kit['digest'].replace(':', '-')}.sig"


def manifests_put(shelf):
    """Return tags and digests in the order in which manifests were put there."""
    return [
        request.path.rpartition("/")[2]
        for request in shelf.registry.tally.requests
        if request.method == "PUT" and "/manifests/" in request.path
    ]


# What others do meanwhile.


@pytest.mark.parametrize("options", [{"conflicts": Conflicts.KEEP}, {"returns": True}])
async def test_what_a_person_pushes_after_the_target_was_listed_stays(world, monkeypatch, options):
    monkeypatch.setattr(find, "BATCH", 4)
    source, target = await world.registry(), await world.registry()
    for tag in ("a1", "a2", "a3", "a4", "b1", "b2"):
        source.kit(tag)
    theirs = []

    async def push_meanwhile():
        while "a1" not in target.tags:
            await asyncio.sleep(0)
        theirs.append(target.kit("b1")["digest"])

    person = asyncio.create_task(push_meanwhile())
    rule = world.rule(source, target, **{"conflicts": Conflicts.KEEP, **options})
    await world.run(rule)
    await person
    assert target.tags["b1"] == theirs[0]


async def test_a_tag_that_is_back_by_the_end_of_a_run_keeps_its_copy(world):
    source, target = await world.registry(), await world.registry()
    for tag in ("a", "b", "c", "d"):
        source.kit(tag)
    rule = world.rule(source, target, **SWEEP)
    await world.run(rule)
    digest = source.tags.pop("b")
    source.kit("new", os.urandom(300_000))

    async def push_again():
        while "new" not in target.tags:
            await asyncio.sleep(0)
        source.tags["b"] = digest

    person = asyncio.create_task(push_again())
    result = await world.run(rule)
    await person
    assert "b" in target.tags
    assert {edge.why for edge in result.edges if edge.action == "skipped"} == {
        "the source has it again"
    }


async def test_a_source_that_lost_a_manifest_takes_no_copy_along(world):
    source, target = await world.registry(), await world.registry()
    for tag in ("a", "b", "c", "d"):
        source.kit(tag)
    rule = world.rule(source, target, **SWEEP)
    await world.run(rule)
    del source.repository.manifests[source.tags["b"]]
    await world.run(rule)
    assert "b" in target.tags


async def test_of_a_pair_only_what_both_mean_goes_at_both_ends(world):
    one, two = await world.registry(), await world.registry()
    some = Selection(include=("v*",))
    there = world.rule(one, two, returns=True, select=some, **SWEEP)
    keep = {"conflicts": Conflicts.KEEP, "deletes_return": True}
    back = world.rule(two, one, returns=True, **keep)
    for tag in ("v1", "v2", "v3"):
        one.kit(tag)
    two.kit("nightly")
    for rule, name in ((there, "there"), (back, "back")):
        await world.run(rule, rule=name)
    del one.tags["nightly"]
    await world.run(there, rule="there")
    await world.run(there, rule="there")
    assert "nightly" in two.tags


async def test_what_a_person_copied_is_no_mirror_s_to_remove_however_often_it_runs(world):
    source, target = await world.registry(), await world.registry()
    for tag in ("n-1", "n-2", "n-3", "by-hand", "other"):
        source.kit(tag)
    rule = world.rule(source, target, select=Selection(include=("n-*",)), **SWEEP)
    await world.run(rule)
    await world.run(world.rule(source, target), rule=None, tags=("by-hand",))
    del source.tags["by-hand"]
    for _ in range(3):
        await world.run(rule)
    assert "by-hand" in target.tags


# What breaks.


async def test_what_failed_as_a_whole_is_not_mended_by_one_event(world):
    source, target = await world.registry(), await world.registry()
    source.kit("x"), source.kit("y")
    rule = world.rule(source, target)
    source.registry.quirks = Quirks(fail_every=1)
    with pytest.raises(RegistryServerError):
        await world.run(rule)
    source.registry.quirks = Quirks()
    await world.run(rule, tags=("x",))
    assert [row.edge.tag for row in await world.ledger.rows("prod", 10)] == ["", "x"]
    await world.run(rule)
    assert [row.edge.tag for row in await world.ledger.rows("prod", 10)] == ["x", "y"]


async def test_an_end_that_cannot_be_spoken_to_is_told_of(world):
    source, target = await world.registry(), await world.registry()
    source.kit("a")

    async def refuse(_repository):
        raise UnavailableError("its certificates cannot be read")

    world.mirror_remote = refuse
    with pytest.raises(UnavailableError):
        await world.run(world.rule(source, target))
    (row,) = await world.ledger.rows("prod", 10)
    assert (row.edge.tag, row.error_message) == ("", "its certificates cannot be read")


async def test_a_source_that_lists_no_tags_is_asked_for_each_that_may_be_there(world):
    source, target = await world.registry(), await world.registry()
    parts = [source.kit(None) for _ in range(4)]
    source.index("all", *parts)
    source.kit(signature_tag(parts[3]))
    source.registry.quirks = Quirks(fail_every=1, fail_status=403, fail_kinds=("tags.get",))
    await world.run(world.rule(source, target), tags=("all",))
    assert target.tags == source.tags


async def test_what_is_not_meant_any_more_is_no_trouble(world):
    source, target = await world.registry(), await world.registry(fail_every=1)
    source.kit("old")
    rule = world.rule(source, target)
    for run in ({}, {"tags": ("old",)}):
        target.registry.quirks = Quirks(fail_every=1)
        with pytest.raises(MirrorIncompleteError):
            await world.run(rule)
        target.registry.quirks = Quirks()
        changed = msgspec.structs.replace(rule, select=Selection(include=("v*",)))
        await world.run(changed, **run)
        assert (await world.ledger.counts())["prod"].failed == 0


async def test_while_a_tag_cannot_be_asked_for_nobody_knows_the_newest(world):
    source, target = await world.registry(), await world.registry()
    for number, tag in enumerate(("a", "b", "c")):
        source.kit(tag, created=f"2026-01-0{number + 1}T00:00:00Z")
    rule = world.rule(source, target, select=Selection(newest=1))
    source.registry.quirks = Quirks(fail_every=1, fail_path="/manifests/c")
    with pytest.raises(MirrorIncompleteError) as caught:
        await world.run(rule)
    assert caught.value.result.counts == {"failed": 1}
    assert not target.tags
    source.registry.quirks = Quirks()
    await world.run(rule)
    assert target.tags.keys() == {"c"}


# In which order things appear.


async def test_what_refers_to_a_part_is_there_before_the_name_of_the_whole(world):
    source, target = await world.registry(), await world.registry()
    child = source.kit(None)
    source.index("all", child)
    signature = source.kit(None, b"signature", subject=child)
    await world.run(world.rule(source, target))
    put = manifests_put(target)
    assert put.index(signature["digest"]) < put.index("all")


@pytest.mark.parametrize("tags", [None, ("v1",), ("all",)])
async def test_digest_tags_are_there_before_the_name_of_what_they_are_about(world, tags):
    source, target = await world.registry(), await world.registry()
    kit = source.kit("v1")
    source.index("all", kit, source.kit(None))
    source.kit(signature_tag(kit))
    await world.run(world.rule(source, target), tags=tags)
    put = manifests_put(target)
    for name in tags or ("v1", "all"):
        assert put.index(signature_tag(kit)) < put.index(name)


# What is asked, and counted.


async def test_an_answer_that_an_old_list_gave_is_shared_with_nobody(world):
    source = await world.registry(referrers=False)
    kit = source.kit("v1")
    repository = parse_repository(source.reference)
    remotes = [await world.client.repository(repository) for _ in range(2)]

    def end(remote, content):
        pulls = Pulls(remote, repository.registry, leaves=False)
        return MirrorSource(repository, remote, content, pulls, by_many=True)

    async with world.reads.open(repository, remotes[0], by_many=True) as content:
        older = end(remotes[0], content)
        await older.list_tags()
        signature = source.kit(None, b"signature", subject=kit)
        source.index(referrers_tag(kit["digest"]), signature)
        async with world.reads.open(repository, remotes[1], by_many=True) as later:
            newer = end(remotes[1], later)
            assert await older.referrers(kit["digest"]) == ()
            (found,) = await newer.referrers(kit["digest"])
            assert found.digest == signature["digest"]


async def test_tags_of_one_manifest_are_asked_for_alike(world):
    source, target = await world.registry(), await world.registry()
    kit = source.kit("a")
    source.tags["b"] = kit["digest"]
    rule = world.rule(source, target)
    await world.run(rule)
    asked(source)
    await world.run(rule)
    assert asked(source) == {"tags.get": 1, "manifest.head": 2}


async def test_few_pulls_are_spent_on_what_they_can_finish(world):
    """Of each window so many indexes get there as it has pulls for, less those of people."""
    source, target = await world.registry(pulls=100), await world.registry()
    for number in range(20):
        source.index(f"v{number:02}", *(source.kit(None) for _ in range(6)))
    rule = world.rule(source, target)
    with pytest.raises(MirrorIncompleteError, match="left to people"):
        await world.run(rule, priority=0)
    assert source.registry.pulled <= 96
    assert len(target.tags) >= 10
    assert not target.missing()
    source.registry.quirks, source.registry.pulled = Quirks(pulls=100), 0
    await world.run(rule, priority=0)
    assert target.tags == source.tags
