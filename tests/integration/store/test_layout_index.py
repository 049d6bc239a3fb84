"""The cache is an OCI image layout that other tools read in place."""

import json

import pytest

from kitd.oci.descriptor import describe
from kitd.oci.media_type import OCI_MANIFEST
from kitd.oci.reference import parse_reference
from kitd.store.layout_index import layout_index, write_layout_index

REFERENCES = [
    "model:latest",
    "team/model:v1.0_rc-1",
    "registry.example.com/team/model:v1",
    "127.0.0.1:5000/team/model:v1",
    "[::1]:5000/team/model:v1",
    "localhost:5000/model:20260102-030405",
]


@pytest.fixture
def manifests(store):
    """Put one manifest for each reference into the store."""
    config = describe("application/vnd.oci.empty.v1+json", b"{}")
    store.put(b"{}")
    manifests = {}
    for reference in REFERENCES:
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": config.media_type, "digest": config.digest, "size": 2},
            "layers": [],
            "annotations": {"name": reference},
        }
        manifests[reference] = json.dumps(document).encode()
        store.put(manifests[reference])
    return manifests


def write(store, manifests):
    tagged = [
        (parse_reference(reference), describe(OCI_MANIFEST, content))
        for reference, content in manifests.items()
    ]
    write_layout_index(store, tagged)


def test_skopeo_finds_each_kit_by_its_reference(store, manifests, skopeo):
    write(store, manifests)
    for reference, content in manifests.items():
        if "[" not in reference:  # skopeo takes no brackets in a name
            assert skopeo("inspect", "--raw", f"oci:{store.root}:{reference}") == content


def test_an_empty_store_has_an_empty_index(store):
    write_layout_index(store, [])
    index = json.loads((store.root / "index.json").read_bytes())
    assert index["schemaVersion"] == 2
    assert index["manifests"] == []


def test_writing_the_index_again_replaces_it(store, manifests):
    write(store, manifests)
    write_layout_index(store, [])
    assert (store.root / "index.json").read_bytes() == layout_index([])
    assert not list(store.root.glob(".*"))
