"""Verifications among others: what is made anew is not taken for what was damaged."""

import os

import pytest

from kitd.clock import SystemClock
from kitd.daemon.verifier import Verifier
from kitd.ledger.cache_ledger import CacheLedger
from kitd.ledger.database import Database
from kitd.oci.descriptor import describe
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent

CONTENT = b"weights"
TARGET = describe("layer", CONTENT)


async def nowhere(repository):
    raise AssertionError(f"nobody has to ask {repository}")


@pytest.fixture
def store(tmp_path):
    store = BlobStore(tmp_path / "cache")
    store.create()
    store.put(CONTENT)
    return store


@pytest.fixture
async def verifier(tmp_path, store):
    async with Database(tmp_path / "ledger.sqlite3") as database:
        ledger = CacheLedger(database, SystemClock())
        yield Verifier(store, CacheContent(store), ledger, nowhere)


def cut_short(store):
    path = store.path_of(TARGET.digest)
    path.chmod(0o600)
    os.truncate(path, 3)


async def test_a_damaged_blob_is_put_aside(store, verifier):
    cut_short(store)
    verified = await verifier.verify(repair=False, advanced=lambda done, total: None)
    assert [damage.digest for damage in verified.damaged] == [TARGET.digest]
    assert (store.blobs(), store.in_quarantine()) == ([], {TARGET.digest: 3})


async def test_a_blob_that_is_made_anew_while_the_damaged_one_is_hashed_stays(store, verifier):
    cut_short(store)

    def make_anew(_done, _total):
        assert not store.put(CONTENT).reused

    verified = await verifier.verify(repair=False, advanced=make_anew)
    assert verified.damaged == ()
    assert store.has(TARGET)
    assert store.in_quarantine() == {}
