"""Names in the cache that people give and take away."""

import asyncio

import pytest

from kitd.content.store import ContentNotFoundError
from kitd.ledger.cache_ledger import CacheLedger
from kitd.ledger.catalog import Catalog
from kitd.ledger.shelf import KitNeededError, Removal, Shelf
from kitd.oci.descriptor import describe
from kitd.oci.manifest import Manifest
from kitd.oci.media_type import OCI_INDEX, OCI_MANIFEST
from kitd.oci.reference import Reference, Repository
from kitd.queue.effect import KitSummary, MoveTags, NoteParent, RecordElsewhere, RecordManifest

HERE = Repository("localhost", "team/model")
THERE = Repository("registry.example.com", "team/model")
SHARED = describe("application/vnd.example.weights", b"s" * 1000)


def kit(mark, *layers, subject=None):
    """Return a manifest's descriptor (of 10 bytes) and the manifest."""
    target = describe(OCI_MANIFEST, f"manifest-{mark}".encode())
    config = describe("application/vnd.example.config", f"config-{mark}".encode())
    return target, Manifest(
        media_type=OCI_MANIFEST,
        artifact_type=None,
        config=config,
        layers=tuple(layers),
        manifests=(),
        annotations={},
        subject=subject,
    )


def index(*listed):
    """Return an index that lists manifests."""
    target = describe(OCI_INDEX, b"an index")
    return target, Manifest(
        media_type=OCI_INDEX,
        artifact_type=None,
        config=None,
        layers=(),
        manifests=listed,
        annotations={},
        subject=None,
    )


def layer(mark, size):
    return describe("application/vnd.example.layer", mark.encode() * size)


A = kit("a", SHARED, layer("a", 100))
B = kit("b", SHARED, layer("b", 200))


async def nothing(_manifest):
    return None


@pytest.fixture
def catalog(database, clock):
    return Catalog(database, clock, nothing)


@pytest.fixture
def shelf(database, clock):
    async def follow(_alterations):
        return lambda _connection: None

    return Shelf(database, clock, follow)


@pytest.fixture
def names(catalog):
    """Tell every name there is."""

    async def names():
        return {
            f"{Reference(found.repository)}:{','.join(found.tags)}": found.digest
            for found in await catalog.kits()
        }

    return names


@pytest.fixture
async def stocked(catalog):
    """A with two tags, B with one, in one repository."""
    for (target, manifest), tags in ((A, ("v1", "stable")), (B, ("v2",))):
        await catalog.apply(
            [RecordManifest(HERE, target, manifest), MoveTags(HERE, tags, target.digest)]
        )


def tagged(tag, repository=HERE):
    return Reference(repository, tag=tag)


async def test_a_kit_gets_further_names_here_and_elsewhere(stocked, shelf, names, events):
    assert await shelf.tag(tagged("v1"), HERE, ("v2", "new")) == A[0].digest
    await shelf.tag(Reference(HERE, digest=B[0].digest), THERE, ("v9",))

    assert await names() == {
        "registry.example.com/team/model:v9": B[0].digest,
        "team/model:new,stable,v1,v2": A[0].digest,
        "team/model:": B[0].digest,
    }
    told = [event.subject for event in await events.read(0, 100) if event.type == "tag.moved"]
    assert told[-3:] == [
        "tag:team/model:v2",
        "tag:team/model:new",
        "tag:registry.example.com/team/model:v9",
    ]
    with pytest.raises(ContentNotFoundError, match="team/model:absent"):
        await shelf.tag(tagged("absent"), HERE, ("x",))


async def test_what_belongs_to_a_kit_goes_with_it_to_another_repository(shelf, catalog, names):
    """The manifests of an index, and the signatures of these."""
    signature = kit("s", subject=A[0])
    listing = index(A[0])
    for target, manifest in (A, B, signature, listing):
        await catalog.apply([RecordManifest(HERE, target, manifest)])
    await shelf.tag(Reference(HERE, digest=listing[0].digest), THERE, ("v1",))

    there = {each.digest for each in await catalog.kits(THERE)}
    assert there == {listing[0].digest, A[0].digest, signature[0].digest}


async def test_a_tag_goes_alone_and_the_last_one_takes_the_kit(stocked, shelf, names):
    removed = await shelf.remove([tagged("stable")], force=False)
    assert [str(gone.reference) for gone in removed.untagged] == ["team/model:stable"]
    assert (removed.removed, removed.collectable_bytes) == ((), 0)

    removed = await shelf.remove([tagged("v1")], force=False)
    assert [gone.digest for gone in removed.removed] == [A[0].digest]
    # Its manifest, its config and the layer that it has for itself.
    assert removed.collectable_bytes == 10 + 8 + 100
    assert await names() == {"team/model:v2": B[0].digest}
    removed = await shelf.remove([Reference(HERE, digest=B[0].digest)], force=False)
    assert removed.collectable_bytes == 10 + 8 + 200 + 1000


async def test_force_takes_a_kit_with_all_its_tags(stocked, shelf, names):
    removed = await shelf.remove([tagged("v1"), tagged("stable")], force=True)
    assert len(removed.removed) == 1
    assert await names() == {"team/model:v2": B[0].digest}


async def test_all_names_of_a_call_go_or_none(stocked, shelf, names):
    before = await names()
    with pytest.raises(ContentNotFoundError, match="absent"):
        await shelf.remove([tagged("v1"), tagged("absent")], force=False)
    assert await names() == before


async def test_a_pinned_kit_needs_force_unless_another_repository_has_it(
    stocked, shelf, database, clock, names
):
    ledger = CacheLedger(database, clock)
    await ledger.pin(tagged("v2"))
    with pytest.raises(KitNeededError, match="pinned as team/model:v2"):
        await shelf.remove([tagged("v2")], force=False)
    await shelf.tag(tagged("v2"), THERE, ("v2",))
    removed = await shelf.remove([tagged("v2", THERE)], force=False)
    assert (len(removed.removed), removed.collectable_bytes) == (1, 0)
    await shelf.remove([tagged("v2")], force=True)
    assert list(await names()) == ["team/model:stable,v1"]


async def test_the_name_that_a_kit_is_pinned_by_goes_with_force_only(
    stocked, shelf, database, clock, names
):
    """Whatever other names it has, here or elsewhere: who pinned it would look for it by that."""
    ledger = CacheLedger(database, clock)
    await ledger.pin(tagged("v1"))
    await ledger.pin(tagged("v2"))
    await shelf.tag(tagged("v2"), THERE, ("new",))
    for name in ("v1", "v2"):
        with pytest.raises(KitNeededError, match=f"is pinned as team/model:{name}$") as caught:
            await shelf.remove([tagged(name)], force=False)
        assert f"kitctl cache unpin team/model:{name}," in caught.value.hint
    await shelf.remove([tagged("stable")], force=False)

    await shelf.remove([tagged("v2")], force=True)
    with pytest.raises(KitNeededError, match="not called team/model:v2 any more") as caught:
        await shelf.remove([tagged("new", THERE)], force=False)
    assert "kitctl cache unpin registry.example.com/team/model:new," in caught.value.hint
    await ledger.unpin(tagged("new", THERE))
    await shelf.remove([tagged("new", THERE)], force=False)
    assert await names() == {"team/model:v1": A[0].digest}


async def test_a_kit_that_a_job_needs_stays(stocked, shelf, jobs, wish):
    job = await jobs.enqueue(wish(needs=A[0].digest))
    with pytest.raises(KitNeededError, match=f"needed by job {job.id}"):
        await shelf.remove([Reference(HERE, digest=A[0].digest)], force=False)
    # A tag that is not the last one takes nothing away.
    await shelf.remove([tagged("stable")], force=False)


async def test_layers_that_are_elsewhere_make_no_room(catalog, shelf):
    target, manifest = A
    blobs = (manifest.layers[1].digest,)
    await catalog.apply(
        [RecordManifest(HERE, target, manifest), RecordElsewhere(target.digest, blobs, THERE)]
    )
    removed = await shelf.remove([Reference(HERE, digest=target.digest)], force=False)
    assert removed.collectable_bytes == 10 + 8 + 1000


async def test_all_are_those_that_nothing_names(stocked, catalog, shelf, names, sql):
    """Not what an index lists, nor the signature of a kit, nor the last kit of a project."""
    signed, orphaned = kit("s", subject=A[0]), kit("o", layer("o", 50))
    signature_of_orphan = kit("z", subject=orphaned[0])
    listed, last = kit("l"), kit("p")
    listing = index(listed[0])
    for target, manifest in (
        signed, orphaned, signature_of_orphan, listed, last, listing
    ):  # fmt: skip
        await catalog.apply([RecordManifest(HERE, target, manifest)])
    await catalog.apply([MoveTags(HERE, ("index",), listing[0].digest)])
    sql(
        "INSERT INTO projects (name, source, definition, defined_us, digest)"
        " VALUES ('demo', 'added', '{}', 0, ?)",
        last[0].digest,
    )
    removed = await shelf.remove_all(force=False)

    went = {gone.digest for gone in removed.removed}
    assert went == {orphaned[0].digest, signature_of_orphan[0].digest}
    assert removed.collectable_bytes >= 50
    assert [kept.why for kept in removed.kept] == ["the last kit of project demo"]
    assert len(await catalog.kits()) == 6

    await shelf.remove_all(force=True)
    assert await names() == {}


async def test_what_is_pinned_stays_whatever_is_removed(stocked, shelf, database, clock, names):
    await CacheLedger(database, clock).pin(tagged("v2"))
    removed = await shelf.remove_all(force=True)
    assert [kept.why for kept in removed.kept] == ["pinned as team/model:v2"]
    assert list(await names()) == ["team/model:v2"]


async def test_more_than_a_batch_goes(catalog, shelf, names, monkeypatch):
    monkeypatch.setattr("kitd.ledger.shelf.BATCH_KITS", 2)
    monkeypatch.setattr("kitd.ledger.shelf.MAX_TOLD", 3)
    for number in range(7):
        await catalog.apply([RecordManifest(HERE, *kit(str(number)))])
    removed = await shelf.remove_all(force=False)
    assert (len(removed.removed), removed.omitted) == (3, 4)
    assert await names() == {}


async def test_a_kit_that_is_tagged_while_all_others_go_keeps_its_name(catalog, shelf, names):
    """Whoever was told that his kit has a name finds it by that name."""
    for number in range(30):
        target, manifest = kit(str(number), layer(str(number), 3))
        await catalog.apply([RecordManifest(HERE, target, manifest)])

        async def tag(turns, target=target, name=f"v{number}"):
            for _ in range(turns):
                await asyncio.sleep(0)
            try:
                await shelf.tag(Reference(HERE, digest=target.digest), HERE, (name,))
            except ContentNotFoundError:
                return False
            return True

        _, was_tagged = await asyncio.gather(shelf.remove_all(force=False), tag(number % 6))
        assert (f"team/model:v{number}" in await names()) is was_tagged
        await shelf.remove_all(force=True)


@pytest.fixture
def built_on_a(catalog):
    """Record B as a kit that builds on A, by the identifier that is given."""

    async def record(identifier):
        by_digest = ":" in identifier
        parent = Reference(
            HERE,
            tag=None if by_digest else identifier,
            digest=A[0].digest if by_digest else None,
        )
        summary = KitSummary(parent=parent)
        await catalog.apply(
            [
                RecordManifest(HERE, *A),
                RecordManifest(THERE, *B, summary),
                MoveTags(THERE, ("child",), B[0].digest),
            ]
        )

    return record


async def test_what_a_kit_builds_on_by_digest_has_a_purpose(shelf, built_on_a, names):
    """Until that kit is gone as well. It may be the only copy, and has no tag any more."""
    await built_on_a(A[0].digest)
    assert await shelf.remove_all(force=False) == Removal()
    with pytest.raises(KitNeededError, match=r"what registry.example.com/team/model:child builds"):
        await shelf.remove([Reference(HERE, digest=A[0].digest)], force=False)
    assert len(await names()) == 2

    await shelf.remove([tagged("child", THERE)], force=False)
    removed = await shelf.remove_all(force=False)
    assert [gone.digest for gone in removed.removed] == [A[0].digest]


async def test_what_a_kit_builds_on_by_tag_goes_with_force(shelf, built_on_a, catalog, names):
    """Another name of it may go: the kit is not lost."""
    await built_on_a("v1")
    await catalog.apply([MoveTags(HERE, ("v1", "old"), A[0].digest)])
    await shelf.remove([tagged("old")], force=False)
    with pytest.raises(KitNeededError, match="builds on"):
        await shelf.remove([tagged("v1")], force=False)
    await shelf.remove([tagged("v1")], force=True)
    assert list(await names()) == ["registry.example.com/team/model:child"]


async def test_nothing_goes_until_it_is_known_what_kits_build_on(shelf, catalog, names, sql):
    await catalog.apply([RecordManifest(HERE, *A), RecordManifest(THERE, *B)])
    sql("UPDATE manifests SET parent_noted = 0 WHERE digest = ?", B[0].digest)
    kept = (await shelf.remove_all(force=False)).kept
    assert {each.reference.digest for each in kept} == {A[0].digest, B[0].digest}
    assert "are still looked at" in kept[0].why
    named = Reference(HERE, digest=A[0].digest)
    with pytest.raises(KitNeededError, match="are still looked at"):
        await shelf.remove([named], force=False)
    await shelf.remove([named], force=True)
    await catalog.apply([NoteParent(B[0].digest, None)])
    assert len((await shelf.remove_all(force=False)).removed) == 1
    assert await names() == {}
