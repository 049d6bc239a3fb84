"""A look at kits that were recorded before it was noted what kits build on: a real cache."""

import os
import sqlite3
from contextlib import closing
from functools import partial

import pytest

from kitd.clock import SystemClock
from kitd.content.verify import read_manifest
from kitd.daemon.parent_keeper import BATCH, note_parents
from kitd.jobs.pull import summarize
from kitd.ledger.catalog import Catalog
from kitd.ledger.database import Database
from kitd.modelkit.config_blob import encode_config
from kitd.modelkit.dialect import Dialect
from kitd.modelkit.kitfile import Kitfile, Model, Package
from kitd.modelkit.manifest import encode_manifest
from kitd.modelkit.media_type import CONFIG
from kitd.oci.descriptor import describe
from kitd.oci.media_type import OCI_MANIFEST
from kitd.oci.reference import Repository
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent

HERE = Repository("localhost", "team/tuned")


class Old:
    """A cache and its ledger, in which nothing is known of any parent."""

    def __init__(self, database, store):
        self.database = database
        self.store = store
        self.cache = CacheContent(store)
        self.catalog = Catalog(database, SystemClock(), partial(summarize, self.cache))

    async def put(self, name, parent):
        config = encode_config(Kitfile(package=Package(name=name), model=Model(path=parent)))
        content = encode_manifest(
            describe(CONFIG, config), (), Dialect.CURRENT, cli_version="1", created="now"
        )
        for blob in (config, content):
            self.store.put(blob)
        target = describe(OCI_MANIFEST, content)
        manifest = await read_manifest(self.cache, target)
        await self.catalog.commit(HERE, target, (), manifest)
        return target, describe(CONFIG, config)

    def forget(self):
        with closing(sqlite3.connect(self.database.path)) as ledger, ledger:
            ledger.execute("DELETE FROM kit_parents")
            ledger.execute("UPDATE manifests SET parent_noted = 0")

    def parents(self):
        with closing(sqlite3.connect(self.database.path)) as ledger:
            return set(
                ledger.execute("SELECT manifest, registry, name, identifier FROM kit_parents")
            )

    async def unknown(self):
        rows = await self.catalog.parent_unknown(after="", limit=BATCH)
        return [target.digest for target in rows]


@pytest.fixture
async def old(tmp_path):
    store = BlobStore(tmp_path / "cache")
    store.create()
    async with Database(tmp_path / "ledger.sqlite3") as database:
        yield Old(database, store)


async def test_what_is_found_out_is_what_a_record_would_have_noted(old):
    """In more than one batch."""
    for number in range(BATCH + 1):
        await old.put(f"kit {number}", f"r.example.com/team/base:v{number}")
    await old.put("root", "weights.bin")
    before = old.parents()
    old.forget()
    assert await note_parents(old.catalog, old.cache) == BATCH + 2
    assert old.parents() == before
    assert len(before) == BATCH + 1
    assert await note_parents(old.catalog, old.cache) == 0


async def test_a_kit_whose_config_is_lost_holds_up_no_other(old):
    _, config = await old.put("lost", "team/base:v1")
    whole, _ = await old.put("whole", "team/base:v2")
    old.forget()
    old.store.path_of(config.digest).unlink()
    assert await note_parents(old.catalog, old.cache) == 2
    assert {row[0] for row in old.parents()} == {whole.digest}


async def test_what_the_disk_does_not_give_is_looked_at_another_time(old):
    target, config = await old.put("kit", "team/base:v1")
    path = old.store.path_of(config.digest)
    aside = path.with_name("aside")
    before = old.parents()
    old.forget()
    path.rename(aside)
    # A name that leads to itself cannot be opened, whoever asks.
    path.symlink_to(path)
    assert await note_parents(old.catalog, old.cache) == 0
    assert await old.unknown() == [target.digest]
    os.replace(aside, path)
    assert await note_parents(old.catalog, old.cache) == 1
    assert old.parents() == before
