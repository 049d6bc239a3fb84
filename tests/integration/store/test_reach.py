"""What a kit needs comes from the cache, and else from whoever is known to have it."""

from contextlib import asynccontextmanager

import pytest

from kitd.content.reach import Reach
from kitd.content.store import ContentNotFoundError
from kitd.content.verify import read
from kitd.errors import UnavailableError
from kitd.oci.descriptor import describe
from kitd.oci.reference import Repository
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent

HERE, AWAY = b"here", b"away"
FIRST, SECOND = Repository("a.example.com", "m"), Repository("b.example.com", "m")


class Remote:
    """A repository that has one blob, or an error for all."""

    def __init__(self, content=None, error=None):
        self.content = content
        self.error = error

    @asynccontextmanager
    async def fetch(self, target, *, offset=0):
        if self.error is not None:
            raise self.error

        async def stream():
            yield self.content[offset:]

        yield stream()


@pytest.fixture
def reach(tmp_path):
    """Make a reach over a cache that has `HERE` and over repositories."""
    store = BlobStore(tmp_path / "cache")
    store.create()
    store.put(HERE)

    def reach(**remotes):
        places = dict(zip((FIRST, SECOND), remotes.values(), strict=False))

        async def places_of(_digest):
            return list(places)

        async def remote(repository):
            return places[repository]

        return Reach(CacheContent(store), places_of, remote)

    return reach


async def test_what_is_in_the_cache_is_read_there(reach):
    gone = Remote(error=UnavailableError("down"))
    assert await read(reach(first=gone), describe("layer", HERE), max_bytes=10) == HERE


async def test_the_next_place_is_asked_where_one_does_not_have_it(reach):
    source = reach(first=Remote(error=ContentNotFoundError("gone")), second=Remote(AWAY))
    target = describe("layer", AWAY)
    assert await source.exists(target)
    assert await read(source, target, max_bytes=10) == AWAY
    async with source.fetch(target, offset=2) as stream:
        assert b"".join([chunk async for chunk in stream]) == AWAY[2:]


async def test_some_are_not_served_from_every_place(reach):
    """What is in the cache they have."""
    source = reach(first=Remote(b"no!!"), second=Remote(AWAY))
    target = describe("layer", AWAY)
    assert await read(source.within(lambda place: place == SECOND), target, max_bytes=10) == AWAY
    nowhere = source.within(lambda _place: False)
    assert not await nowhere.exists(target)
    assert await read(nowhere, describe("layer", HERE), max_bytes=10) == HERE


async def test_where_nobody_gives_it_the_last_one_says_why(reach):
    """And where nobody is known, that is what is said."""
    target = describe("layer", AWAY)
    source = reach(first=Remote(error=UnavailableError("it is down")))
    with pytest.raises(UnavailableError, match="it is down"):
        await read(source, target, max_bytes=10)
    assert not await reach().exists(target)
    with pytest.raises(ContentNotFoundError, match="no registry is known"):
        await read(reach(), target, max_bytes=10)
