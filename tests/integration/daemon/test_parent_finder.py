"""Where a pack looks for the kits that it builds on: a real cache."""

import pytest

from kitd.content.store import ContentNotFoundError
from kitd.daemon.parent_finder import ParentFinder
from kitd.modelkit.config_blob import MAX_CONFIG_BYTES, encode_config
from kitd.modelkit.dialect import Dialect
from kitd.modelkit.errors import UnsupportedKitError
from kitd.modelkit.kitfile import Code, Kitfile, Model
from kitd.modelkit.manifest import encode_manifest
from kitd.modelkit.media_type import CONFIG
from kitd.oci.descriptor import describe
from kitd.oci.media_type import OCI_MANIFEST
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent


class Shelf:
    """A cache with kits of given names; registries have none and are counted."""

    def __init__(self, store):
        self.store = store
        self.kits = {}
        self.asked = []
        self.finder = ParentFinder(self, CacheContent(store), self.remote)

    def put(self, name, kitfile):
        config = encode_config(kitfile)
        manifest = encode_manifest(
            describe(CONFIG, config), (), Dialect.CURRENT, cli_version="1", created="now"
        )
        for content in (config, manifest):
            self.store.put(content)
        self.kits[name] = describe(OCI_MANIFEST, manifest)

    async def resolve(self, repository, identifier):
        try:
            return self.kits[f"{repository}:{identifier}"]
        except KeyError:
            raise ContentNotFoundError("not here") from None

    async def remote(self, repository):
        self.asked.append(str(repository))
        raise ContentNotFoundError("not there")


@pytest.fixture
def shelf(tmp_path):
    store = BlobStore(tmp_path / "cache")
    store.create()
    return Shelf(store)


async def test_parents_come_nearest_first(shelf):
    shelf.put("localhost/a:v1", Kitfile(model=Model(path="r.example.com:443/b")))
    shelf.put("r.example.com:443/b:latest", Kitfile(model=Model(path="w.bin")))
    kits = await shelf.finder.find("a:v1", cached_only=True)
    assert [kit.reference for kit in kits] == ["a:v1", "r.example.com:443/b:latest"]
    assert '"path":"w.bin"' in kits[1].config
    assert shelf.asked == []


async def test_a_registry_is_asked_only_where_the_author_may_send_kitd(shelf):
    """Whoever wrote the Kitfile is told what to do, and nothing about the registry."""
    with pytest.raises(ContentNotFoundError, match=r"not in the cache") as caught:
        await shelf.finder.find("r.example.com/private:v1", cached_only=True)
    assert caught.value.hint == "kitctl pull r.example.com/private:v1"
    assert shelf.asked == []
    with pytest.raises(ContentNotFoundError, match="not there"):
        await shelf.finder.find("r.example.com/private:v1", cached_only=False)
    assert shelf.asked == ["r.example.com/private"]


async def test_a_kit_without_a_registry_is_looked_for_nowhere_else(shelf):
    with pytest.raises(ContentNotFoundError, match=r"team/base:v1, which model\.path leads to"):
        await shelf.finder.find("team/base:v1", cached_only=False)
    assert shelf.asked == []


async def test_kitfiles_that_are_too_much_together_are_not_carried_to_a_worker(shelf):
    half = Code(path="c", description="x" * (MAX_CONFIG_BYTES // 2))
    shelf.put("localhost/a:v1", Kitfile(model=Model(path="b:v1"), code=(half,)))
    shelf.put("localhost/b:v1", Kitfile(code=(half,)))
    with pytest.raises(UnsupportedKitError, match="larger than"):
        await shelf.finder.find("a:v1", cached_only=True)
