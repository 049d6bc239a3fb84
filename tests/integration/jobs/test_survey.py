"""Surveys of registries that list their repositories, and of those that do not."""

from contextlib import AsyncExitStack

import pytest

from fault_registry.quirks import Quirks
from fault_registry.server import FaultRegistry
from kitd.clock import SystemClock
from kitd.errors import Disposition
from kitd.jobs import survey
from kitd.jobs.survey import SURVEY, SurveyArgs
from kitd.ledger.database import Database
from kitd.ledger.mirror_ledger import MirrorLedger
from kitd.mirror.edge import Agreed, Edge
from kitd.mirror.order import MirrorWish
from kitd.oci.digest import Digest
from kitd.oci.reference import Repository
from kitd.queue.fact import RepositoriesFound
from kitd.registry.client import RegistryClient
from kitd.registry.errors import RegistryServerError, RegistryUnsupportedError
from kitd.registry.settings import RegistrySettings
from kitd.registry.transport import Surroundings
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent

DIGEST = Digest(f"sha256:{'a' * 64}")


class World:
    """A registry, and what events told of it."""

    def __init__(self, registry, ledger, client, ports, attempt):
        self.registry = registry
        self.ledger = ledger
        self.client = client
        self.ports = ports
        self.attempt = attempt

    def list(self, *names):
        for name in names:
            self.registry.storage.repository(name)

    async def hear(self, *names, rule="wild", host=None):
        """Let a mirror have copied repositories before, whether or not they are listed."""
        for name in names:
            source = Repository(host or self.registry.host, name)
            edge = Edge(source, "v1", Repository("mirror.example.com", name), "v1")
            note = Agreed(edge=edge, digest=DIGEST, with_referrers=False, copied=False)
            await self.ledger.note(rule, [note])

    async def look(self, *globs, **given):
        whole = tuple(f"{self.registry.host}/{glob}" for glob in globs)
        args = SurveyArgs(rule="wild", repositories=whole, **given)
        with self.attempt() as context:
            return await SURVEY.run(args, context, self.ports)

    def names(self, done):
        return [text.removeprefix(f"{self.registry.host}/") for text in done.result.repositories]


@pytest.fixture
async def world(tmp_path, make_ports, attempt):
    async def sleep(_delay_s):
        """Wait for nothing between attempts."""

    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database(tmp_path / "ledger.db"))
        registry = await stack.enter_async_context(FaultRegistry(tmp_path / "registry", Quirks()))
        client = RegistryClient(
            lambda _: RegistrySettings(), Surroundings(environment={}, sleep=sleep)
        )
        await stack.enter_async_context(client)
        store = BlobStore(tmp_path / "cache")
        store.create()
        ledger = MirrorLedger(database, SystemClock())
        ports = make_ports(CacheContent(store), mirrors=ledger, repositories=client.repositories)
        yield World(registry, ledger, client, ports, attempt)


def quirks(world, **script):
    world.registry.tell(Quirks(**script))


@pytest.mark.parametrize(
    ("globs", "expected"),
    [
        (["team/*"], ["team/bert", "team/llama"]),
        (["team/**"], ["team/bert", "team/llama", "team/sub/bert"]),
        (["team/b*"], ["team/bert"]),
        (["**"], ["other/bert", "team/bert", "team/llama", "team/sub/bert", "top"]),
        (["*"], ["top"]),
        (["team/b*", "other/*", "team/bert"], ["other/bert", "team/bert"]),
        (["nobody/*"], []),
    ],
)
@pytest.mark.parametrize("page_size", [0, 2])
async def test_what_globs_mean_is_found_in_the_catalog(world, globs, expected, page_size):
    quirks(world, page_size=page_size)
    world.list("top", "team/llama", "team/sub/bert", "other/bert", "team/bert")
    done = await world.look(*globs)
    assert world.names(done) == expected
    assert done.result.notes == ()


async def test_what_follows_is_a_fact_with_all_that_was_asked(world):
    world.list("team/b", "team/a", "other/c")
    wish = MirrorWish(thorough=True)
    done = await world.look("team/*", wish=wish, priority=7)
    host = world.registry.host
    assert done.effects == ()
    assert done.facts == (
        RepositoriesFound(
            rule="wild",
            repositories=(Repository(host, "team/a"), Repository(host, "team/b")),
            wish=wish,
            priority=7,
        ),
    )


async def test_a_repository_that_is_not_listed_any_more_is_looked_at_again(world):
    """Its copies may have to go, which the mirror's own job says."""
    world.list("team/a")
    await world.hear("team/a", "team/gone")
    assert world.names(await world.look("team/*")) == ["team/a", "team/gone"]


async def test_where_nothing_is_listed_what_events_told_of_is_all_there_is(world):
    quirks(world, catalog=False)
    world.list("team/listed")
    await world.hear("team/a", "other/b")
    await world.hear("team/of-another-rule", rule="other")
    await world.hear("team/of-another-registry", host="a.example.com")

    done = await world.look("team/*")

    assert world.names(done) == ["team/a"]
    (note,) = done.result.notes
    assert note.startswith("only what events told of is mirrored: ")
    assert "listed to nobody" in note
    (fact,) = done.facts
    assert [each.name for each in fact.repositories] == ["team/a"]


async def test_where_nothing_is_listed_or_told_of_the_job_fails(world):
    quirks(world, catalog=False)
    await world.hear("other/b")
    with pytest.raises(RegistryUnsupportedError):
        await world.look("team/*")


async def test_a_registry_that_fails_is_asked_again(world):
    """It may list more than events told of: the job waits for that, and does not do half."""
    await world.hear("team/a")
    quirks(world, fail_every=1, fail_status=503)
    with pytest.raises(RegistryServerError) as raised:
        await world.look("team/*")
    assert raised.value.disposition is Disposition.RETRY


async def test_so_many_repositories_and_no_more_are_mirrored(world, monkeypatch):
    monkeypatch.setattr(survey, "MAX_REPOSITORIES", 3)
    world.list(*(f"team/{name}" for name in "abc"))
    assert (await world.look("team/*")).result.notes == ()
    world.list("team/d", "team/e")
    done = await world.look("team/*")
    assert done.result.notes == ("there are more than 3 repositories",)
    assert world.names(done) == ["team/a", "team/b", "team/c"]


def test_surveys_of_one_mirror_are_one():
    args = SurveyArgs(rule="wild", repositories=("a.io/**",))
    request, again = SURVEY.request(args), SURVEY.request(args)
    assert request.key == again.key
    assert (request.lock, request.mirror) == ("survey:wild", "wild")
    # Nor is a plan served by a survey, or the reverse.
    plan = SurveyArgs(rule="wild", repositories=("a.io/**",), wish=MirrorWish(dry_run=True))
    assert SURVEY.request(plan).key != request.key
