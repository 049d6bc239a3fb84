"""Verifications among others: what is made anew is not taken for what was damaged."""

import json
import os

import pytest

from kitd.clock import SystemClock
from kitd.daemon.verifier import Verifier
from kitd.ledger.cache_ledger import CacheLedger
from kitd.ledger.catalog import Catalog
from kitd.ledger.database import Database
from kitd.oci.descriptor import describe
from kitd.oci.manifest import parse_manifest
from kitd.oci.media_type import OCI_MANIFEST, OCTET_STREAM
from kitd.oci.reference import Repository
from kitd.queue.effect import RecordElsewhere, RecordManifest
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
async def database(tmp_path):
    async with Database(tmp_path / "ledger.sqlite3") as database:
        yield database


@pytest.fixture
async def verifier(database, store):
    ledger = CacheLedger(database, SystemClock())
    return Verifier(store, CacheContent(store), ledger, nowhere)


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


async def test_what_the_cache_was_never_given_is_not_missing(database, verifier):
    """But what it was given is."""
    lost, away = describe(OCTET_STREAM, b"lost"), describe(OCTET_STREAM, b"away")
    layers = [
        {"mediaType": each.media_type, "digest": each.digest, "size": each.size}
        for each in (lost, away)
    ]
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": layers[0]}
    content = json.dumps({**document, "layers": layers}).encode()
    target = describe(OCI_MANIFEST, content)
    place = Repository("registry.example.com", "team/model")
    catalog = Catalog(database, SystemClock(), summarize=nowhere)
    await catalog.apply(
        [
            RecordManifest(place, target, parse_manifest(content)),
            RecordElsewhere(target.digest, (away.digest,), place),
        ]
    )
    verified = await verifier.verify(repair=False, advanced=lambda done, total: None)
    assert {damage.digest for damage in verified.damaged} == {lost.digest, target.digest}
