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
PLACE = Repository("registry.example.com", "team/model")


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
def catalog(database):
    return Catalog(database, SystemClock(), summarize=nowhere)


@pytest.fixture
def remotes():
    """Repositories that may be asked."""
    return {}


@pytest.fixture
async def verifier(database, store, catalog, remotes):
    async def remote(repository):
        return remotes[repository]

    ledger = CacheLedger(database, SystemClock())
    return Verifier(store, CacheContent(store), ledger, catalog.places, remote)


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


def manifest(name, *layers):
    """Return a manifest of these layers, the first of which is its config, and its content."""
    described = [
        {"mediaType": each.media_type, "digest": each.digest, "size": each.size} for each in layers
    ]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described[0],
        "layers": described,
        "annotations": {"name": name},
    }
    content = json.dumps(document).encode()
    return describe(OCI_MANIFEST, content), content


async def test_what_the_cache_was_never_given_is_not_missing(catalog, verifier):
    """But what it was given is."""
    lost, away = describe(OCTET_STREAM, b"lost"), describe(OCTET_STREAM, b"away")
    target, content = manifest("kit", lost, away)
    await catalog.apply(
        [
            RecordManifest(PLACE, target, parse_manifest(content)),
            RecordElsewhere(target.digest, (away.digest,), PLACE),
        ]
    )
    verified = await verifier.verify(repair=False, advanced=lambda done, total: None)
    assert {damage.digest for damage in verified.damaged} == {lost.digest, target.digest}


async def test_what_one_kit_left_elsewhere_is_missed_for_another_and_had_from_there(
    catalog, store, verifier, remotes, tmp_path
):
    """That it was given for the other kit nobody has forgotten."""
    config = describe(OCTET_STREAM, b"{}")
    there = BlobStore(tmp_path / "there")
    there.create()
    there.put(b"away")
    away = describe(OCTET_STREAM, b"away")
    remotes[PLACE] = CacheContent(there)
    store.put(b"{}")
    effects = []
    for name in ("partial", "whole"):
        target, content = manifest(name, config, away)
        store.put(content)
        effects.append(RecordManifest(Repository("", name), target, parse_manifest(content)))
        if name == "partial":
            effects.append(RecordElsewhere(target.digest, (away.digest,), PLACE))
    await catalog.apply(effects)
    verified = await verifier.verify(repair=True, advanced=lambda done, total: None)
    assert [damage.digest for damage in verified.damaged] == [away.digest]
    assert verified.repaired == (away.digest,)
    assert store.has(away)
