"""Pulls into a cache that has room for a part of a kit only."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from kitd.jobs.pull import PULL, PullArgs
from kitd.modelkit.config_blob import MAX_CONFIG_BYTES
from kitd.oci.descriptor import describe
from kitd.oci.media_type import OCI_EMPTY, OCI_MANIFEST, OCTET_STREAM
from kitd.queue.effect import RecordElsewhere
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent

MIB = 1 << 20
LAYER_BYTES = MAX_CONFIG_BYTES + 4 * MIB
LAYERS = [bytes([number]) * LAYER_BYTES for number in range(4)]


class Source:
    """A repository with one artifact; no layer ends before all are on their way."""

    def __init__(self):
        self.contents = {}
        layers = [self._add(OCTET_STREAM, content) for content in LAYERS]
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self._add(OCI_EMPTY, b"{}"),
            "layers": layers,
        }
        content = json.dumps(document).encode()
        self.root = describe(OCI_MANIFEST, content)
        self.contents[self.root.digest] = content
        self._begun = 0
        self._all_begun = asyncio.Event()

    def _add(self, media_type, content):
        target = describe(media_type, content)
        self.contents[target.digest] = content
        return {"mediaType": media_type, "digest": target.digest, "size": target.size}

    async def resolve(self, _identifier):
        return self.root

    async def referrers(self, _subject):
        return ()

    async def exists(self, target):
        return target.digest in self.contents

    @asynccontextmanager
    async def fetch(self, target, *, offset=0):
        yield self._pieces(self.contents[target.digest], offset)

    async def _pieces(self, content, offset):
        if len(content) == LAYER_BYTES:
            self._begun += 1
            if self._begun == len(LAYERS):
                self._all_begun.set()
            await self._all_begun.wait()
        for at in range(offset, len(content), MIB):
            yield memoryview(content)[at : at + MIB]
            await asyncio.sleep(0)


@pytest.fixture
def pull(make_ports, attempt):
    """Run one attempt to pull from a source to a store."""

    async def pull(store, source, keeps):
        async def remote(_repository):
            return source

        cache = CacheContent(store)
        ports = make_ports(cache, keeps=keeps, remote=remote)
        args = PullArgs(reference="registry.example.com/team/model:v1")
        with attempt() as context:
            return await PULL.run(args, context, ports)

    return pull


async def test_layers_that_fit_one_by_one_and_not_together_end_in_a_kit(pull, mount_disk):
    """Those that found no room leave what there is to the others, and to the manifest."""
    store, source = BlobStore(mount_disk("48m") / "cache"), Source()
    store.create()
    done = await pull(store, source, store.has_room_for)
    assert store.has(source.root)
    assert store.partials() == []
    (away,) = [effect for effect in done.effects if isinstance(effect, RecordElsewhere)]
    here = {blob.digest for blob in store.blobs()}
    assert here.isdisjoint(away.blobs)
    assert here | set(away.blobs) == set(source.contents)


async def test_what_stays_where_it_is_was_not_skipped(pull, tmp_path):
    """It is neither here nor was it here before."""
    store, source = BlobStore(tmp_path / "cache"), Source()
    store.create()
    done = await pull(store, source, lambda _size: False)
    moved = done.result.bytes
    assert (moved.received, moved.skipped) == (source.root.size + len(b"{}"), 0)
    assert len(done.result.notes) == len(LAYERS)
