"""Projects: what the configuration says, what was added, what is remembered of each."""

import sqlite3

import pytest

from kitd.errors import NotFoundError
from kitd.ledger.catalog import Catalog
from kitd.ledger.project_ledger import ProjectConflictError, ProjectLedger
from kitd.oci.digest import digest_of
from kitd.queue.effect import RecordPack

KIT = digest_of(b"kit")


@pytest.fixture
def projects(database, clock):
    return ProjectLedger(database, clock)


@pytest.fixture
def packed(database, clock):
    """Note that a project was packed."""

    async def packed(name):
        async def no_kit(_manifest):
            return None

        effect = RecordPack(name, "fingerprint", KIT, "key")
        await Catalog(database, clock, no_kit).apply((effect,))

    return packed


@pytest.fixture
def told(sql):
    return lambda: sql("SELECT type, subject, project FROM events ORDER BY seq")


async def names(projects, source=None):
    return [p.name for p in await projects.all() if source in (None, p.source)]


async def test_the_rows_are_what_the_configuration_says(projects):
    await projects.configured({"b": "1", "a": "2"})
    assert [(p.name, p.source, p.definition, p.held) for p in await projects.all()] == [
        ("a", "config", "2", False),
        ("b", "config", "1", False),
    ]
    await projects.configured({"c": "3", "a": "2"})
    assert await names(projects) == ["a", "c"]
    await projects.configured({})
    assert await names(projects) == []


async def test_what_was_added_stays_when_the_configuration_changes(projects):
    await projects.add("added", "1")
    await projects.configured({"a": "1"})
    await projects.configured({})
    assert await names(projects) == ["added"]


async def test_the_same_definition_keeps_everything_that_is_known(projects, packed, clock):
    await projects.configured({"a": "1"})
    await packed("a")
    await projects.hold("a", held=True)
    before = await projects.project("a")
    clock.advance(5)
    await projects.configured({"a": "1", "b": "1"})
    assert await projects.project("a") == before
    assert (before.fingerprint, before.version, before.held) == ("fingerprint", "key", True)


@pytest.mark.parametrize("source", ["config", "added"])
async def test_a_changed_definition_is_packed_and_named_again(projects, packed, source):
    """The kit stays known; that its inputs and its names are up to date does not."""

    async def define(definition):
        if source == "config":
            await projects.configured({"a": definition})
        else:
            await projects.add("a", definition)

    await define("1")
    await packed("a")
    await define("2")
    record = await projects.project("a")
    assert (record.definition, record.source) == ("2", source)
    assert (record.fingerprint, record.version) == (None, None)
    assert record.digest == KIT
    assert record.packed_us is not None


async def test_the_configuration_takes_over_what_was_added(projects, packed):
    await projects.add("a", "1")
    await packed("a")
    await projects.configured({"a": "1"})
    record = await projects.project("a")
    assert (record.source, record.fingerprint) == ("config", "fingerprint")


async def test_what_the_configuration_has_is_changed_only_there(projects, told):
    await projects.configured({"a": "1"})
    for attempt in (projects.add("a", "2"), projects.remove("a")):
        with pytest.raises(ProjectConflictError, match="configuration file") as caught:
            await attempt
        assert caught.value.hint is not None
    assert (await projects.project("a")).definition == "1"
    assert told() == []


async def test_projects_come_and_go(projects, told):
    await projects.add("a", "1")
    await projects.remove("a")
    assert await names(projects) == []
    assert told() == [("project.added", "project:a", "a"), ("project.removed", "project:a", "a")]


async def test_a_project_is_held_and_released(projects, told):
    await projects.configured({"a": "1"})
    for held in (True, False):
        await projects.hold("a", held=held)
        assert (await projects.project("a")).held is held
    assert [kind for kind, _, _ in told()] == ["project.held", "project.released"]


async def test_what_does_not_exist_is_not_found(projects, told):
    for attempt in (projects.remove("x"), projects.hold("x", held=True), projects.project("x")):
        with pytest.raises(NotFoundError, match="no project x"):
            await attempt
    assert told() == []


async def test_the_file_itself_refuses_another_source(sql):
    with pytest.raises(sqlite3.IntegrityError):
        sql("INSERT INTO projects (name, source, definition) VALUES ('a', 'rumour', '{}')")
