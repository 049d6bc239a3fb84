"""What a collection is told of each kit, and the rows that it takes."""

import asyncio
import json
import sqlite3
from contextlib import closing

import pytest

from kitd.content.store import ContentNotFoundError
from kitd.ledger.cache_ledger import _KITS, PAGE, CacheLedger
from kitd.ledger.catalog import Catalog
from kitd.ledger.failure import LedgerError
from kitd.oci.descriptor import describe
from kitd.oci.digest import digest_of
from kitd.oci.manifest import parse_manifest
from kitd.oci.media_type import OCI_INDEX, OCI_MANIFEST
from kitd.oci.reference import Reference, Repository, parse_reference
from kitd.queue.effect import KitSummary, MoveTags, NoteParent, RecordLocation, RecordManifest
from kitd.queue.job import Lane

HERE = Repository("localhost", "team/model")
THERE = Repository("registry.example.com", "team/model")
CONFIG, LAYER = describe("c", b"{}"), describe("l", b"weights")


def manifest(name, *, of=None, subject=None):
    """Return a manifest of one layer, or an index of another manifest."""
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "annotations": {"name": name}}
    if of is not None:
        child = {"mediaType": OCI_MANIFEST, "digest": of.digest, "size": of.size}
        document |= {"mediaType": OCI_INDEX, "manifests": [child]}
    else:
        config, layer = (
            {"mediaType": each.media_type, "digest": each.digest, "size": each.size}
            for each in (CONFIG, LAYER)
        )
        document |= {"config": config, "layers": [layer]}
    if subject is not None:
        named = {"mediaType": OCI_MANIFEST, "digest": subject.digest, "size": subject.size}
        document["subject"] = named
    content = json.dumps(document).encode()
    return describe(document["mediaType"], content), parse_manifest(content)


A = manifest("a")


def record(made, repository=HERE):
    return RecordManifest(repository, *made)


@pytest.fixture
def ledger(database, clock):
    return CacheLedger(database, clock)


@pytest.fixture
def catalog(database, clock, ledger):
    async def no_kit(_manifest):
        return None

    return Catalog(database, clock, no_kit, used=ledger.note_use)


async def only(ledger):
    (kit,) = await ledger.kits()
    return kit


async def test_a_kit_comes_with_all_that_speaks_for_it(ledger, catalog, jobs, wish, sql, clock):
    target, _ = A
    await catalog.apply(
        [
            record(A),
            record(A, THERE),
            MoveTags(HERE, ("v1", "latest"), target.digest),
            RecordLocation(target.digest, THERE),
        ]
    )
    await ledger.pin(parse_reference("team/model:v1"))
    job = await jobs.enqueue(wish(needs=target.digest))
    sql(
        "INSERT INTO projects (name, source, definition, defined_us, digest)"
        " VALUES ('demo', 'added', '{}', 0, ?)",
        target.digest,
    )
    kit = await only(ledger)
    assert (kit.target, kit.children, kit.subject) == (target, (CONFIG, LAYER), None)
    assert kit.tags == (Reference(HERE, tag="latest"), Reference(HERE, tag="v1"))
    assert (kit.repositories, kit.locations) == ((HERE, THERE), (THERE,))
    assert (kit.pinned_as, kit.needed_by, kit.project) == ("team/model:v1", job.id, "demo")
    assert (kit.used_us, kit.name) == (clock.at_us, "team/model:latest")


async def test_a_kit_is_needed_by_what_builds_on_it_unless_its_own_registry_has_it(ledger, catalog):
    child = manifest("child")
    summary = KitSummary(parent=Reference(HERE, digest=A[0].digest))
    await catalog.apply([record(A), record(A, THERE)])
    before = await only(ledger)
    await catalog.apply([RecordManifest(THERE, *child, summary)])

    async def built_on_by():
        return {kit.digest: kit.built_on_by for kit in await ledger.kits()}[A[0].digest]

    assert await built_on_by() == child[0].digest
    # A collection that did not know of the child yet takes nothing.
    assert await ledger.evict([before], [], "no room") is None
    await catalog.apply([RecordLocation(A[0].digest, THERE)])
    assert await built_on_by() == child[0].digest
    await catalog.apply([RecordLocation(A[0].digest, HERE)])
    assert await built_on_by() is None


async def test_every_kit_may_be_built_on_until_all_were_looked_at(ledger, catalog, sql):
    """But for one that the registries have from which another would fetch it."""
    child = manifest("child")
    await catalog.apply([record(A), record(child, THERE), RecordLocation(child[0].digest, THERE)])
    assert not any(kit.may_be_built_on for kit in await ledger.kits())
    sql("UPDATE manifests SET parent_noted = 0 WHERE digest = ?", child[0].digest)

    kits = {kit.digest: kit.may_be_built_on for kit in await ledger.kits()}
    assert kits == {A[0].digest: True, child[0].digest: False}
    await catalog.apply([NoteParent(child[0].digest, Reference(HERE, digest=A[0].digest))])
    kits = {kit.digest: (kit.may_be_built_on, kit.built_on_by) for kit in await ledger.kits()}
    assert kits == {A[0].digest: (False, child[0].digest), child[0].digest: (False, None)}


async def test_a_parent_is_noted_of_no_kit_that_is_gone(catalog, sql):
    await catalog.apply([NoteParent(A[0].digest, Reference(HERE, digest=A[0].digest))])
    assert sql("SELECT * FROM kit_parents") == []


async def test_a_job_that_has_ended_needs_nothing(ledger, catalog, jobs, wish):
    await catalog.apply([record(A)])
    await jobs.enqueue(wish(needs=A[0].digest))
    (attempt,) = await jobs.claim({Lane.PACK: 1})
    assert (await only(ledger)).needed_by == attempt.id
    await jobs.succeed(attempt, b"{}", (), ())
    assert (await only(ledger)).needed_by is None


async def test_all_kits_come_however_many_there_are(ledger, catalog):
    made = [manifest(str(number)) for number in range(PAGE + 3)]
    await catalog.apply([record(each) for each in made])
    assert {kit.digest for kit in await ledger.kits()} == {target.digest for target, _ in made}


async def test_a_use_is_written_when_there_is_time(ledger, catalog, clock):
    await catalog.apply([record(A)])
    recorded_us = (await only(ledger)).used_us
    clock.advance(60)
    await catalog.resolve(HERE, A[0].digest)
    assert ledger.is_used_since([digest_of(b"other"), A[0].digest])
    assert (await only(ledger)).used_us == recorded_us
    await ledger.write_uses()
    assert not ledger.is_used_since([A[0].digest])
    assert (await only(ledger)).used_us == clock.at_us


async def test_a_use_counts_until_the_disk_has_taken_it(ledger, catalog):
    await catalog.apply([record(A)])
    await catalog.resolve(HERE, A[0].digest)
    writing = asyncio.create_task(ledger.write_uses())
    await asyncio.sleep(0)
    assert ledger.is_used_since([A[0].digest])
    await writing
    assert not ledger.is_used_since([A[0].digest])


async def test_a_use_that_could_not_be_written_is_not_forgotten(database, ledger, catalog):
    await catalog.apply([record(A)])
    ledger.note_use(A[0].digest)
    await database.close()
    with pytest.raises(LedgerError):
        await ledger.write_uses()
    assert ledger.is_used_since([A[0].digest])


async def test_what_was_taken_names_nothing_any_more(ledger, catalog, events, sql):
    await catalog.apply([record(A), MoveTags(HERE, ("v1",), A[0].digest)])
    other = manifest("b")
    await catalog.apply([record(other)])
    kit = next(kit for kit in await ledger.kits() if kit.digest == A[0].digest)
    needless = await ledger.evict([kit], [A[0].digest, LAYER.digest], "there was no room")
    # The layer is the other kit's, too.
    assert needless == {A[0].digest}
    for table in ("tags", "repository_manifests", "manifests", "manifest_children"):
        assert sql(f"SELECT count(*) FROM {table} WHERE instr(?, digest)", A[0].digest) == [(0,)]
    (event,) = [each for each in await events.read(0, 50) if each.type == "kit.evicted"]
    assert event.data["tags"] == ["team/model:v1"]
    assert await ledger.unreferenced([LAYER.digest, A[0].digest]) == {A[0].digest}


@pytest.mark.parametrize("change", ["tag", "pin", "need", "use", "index", "referrer", "again"])
async def test_nothing_is_taken_that_is_not_as_it_was(ledger, catalog, jobs, wish, clock, change):
    await catalog.apply([record(A)])
    kit = await only(ledger)
    clock.advance(1)
    match change:
        case "tag":
            await catalog.apply([MoveTags(HERE, ("v1",), kit.digest)])
        case "pin":
            await ledger.pin(Reference(HERE, digest=kit.digest))
        case "need":
            await jobs.enqueue(wish(needs=kit.digest))
        case "use":
            await catalog.resolve(HERE, kit.digest)
            await ledger.write_uses()
        case "index":
            await catalog.apply([record(manifest("index", of=kit.target))])
        case "referrer":
            await catalog.apply([record(manifest("signature", subject=kit.target))])
        case _:
            await catalog.apply([record(A)])
    assert await ledger.evict([kit], [kit.digest], "there was no room") is None
    assert kit.digest in {each.digest for each in await ledger.kits()}


async def test_of_a_bundle_all_or_nothing_goes(ledger, catalog):
    index = manifest("index", of=A[0])
    await catalog.apply([record(A), record(index)])
    kits = await ledger.kits()
    (part,) = [kit for kit in kits if kit.digest == A[0].digest]
    assert await ledger.evict([part], [], "") is None
    await catalog.apply([MoveTags(HERE, ("v1",), A[0].digest)])
    assert await ledger.evict(kits, [], "") is None
    assert len(await ledger.kits()) == 2
    assert await ledger.evict(await ledger.kits(), [], "") == frozenset()
    assert await ledger.kits() == []


async def test_a_part_that_is_removed_by_hand_stays_for_its_index(ledger, catalog):
    """The index would not be complete without what is below the part."""
    await catalog.apply([record(A), record(manifest("index", of=A[0]))])
    await catalog.remove(HERE, A[0].digest)
    (part,) = [kit for kit in await ledger.kits() if kit.digest == A[0].digest]
    assert (part.repositories, part.children) == ((), (CONFIG, LAYER))
    assert await ledger.unreferenced([LAYER.digest]) == frozenset()


async def test_a_pin_belongs_to_the_kit_and_not_to_the_tag(ledger, catalog):
    other = manifest("b")
    reference = parse_reference("team/model:latest")
    await catalog.apply([record(A), record(other), MoveTags(HERE, ("latest",), A[0].digest)])
    assert await ledger.pin(reference) == A[0].digest
    await catalog.apply([MoveTags(HERE, ("latest",), other[0].digest)])
    pinned = {kit.digest: kit.pinned_as for kit in await ledger.kits()}
    assert pinned == {A[0].digest: "team/model:latest", other[0].digest: None}
    # By the name that it was pinned with, wherever that has moved.
    assert await ledger.unpin(reference) == A[0].digest
    for attempt in (ledger.unpin(reference), ledger.pin(parse_reference("team/model:none"))):
        with pytest.raises(ContentNotFoundError):
            await attempt


async def test_of_two_pins_by_one_name_that_of_the_kit_goes_first_which_it_names(
    ledger, catalog, clock
):
    kits = [manifest(name) for name in "abc"]
    reference = parse_reference("team/model:latest")
    await catalog.apply([record(kit) for kit in kits])
    for kit in kits:
        clock.advance(1)
        await catalog.apply([MoveTags(HERE, ("latest",), kit[0].digest)])
        await ledger.pin(reference)
    a, b, c = (kit[0].digest for kit in kits)
    assert [await ledger.unpin(reference) for _ in kits] == [c, b, a]


async def test_a_location_is_noted_once_and_forgotten(ledger, catalog, sql, clock):
    await catalog.apply([record(A), RecordLocation(A[0].digest, THERE)])
    clock.advance(1)
    await catalog.apply([RecordLocation(A[0].digest, THERE)])
    assert sql("SELECT confirmed_us FROM locations") == [(clock.at_us,)]
    await ledger.forget_location(A[0].digest, THERE)
    assert (await only(ledger)).locations == ()
    # What was removed while it travelled is no error.
    await catalog.apply([RecordLocation(digest_of(b"gone"), THERE)])


async def test_the_plan_of_a_look_at_all_kits_uses_indexes(database, ledger, catalog):
    """One look at each row of the catalogue, and none at all jobs."""
    with closing(sqlite3.connect(database.path)) as connection:
        rows = connection.execute(f"EXPLAIN QUERY PLAN {_KITS} WHERE m.digest > ''").fetchall()
    scans = [row[3] for row in rows if row[3].startswith("SCAN")]
    assert [scan for scan in scans if "jobs" in scan] == []
