"""What is pushed into kitd's own registry is followed by its mirrors, in the same transaction."""

import json
from dataclasses import replace

import pytest

from kitd.clock import SystemClock
from kitd.content.store import CollectedError, ContentNotFoundError
from kitd.daemon.own_registry import Onward, OwnRegistry
from kitd.ledger import life
from kitd.ledger.catalog import Catalog
from kitd.ledger.database import Database
from kitd.ledger.job_ledger import JobFilter, JobLedger
from kitd.ledger.shelf import Shelf
from kitd.oci.descriptor import describe
from kitd.oci.digest import digest_of
from kitd.oci.manifest import parse_manifest
from kitd.oci.media_type import OCI_EMPTY, OCI_INDEX, OCI_MANIFEST
from kitd.oci.reference import LOCAL, Reference, Repository, parse_repository
from kitd.queue.fact import KitPacked, RepositoryChanged
from kitd.queue.job import JobRequest, Lane
from kitd.webhooks.delivery import Action, Change

MODEL = Repository(LOCAL, "team/model")
NAMES = ("127.0.0.1:5055", "localhost:5055")


async def no_kit(_manifest):
    """Summarise manifests as those of anything but kits."""


def manifest(mark, subject=None):
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_EMPTY, "digest": digest_of(b"{}"), "size": 2},
        "layers": [],
        "annotations": {"mark": mark},
    }
    if subject is not None:
        named = {"mediaType": OCI_MANIFEST, "digest": subject.digest, "size": subject.size}
        document["subject"] = named
    content = json.dumps(document).encode()
    return describe(OCI_MANIFEST, content), parse_manifest(content)


KIT, KIT_READ = manifest("a")


class World:
    """A registry, and a mirror that follows what becomes of some of its repositories."""

    def __init__(self, database, epoch):
        clock = SystemClock()
        self.database = database
        self.jobs = JobLedger(database, clock, epoch)
        self.catalog = Catalog(database, clock, no_kit)
        onward = Onward(self.jobs, self.follow)
        onward.names = NAMES
        self.onward = onward
        self.registry = OwnRegistry(self.catalog, onward)
        self.shelf = Shelf(database, clock, onward.after)
        self.told = []

    async def follow(self, registry, changes):
        self.told.append((registry, *changes))
        wishes = [f"{registry}/{change.repository}:{change.tag}" for change in changes]
        return [
            JobRequest(
                kind="mirror", lane=Lane.MIRROR, key=wish, lock=wish, args=b"{}", max_attempts=1
            )
            for wish in wishes
            if "other" not in wish
        ]

    def told_once(self, *changes):
        """Whether that was told by each name of the registry, and nothing else."""
        told, self.told = self.told, []
        return told == [(name, *changes) for name in NAMES]

    async def asked(self):
        return {job.key for job in await self.jobs.list(JobFilter())}


@pytest.fixture
async def world(tmp_path):
    async with Database(tmp_path / "ledger.sqlite3") as database:
        begun = await life.begin(database, SystemClock(), pid=1, version="1")
        yield World(database, begun.epoch)


async def test_each_tag_that_is_pushed_is_followed_by_all_names_of_the_registry(world):
    await world.registry.commit(MODEL, KIT, ("v1", "latest"), KIT_READ)
    assert world.told_once(Change("team/model", "v1"), Change("team/model", "latest"))
    assert await world.asked() == {
        f"{name}/team/model:{tag}" for name in NAMES for tag in ("v1", "latest")
    }
    assert (await world.registry.resolve(MODEL, "v1")).digest == KIT.digest


async def test_a_push_of_what_was_agreed_on_is_followed_all_the_same(world):
    """Until it is there something else may be agreed on, and the last push would be lost."""
    await world.registry.commit(MODEL, KIT, ("v1",), KIT_READ)
    assert {change.digest for _, change in world.told} == {None}


async def test_the_repository_of_another_registry_has_its_name_in_this_one(world):
    repository = parse_repository("registry.example.com:5000/team/x")
    await world.registry.commit(repository, KIT, ("v1",), KIT_READ)
    assert world.told_once(Change("registry.example.com_5000/team/x", "v1"))


async def test_what_nobody_follows_is_there_all_the_same(world):
    await world.registry.commit(Repository(LOCAL, "other"), KIT, ("v1",), KIT_READ)
    assert await world.asked() == set()
    assert await world.catalog.resolve(Repository(LOCAL, "other"), "v1") == KIT


async def test_of_what_has_no_tag_only_what_refers_to_something_is_followed(world):
    signature, read = manifest("signature", KIT)
    await world.registry.commit(MODEL, KIT, (), KIT_READ)
    assert world.told == []
    await world.registry.commit(MODEL, signature, (), read)
    by_digest = Change("team/model", digest=signature.digest)
    assert world.told_once(by_digest)
    await world.registry.commit(MODEL, signature, ("signed",), read)
    assert world.told_once(Change("team/model", "signed"), by_digest)
    (listed,) = await world.registry.referrers(MODEL, KIT.digest)
    assert listed.digest == signature.digest


async def test_a_tag_and_a_manifest_that_go_are_followed(world):
    await world.catalog.commit(MODEL, KIT, ("v1", "latest"), KIT_READ)
    await world.registry.untag(MODEL, "v1")
    assert world.told_once(Change("team/model", "v1", action=Action.DELETE))
    assert await world.registry.tags(MODEL, after=None, limit=10) == ["latest"]
    await world.registry.remove(MODEL, KIT.digest)
    # Which tags go with it is found by a look at all of the repository.
    assert world.told_once(Change("team/model", action=Action.DELETE))
    assert len(await world.asked()) == 2 * len(NAMES)


async def test_what_people_do_to_names_is_followed(world):
    await world.catalog.commit(MODEL, KIT, ("v1",), KIT_READ)
    copy = Repository(LOCAL, "team/copy")
    await world.shelf.tag(Reference(MODEL, tag="v1"), copy, ("a", "b"))
    assert world.told_once(Change("team/copy", "a"), Change("team/copy", "b"))
    assert f"{NAMES[0]}/team/copy:b" in await world.asked()
    await world.shelf.remove([Reference(copy, tag="a")], force=False)
    assert world.told_once(Change("team/copy", "a", action=Action.DELETE))
    await world.shelf.remove([Reference(copy, tag="b")], force=True)
    assert world.told_once(Change("team/copy", action=Action.DELETE))
    await world.registry.untag(MODEL, "v1")
    world.told.clear()
    asked = await world.asked()
    await world.shelf.remove_all(force=False)
    assert set(world.told) == {(n, Change("team/model", action=Action.DELETE)) for n in NAMES}
    assert await world.asked() == asked | {f"{name}/team/model:None" for name in NAMES}


async def test_names_that_do_not_change_ask_for_nothing(world):
    await world.catalog.commit(MODEL, KIT, ("v1",), KIT_READ)
    await world.shelf.remove_all(force=False)
    for attempt in (
        world.shelf.tag(Reference(MODEL, tag="absent"), MODEL, ("v2",)),
        world.shelf.remove([Reference(MODEL, tag="absent")], force=False),
    ):
        with pytest.raises(ContentNotFoundError):
            await attempt
    assert await world.asked() == set()


async def test_what_is_packed_here_is_in_the_registry(world):
    fact = KitPacked(
        project=None, repository=MODEL, target=KIT, tags=("v1",), push=False, priority=0
    )
    assert world.onward.implied(fact) == [
        RepositoryChanged(repository=Repository(name, "team/model"), tags=("v1",)) for name in NAMES
    ]
    other = parse_repository("registry.example.com/team/x")
    assert world.onward.implied(replace(fact, repository=other)) == ()
    assert world.onward.implied(replace(fact, tags=())) == ()


async def test_what_is_refused_asks_for_nothing(world):
    entry = {"mediaType": OCI_MANIFEST, "digest": KIT.digest, "size": KIT.size}
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    content = json.dumps(document).encode()
    index, read = describe(OCI_INDEX, content), parse_manifest(content)
    with pytest.raises(CollectedError):
        await world.registry.commit(MODEL, index, ("v1",), read)
    with pytest.raises(ContentNotFoundError):
        await world.registry.untag(MODEL, "v1")
    with pytest.raises(ContentNotFoundError):
        await world.registry.remove(MODEL, KIT.digest)
    assert await world.asked() == set()


async def test_what_cannot_be_followed_is_not_there_either(world):
    """It is one transaction: a crash leaves no tag that nobody hears of."""
    await world.catalog.commit(MODEL, KIT, ("old",), KIT_READ)
    refuse = "BEGIN SELECT RAISE(ABORT, 'no more jobs'); END"
    await world.database.write(
        lambda connection: connection.execute(f"CREATE TRIGGER t BEFORE INSERT ON jobs {refuse}")
    )
    for attempt in (
        world.registry.commit(MODEL, KIT, ("v1",), KIT_READ),
        world.registry.untag(MODEL, "old"),
        world.registry.remove(MODEL, KIT.digest),
        world.shelf.tag(Reference(MODEL, tag="old"), MODEL, ("new",)),
        world.shelf.remove([Reference(MODEL, tag="old")], force=False),
        world.shelf.remove_all(force=True),
    ):
        with pytest.raises(Exception, match="no more jobs"):
            await attempt
    assert await world.registry.tags(MODEL, after=None, limit=10) == ["old"]
