"""What the ledger's catalogue does beyond the contract of all catalogues (tests/contract)."""

import json

import pytest

from kitd.content.store import CollectedError, ContentNotFoundError
from kitd.ledger.catalog import Catalog, CataloguedKit, ReferencedBytes
from kitd.ledger.project_ledger import ProjectLedger
from kitd.oci.descriptor import Descriptor, describe
from kitd.oci.digest import digest_of
from kitd.oci.manifest import parse_manifest
from kitd.oci.media_type import OCI_EMPTY, OCI_INDEX, OCI_MANIFEST
from kitd.oci.reference import Reference, Repository
from kitd.queue.effect import (
    Emit,
    FollowTags,
    KitSummary,
    MoveTags,
    RecordElsewhere,
    RecordLocation,
    RecordManifest,
    RecordPack,
)
from kitd.queue.job import Lane

HERE = Repository("localhost", "team/model")
THERE = Repository("registry.example.com", "team/model")
OTHER = Repository("other.example.com", "ml/model")
CONFIG = describe(OCI_EMPTY, b"{}")
WEIGHTS = describe("application/vnd.example.weights", b"w" * 100)


def image(mark, *layers, subject=None):
    """Return the descriptor and the manifest of an image that `mark` makes unlike others."""

    def plain(descriptor):
        return {
            "mediaType": descriptor.media_type,
            "digest": descriptor.digest,
            "size": descriptor.size,
        }

    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": plain(CONFIG),
        "layers": [plain(layer) for layer in layers],
        "annotations": {"mark": mark},
    }
    if subject is not None:
        document["subject"] = plain(subject)
    content = json.dumps(document).encode()
    return describe(OCI_MANIFEST, content), parse_manifest(content)


A, B = image("a", WEIGHTS), image("b", WEIGHTS)


def record(of, repository=HERE, kit=None):
    return RecordManifest(repository, *of, kit)


@pytest.fixture
def catalog(database, clock):
    async def summarize(manifest):
        """A kit is what has layers."""
        return KitSummary("model", "ada") if manifest.layers else None

    return Catalog(database, clock, summarize)


@pytest.fixture
def told(sql):
    def told():
        rows = sql("SELECT type, subject, data FROM events ORDER BY seq")
        return [(kind, subject, json.loads(data)) for kind, subject, data in rows]

    return told


async def test_a_tag_names_only_what_its_repository_has(catalog, sql):
    """The file itself holds it: no dangling tag, no half a commit."""
    for effect in (
        MoveTags(HERE, ("latest",), digest_of(b"nothing")),
        MoveTags(HERE, ("latest",), A[0].digest),
    ):
        with pytest.raises(CollectedError):
            await catalog.apply((record(A, THERE), effect))
    assert sql("SELECT count(*) FROM manifests") == [(0,)]
    assert sql("SELECT count(*) FROM events") == [(0,)]


async def test_moves_of_tags_are_told_and_standing_still_is_not(catalog, told):
    await catalog.commit(HERE, A[0], ("v1", "latest"), A[1])
    await catalog.commit(HERE, A[0], ("latest",), A[1])
    await catalog.commit(HERE, B[0], ("latest",), B[1])
    assert told() == [
        ("tag.moved", "tag:team/model:v1", {"from": None, "to": A[0].digest}),
        ("tag.moved", "tag:team/model:latest", {"from": None, "to": A[0].digest}),
        ("tag.moved", "tag:team/model:latest", {"from": A[0].digest, "to": B[0].digest}),
    ]


async def test_removals_are_told(catalog, told):
    await catalog.commit(THERE, A[0], ("v1",), A[1])
    await catalog.untag(THERE, "v1")
    await catalog.remove(THERE, A[0].digest)
    assert told()[1:] == [
        ("tag.removed", f"tag:{THERE}:v1", {"from": A[0].digest}),
        ("kit.removed", f"kit:{A[0].digest}", {"repository": str(THERE)}),
    ]


async def test_what_is_not_there_is_not_removed_and_not_told(catalog, told):
    for attempt in (
        catalog.untag(HERE, "v1"),
        catalog.remove(HERE, A[0].digest),
        catalog.manifest(A[0].digest),
    ):
        with pytest.raises(ContentNotFoundError):
            await attempt
    assert told() == []


async def test_a_manifest_is_forgotten_with_its_last_repository(catalog, sql):
    for repository in (HERE, THERE):
        await catalog.commit(repository, A[0], (), A[1])
    await catalog.remove(HERE, A[0].digest)
    assert await catalog.manifest(A[0].digest) == A[0]
    await catalog.remove(THERE, A[0].digest)
    with pytest.raises(ContentNotFoundError):
        await catalog.manifest(A[0].digest)
    for table in ("manifests", "manifest_children", "repository_manifests", "tags"):
        assert sql(f"SELECT count(*) FROM {table}") == [(0,)]


async def test_the_newest_kit_with_a_content_is_found_in_its_repository_only(catalog, clock):
    kit = KitSummary("m", "a", "key")
    await catalog.apply((record(A, kit=kit),))
    clock.advance(1)
    await catalog.apply((record(B, kit=kit),))
    assert await catalog.with_content(HERE, "key") == B[0]
    assert await catalog.with_content(THERE, "key") is None
    assert await catalog.with_content(HERE, "another key") is None


async def test_what_a_pack_knows_outlives_a_pull_of_the_same_kit(catalog):
    """A pull cannot tell the content key; unlearning it would make equal content a new kit."""
    await catalog.apply((record(A, kit=KitSummary("m", "a", "key")),))
    await catalog.apply((record(A, kit=KitSummary("m", "b")),))
    await catalog.commit(HERE, A[0], ("v1",), A[1])
    assert await catalog.with_content(HERE, "key") == A[0]
    (kit,) = await catalog.kits()
    assert (kit.model_name, kit.author) == ("model", "ada")


async def test_recording_again_changes_nothing(catalog, sql, clock):
    await catalog.apply((record(A),))
    children = sql("SELECT * FROM manifest_children")
    (first,) = sql("SELECT digest, recorded_us, used_us FROM manifests")
    clock.advance(1)
    await catalog.apply((record(A),))
    (second,) = sql("SELECT digest, recorded_us, used_us FROM manifests")
    assert sql("SELECT * FROM manifest_children") == children
    # Only that it is wanted again.
    assert (first[:2], first[2] + 1_000_000) == (second[:2], second[2])


async def test_lists_show_names_sizes_and_what_the_summary_says(catalog, clock):
    await catalog.commit(THERE, A[0], ("v1",), A[1])
    clock.advance(1)
    bare = image("c")
    await catalog.commit(HERE, A[0], ("b", "a"), A[1])
    await catalog.commit(HERE, bare[0], (), bare[1])
    shown = [
        CataloguedKit(HERE, bare[0].digest, (), "", "", 0),
        CataloguedKit(HERE, A[0].digest, ("a", "b"), "model", "ada", 100),
        CataloguedKit(THERE, A[0].digest, ("v1",), "model", "ada", 100),
    ]
    assert list(await catalog.kits()) == shown
    assert list(await catalog.kits(HERE)) == shown[:2]
    assert list(await catalog.kits(Repository("localhost", "other"))) == []


async def test_every_tag_is_in_the_index(catalog):
    await catalog.commit(THERE, A[0], ("v1",), A[1])
    await catalog.commit(HERE, B[0], ("latest", "b"), B[1])
    assert list(await catalog.tagged()) == [
        (Reference(HERE, tag="b"), B[0]),
        (Reference(HERE, tag="latest"), B[0]),
        (Reference(THERE, tag="v1"), A[0]),
    ]


async def test_a_blob_has_the_names_of_what_it_is_part_of(catalog):
    await catalog.commit(HERE, A[0], ("v1",), A[1])
    await catalog.commit(THERE, B[0], (), B[1])
    named, unnamed = Reference(HERE, tag="v1"), Reference(THERE, digest=B[0].digest)
    assert list(await catalog.names_of(A[0].digest)) == [named]
    assert list(await catalog.names_of(B[0].digest)) == [unnamed]
    assert list(await catalog.names_of(WEIGHTS.digest)) == [named, unnamed]
    assert list(await catalog.names_of(digest_of(b"nothing"))) == []


async def test_shared_blobs_are_counted_once_and_for_each(catalog):
    assert await catalog.referenced_bytes() == ReferencedBytes(0, 0)
    await catalog.commit(HERE, A[0], (), A[1])
    await catalog.commit(HERE, B[0], (), B[1])
    manifests = A[0].size + B[0].size
    shared = CONFIG.size + WEIGHTS.size
    assert await catalog.referenced_bytes() == ReferencedBytes(
        logical_bytes=manifests + 2 * shared, distinct_bytes=manifests + shared
    )


async def test_where_a_blob_is_goes_with_the_manifests_that_need_it(catalog, sql):
    """By what a manifest was recorded with, and by where a manifest that needs it went."""
    target, blob = A[0].digest, WEIGHTS.digest
    await catalog.apply([record(A), RecordElsewhere(target, (blob,), THERE)])
    assert await catalog.places(blob) == [THERE]
    assert await catalog.places(CONFIG.digest) == []
    assert await catalog.partial() == [(target, blob)]
    # Said twice, it is no more true; and a pushed manifest proves all of its blobs.
    await catalog.apply([RecordElsewhere(target, (blob,), THERE), RecordLocation(target, OTHER)])
    assert set(await catalog.places(blob)) == {THERE, OTHER}
    assert await catalog.places(CONFIG.digest) == [OTHER]
    await catalog.remove(HERE, target)
    assert await catalog.places(blob) == []
    assert sql("SELECT count(*) FROM elsewhere") == [(0,)]


async def test_what_has_come_since_is_not_elsewhere_any_more(catalog, sql):
    """Whoever records a manifest again says what the cache still was not given."""
    away = RecordElsewhere(A[0].digest, (WEIGHTS.digest,), THERE)
    await catalog.apply([record(A), away])
    await catalog.apply([record(A), away])
    assert sql("SELECT count(*) FROM elsewhere") == [(1,)]
    await catalog.apply([record(A)])
    assert sql("SELECT count(*) FROM elsewhere") == [(0,)]


async def test_nothing_is_elsewhere_for_a_manifest_that_is_gone(catalog, sql):
    await catalog.apply([RecordElsewhere(A[0].digest, (WEIGHTS.digest,), THERE)])
    assert sql("SELECT count(*) FROM elsewhere") == [(0,)]


async def test_an_index_lacks_what_the_manifests_in_it_lack(catalog):
    listed = Descriptor(OCI_MANIFEST, A[0].digest, A[0].size)
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX}
    plain = {"mediaType": listed.media_type, "digest": listed.digest, "size": listed.size}
    content = json.dumps({**document, "manifests": [plain]}).encode()
    index = describe(OCI_INDEX, content)
    away = RecordElsewhere(A[0].digest, (WEIGHTS.digest,), THERE)
    await catalog.apply([record(A), record((index, parse_manifest(content))), away])
    lacking = {(A[0].digest, WEIGHTS.digest), (index.digest, WEIGHTS.digest)}
    assert set(await catalog.partial()) == lacking


async def test_a_repository_without_tags_is_still_one(catalog):
    await catalog.commit(HERE, A[0], (), A[1])
    assert list(await catalog.tags(HERE, after=None, limit=5)) == []


async def test_a_job_s_effects_bear_its_name_in_their_events(catalog, jobs, wish, events):
    await jobs.enqueue(wish(project="p", lane=Lane.PACK))
    (attempt,) = await jobs.claim({Lane.PACK: 1})
    effects = (
        record(A),
        MoveTags(HERE, ("v1",), A[0].digest),
        Emit("kit.packed", "kit:x", {"é": 1}),
    )
    await jobs.succeed(attempt, b"{}", effects, ())
    told = [event for event in await events.of_job(attempt.id) if event.type[:4] != "job."]
    assert [(event.type, event.project) for event in told] == [
        ("tag.moved", "p"),
        ("kit.packed", "p"),
    ]
    assert told[1].data == {"é": 1}


async def test_tags_that_nobody_asked_for_by_name_follow_only_where_they_were(catalog, told):
    await catalog.apply(
        [record(A), record(B), MoveTags(HERE, ("v1",), A[0].digest)],
    )
    for former in (None, B[0].digest):
        await catalog.apply([FollowTags(HERE, ("v1",), B[0].digest, former)])
        assert (await catalog.resolve(HERE, "v1")).digest == A[0].digest
    await catalog.apply([FollowTags(HERE, ("v1",), B[0].digest, A[0].digest)])
    await catalog.apply([FollowTags(HERE, ("v2",), B[0].digest, None)])
    assert [(subject, data["to"]) for _, subject, data in told()[1:]] == [
        ("tag:team/model:v1", B[0].digest),
        ("tag:team/model:v2", B[0].digest),
    ]


async def test_what_is_not_pushed_is_what_a_repository_is_not_known_to_have(catalog, jobs, wish):
    """Or what a job is about to bring there once more, under a name that has moved on."""
    await catalog.apply([record(A), MoveTags(HERE, ("v1",), A[0].digest)])
    await catalog.apply([RecordLocation(A[0].digest, THERE)])
    assert await catalog.unpushed(HERE, "absent") is None
    assert await catalog.unpushed(HERE, "v1") == A[0]
    await catalog.apply([RecordLocation(A[0].digest, HERE)])
    assert await catalog.unpushed(HERE, "v1") is None
    job = await jobs.enqueue(wish(needs=A[0].digest))
    assert await catalog.unpushed(HERE, "v1") == A[0]
    await jobs.request_cancel(job.id)
    assert await catalog.unpushed(HERE, "v1") is None


class TestRecordPack:
    """The last kit of a project."""

    @pytest.fixture
    def projects(self, database, clock):
        return ProjectLedger(database, clock)

    async def pack(self, jobs, wish, *effects):
        await jobs.enqueue(wish(project="p"))
        (attempt,) = await jobs.claim({Lane.PACK: 1})
        await jobs.succeed(attempt, b"{}", effects, ())
        return attempt.id

    async def test_a_pack_is_remembered_with_its_time_and_job(
        self, catalog, projects, jobs, wish, clock
    ):
        await projects.add("p", "{}")
        assert await catalog.packed_version("p") is None
        done = RecordPack("p", "fingerprint", A[0].digest, "key")
        first = await self.pack(jobs, wish, done)
        packed_us = clock.at_us
        clock.advance(5)
        await self.pack(jobs, wish, RecordPack("p", "touched", A[0].digest, "key"))
        record = await projects.project("p")
        assert (record.fingerprint, record.digest, record.version) == (
            "touched",
            A[0].digest,
            "key",
        )
        # A look that found the same kit is no new pack.
        assert (record.packed_us, record.packed_by) == (packed_us, first)
        last = await self.pack(jobs, wish, RecordPack("p", "f", B[0].digest, "other"))
        record = await projects.project("p")
        assert (record.packed_us, record.packed_by) == (clock.at_us, last)
        assert await catalog.packed_version("p") == "other"

    async def test_a_project_that_is_gone_stays_gone(self, catalog, projects, jobs, wish):
        await self.pack(jobs, wish, RecordPack("p", "fingerprint", A[0].digest, "key"))
        assert list(await projects.all()) == []
        assert await catalog.packed_version("p") is None

    async def test_a_job_from_before_a_new_definition_says_nothing_of_the_project(
        self, catalog, projects, jobs, wish, clock
    ):
        await projects.add("p", '{"tags":["old"]}')
        await jobs.enqueue(wish(project="p"))
        clock.advance(1)
        await projects.add("p", '{"tags":["new"]}')
        (attempt,) = await jobs.claim({Lane.PACK: 1})
        done = RecordPack("p", "fingerprint", A[0].digest, "key")
        await jobs.succeed(attempt, b"{}", [done], ())
        assert (await projects.project("p")).fingerprint is None
        await self.pack(jobs, wish, done)
        assert (await projects.project("p")).fingerprint == "fingerprint"

    async def test_a_definition_that_is_given_again_changes_nothing(
        self, catalog, projects, jobs, wish, clock
    ):
        await projects.add("p", "{}")
        await jobs.enqueue(wish(project="p"))
        clock.advance(1)
        await projects.add("p", "{}")
        (attempt,) = await jobs.claim({Lane.PACK: 1})
        await jobs.succeed(attempt, b"{}", [RecordPack("p", "f", A[0].digest, "key")], ())
        assert (await projects.project("p")).fingerprint == "f"
