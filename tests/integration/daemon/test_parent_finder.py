"""Where a pack looks for the kits that it builds on: a real cache."""

import asyncio

import pytest

from kitd.content.store import ContentNotFoundError
from kitd.daemon.parent_finder import (
    MAX_KEPT_BYTES,
    ParentFinder,
    ParentUnavailableError,
    UnaskedError,
)
from kitd.errors import Disposition
from kitd.modelkit.config_blob import MAX_CONFIG_BYTES, encode_config
from kitd.modelkit.dialect import Dialect
from kitd.modelkit.errors import UnsupportedKitError
from kitd.modelkit.kitfile import Code, Kitfile, Model, Package
from kitd.modelkit.manifest import encode_manifest
from kitd.modelkit.media_type import CONFIG
from kitd.oci.descriptor import describe
from kitd.oci.media_type import OCI_MANIFEST
from kitd.registry.errors import RegistryDeniedError
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent


def anywhere(repository):
    """Let the author send kitd to any registry."""
    return True


def nowhere(repository):
    """Let him send it to none."""
    return False


class Shelf:
    """A cache with kits of given names, and a registry with others, which is counted.

    What the registry has not it `says`: an error, or nothing at all.
    """

    def __init__(self, store):
        self.store = store
        self.kits = {}
        self.away = {}
        self.asked = []
        self.says = ContentNotFoundError("not there")
        self.finder = ParentFinder(self, CacheContent(store), self.remote)

    def put(self, name, kitfile, *, away=False):
        config = encode_config(kitfile)
        manifest = encode_manifest(
            describe(CONFIG, config), (), Dialect.CURRENT, cli_version="1", created="now"
        )
        for content in (config, manifest):
            self.store.put(content)
        (self.away if away else self.kits)[name] = describe(OCI_MANIFEST, manifest)

    async def resolve(self, repository, identifier):
        try:
            return self.kits[f"{repository}:{identifier}"]
        except KeyError:
            raise ContentNotFoundError("not here") from None

    async def remote(self, repository):
        self.asked.append(str(repository))
        return Registry(self, repository)


class Registry(CacheContent):
    """One repository."""

    def __init__(self, shelf, repository):
        super().__init__(shelf.store)
        self.shelf = shelf
        self.repository = repository

    async def resolve(self, identifier):
        if found := self.shelf.away.get(f"{self.repository}:{identifier}"):
            return found
        if self.shelf.says is None:
            await asyncio.Event().wait()
        raise self.shelf.says


@pytest.fixture
def shelf(tmp_path):
    store = BlobStore(tmp_path / "cache")
    store.create()
    return Shelf(store)


async def test_parents_come_nearest_first(shelf):
    shelf.put("localhost/a:v1", Kitfile(model=Model(path="r.example.com:443/b")))
    shelf.put("r.example.com:443/b:latest", Kitfile(model=Model(path="w.bin")))
    kits = await shelf.finder.find("a:v1", may_ask=nowhere)
    assert [kit.reference for kit in kits] == ["a:v1", "r.example.com:443/b:latest"]
    assert '"path":"w.bin"' in kits[1].config
    assert shelf.asked == []


async def test_a_registry_is_asked_only_where_the_author_may_send_kitd(shelf):
    """Whoever wrote the Kitfile is told what to do, and nothing about the registry."""
    with pytest.raises(ContentNotFoundError, match=r"not in the cache") as caught:
        await shelf.finder.find("r.example.com/private:v1", may_ask=nowhere)
    assert caught.value.hint == "kitctl pull r.example.com/private:v1"
    assert shelf.asked == []
    with pytest.raises(ParentUnavailableError):
        await shelf.finder.find("r.example.com/private:v1", may_ask=anywhere)
    assert shelf.asked == ["r.example.com/private"]


async def test_what_a_registry_says_is_for_the_log(shelf):
    """A project's state, in which the error comes to stand, is for all who may read."""
    shelf.says = RegistryDeniedError(
        "robot$kitd may not see it", host="r.example.com", operation="pull"
    )
    with pytest.raises(ParentUnavailableError) as caught:
        await shelf.finder.find("r.example.com/private:v1", may_ask=anywhere)
    assert "robot" not in caught.value.describe()
    assert caught.value.disposition is shelf.says.disposition


async def test_a_registry_is_asked_once_for_many_looks(shelf):
    """Also where it had no good answer; a pack asks anew, since a tag means what it names now."""
    shelf.put("r.example.com/base:v1", Kitfile(model=Model(path="w.bin")), away=True)
    for _ in range(3):
        (kit,) = await shelf.finder.find("r.example.com/base:v1", may_ask=anywhere)
        assert '"path":"w.bin"' in kit.config
    assert len(shelf.asked) == 1
    await shelf.finder.find("r.example.com/base:v1", may_ask=anywhere, max_age_s=0)
    assert len(shelf.asked) == 2

    for _ in range(3):
        with pytest.raises(ParentUnavailableError):
            await shelf.finder.find("r.example.com/gone:v1", may_ask=anywhere)
    assert len(shelf.asked) == 3


async def test_an_answer_that_is_remembered_is_for_those_who_may_ask(shelf):
    shelf.put("r.example.com/base:v1", Kitfile(), away=True)
    await shelf.finder.find("r.example.com/base:v1", may_ask=anywhere)
    with pytest.raises(ContentNotFoundError, match="not in the cache"):
        await shelf.finder.find("r.example.com/base:v1", may_ask=nowhere)


async def test_a_parent_that_is_pulled_is_found_at_once(shelf):
    with pytest.raises(ParentUnavailableError):
        await shelf.finder.find("r.example.com/base:v1", may_ask=anywhere)
    shelf.put("r.example.com/base:v1", Kitfile())
    assert await shelf.finder.find("r.example.com/base:v1", may_ask=anywhere)


async def test_a_registry_that_does_not_answer_keeps_nobody_for_long(shelf):
    """And who does not wait is told so before anybody is asked."""
    shelf.says = None
    finder = ParentFinder(shelf, CacheContent(shelf.store), shelf.remote, ask_s=0.01)
    with pytest.raises(UnaskedError):
        await finder.find("r.example.com/base:v1", may_ask=anywhere, asks=False)
    assert shelf.asked == []
    with pytest.raises(ParentUnavailableError) as caught:
        await finder.find("r.example.com/base:v1", may_ask=anywhere)
    assert caught.value.disposition is Disposition.RETRY
    # What is known now is told those too.
    with pytest.raises(ParentUnavailableError):
        await finder.find("r.example.com/base:v1", may_ask=anywhere, asks=False)


async def test_what_is_remembered_is_bounded(shelf):
    """The oldest goes first."""
    text = "x" * (MAX_KEPT_BYTES // 3)
    names = [f"r.example.com/base:v{number}" for number in range(3)]
    for name in names:
        shelf.put(name, Kitfile(package=Package(description=f"{name} {text}")), away=True)
        await shelf.finder.find(name, may_ask=anywhere)
    assert len(shelf.asked) == 3
    await shelf.finder.find(names[-1], may_ask=anywhere)
    assert len(shelf.asked) == 3
    await shelf.finder.find(names[0], may_ask=anywhere)
    assert len(shelf.asked) == 4


async def test_a_kit_without_a_registry_is_looked_for_nowhere_else(shelf):
    with pytest.raises(ContentNotFoundError, match=r"team/base:v1, which model\.path leads to"):
        await shelf.finder.find("team/base:v1", may_ask=anywhere)
    assert shelf.asked == []


async def test_kitfiles_that_are_too_much_together_are_not_carried_to_a_worker(shelf):
    half = Code(path="c", description="x" * (MAX_CONFIG_BYTES // 2))
    shelf.put("localhost/a:v1", Kitfile(model=Model(path="b:v1"), code=(half,)))
    shelf.put("localhost/b:v1", Kitfile(code=(half,)))
    with pytest.raises(UnsupportedKitError, match="larger than"):
        await shelf.finder.find("a:v1", may_ask=nowhere)
