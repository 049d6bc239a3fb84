"""Listing the tags of a registry that takes its time: what is known by then is the answer."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from kitd.content.store import ContentNotFoundError
from kitd.errors import UnavailableError
from kitd.modelkit.media_type import CONFIG
from kitd.oci.descriptor import describe
from kitd.oci.media_type import OCI_MANIFEST
from kitd.oci.reference import parse_reference
from kitd.rpc.methods.kit_tags import LOOKS, MAX_TAGS, Listing
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent

REFERENCE = parse_reference("r.example.com/team/demo")


class Registry(CacheContent):
    """A repository in which every tag names one kit, and of which some things never come."""

    def __init__(self, store, tags, *, stuck=(), endless=False):
        super().__init__(store)
        self.names = tags
        self.stuck = stuck
        self.endless = endless
        config = b'{"manifestVersion":"1.0.0"}'
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {
                    "mediaType": CONFIG,
                    "digest": describe(CONFIG, config).digest,
                    "size": len(config),
                },
                "layers": [],
            }
        ).encode()
        store.put(config)
        store.put(manifest)
        self.manifest = describe(OCI_MANIFEST, manifest)

    async def tags(self):
        for name in self.names:
            yield SimpleNamespace(name=name)
        if self.endless:
            await asyncio.Event().wait()

    async def resolve(self, identifier):
        if identifier in self.stuck:
            await asyncio.Event().wait()
        if identifier not in self.names:
            raise ContentNotFoundError("not there")
        return self.manifest


@pytest.fixture
def registry(tmp_path):
    store = BlobStore(tmp_path / "cache")
    store.create()
    return lambda *tags, **habits: Registry(store, tags, **habits)


async def listed(origin, reference=REFERENCE, *, within_s):
    return await Listing(origin, reference, ()).run(within_s)


async def test_a_tag_that_never_comes_leaves_what_was_read_before(registry):
    names = [f"v{number}" for number in range(LOOKS + 3)]
    kits = await listed(registry(*names, stuck=names[-1:]), within_s=1)
    assert [kit.tags for kit in kits.kits] == [tuple(names[:LOOKS])]
    assert kits.omitted == 3
    assert len(kits.notes) == 1


async def test_names_that_never_end_are_looked_at_as_far_as_they_came(registry):
    names = [f"v{number}" for number in range(MAX_TAGS + 2)]
    kits = await listed(registry(*names, endless=True), within_s=2)
    assert [len(kit.tags) for kit in kits.kits] == [MAX_TAGS]
    assert kits.omitted == 2
    assert "still naming tags" in kits.notes[0]


@pytest.mark.parametrize("reference", [REFERENCE, parse_reference("r.example.com/team/demo:v1")])
async def test_a_registry_that_says_nothing_is_no_empty_one(registry, reference):
    with pytest.raises(UnavailableError, match="named no tag"):
        await listed(registry(stuck=["v1"], endless=True), reference, within_s=0.1)
