"""Lists of referrers, as registries and other clients write them."""

import json

import pytest

from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest, digest_of
from kitd.oci.manifest import MAX_MANIFEST_BYTES, InvalidManifestError
from kitd.oci.media_type import DOCKER_INDEX, OCI_INDEX, OCI_MANIFEST
from kitd.oci.reference import check_tag
from kitd.oci.referrer import add_referrer, parse_referrers, referrers_tag

SIGNATURE = Descriptor(
    OCI_MANIFEST, digest_of(b"one"), 3, {"by": "ada"}, "application/vnd.example.signature"
)
SBOM = Descriptor(OCI_MANIFEST, digest_of(b"two"), 4)


@pytest.mark.parametrize(
    ("subject", "tag"),
    [
        ("sha256:" + "a1" * 32, "sha256-" + "a1" * 32),
        ("sha512:" + "b2" * 64, "sha512-" + "b2" * 32),
        ("multihash+" + "x" * 40 + ":" + "c/" * 40, "multihash-" + "x" * 22 + "-" + "c-" * 32),
    ],
)
def test_the_tag_of_a_list_follows_from_the_subject(subject, tag):
    assert referrers_tag(Digest(subject)) == check_tag(tag)


def test_an_index_is_started_and_grows_without_duplicates():
    first = add_referrer(None, SIGNATURE)
    both = add_referrer(first, SBOM)
    assert json.loads(first) == {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            {
                "mediaType": OCI_MANIFEST,
                "digest": SIGNATURE.digest,
                "size": 3,
                "artifactType": "application/vnd.example.signature",
                "annotations": {"by": "ada"},
            }
        ],
    }
    assert parse_referrers(both) == (SIGNATURE, SBOM)
    assert add_referrer(both, SIGNATURE) is None
    assert add_referrer(both, SBOM) is None


def test_what_others_wrote_stays_as_it_is():
    entry = {"mediaType": "a/b", "digest": "md5:no", "size": -1, "platform": {"os": "x"}}
    others = {"schemaVersion": 2, "manifests": [entry], "annotations": {"é": "1"}, "x": [1.5]}
    grown = json.loads(add_referrer(json.dumps(others).encode(), SBOM))
    assert grown.pop("manifests") == [
        entry,
        {"mediaType": OCI_MANIFEST, "digest": SBOM.digest, "size": 4},
    ]
    others.pop("manifests")
    assert grown == others


def test_entries_that_describe_nothing_are_left_out():
    good = {"mediaType": OCI_MANIFEST, "digest": SBOM.digest, "size": 4}
    entries = [{}, good, good | {"digest": "_uploads"}, good | {"size": "4"}, {"digest": None}]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    assert parse_referrers(json.dumps(document).encode()) == (SBOM,)


def test_an_index_of_null_is_empty():
    content = b'{"schemaVersion":2,"manifests":null}'
    assert parse_referrers(content) == ()
    assert parse_referrers(add_referrer(content, SBOM)) == (SBOM,)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"manifests":{}}',
        b'{"manifests":[1]}',
        b'{"schemaVersion":2,"config":{},"layers":[]}',
        b'{"schemaVersion":2,"mediaType":"%s","manifests":[]}' % DOCKER_INDEX.encode(),
        b'{"schemaVersion":2,"mediaType":["%s"],"manifests":[]}' % OCI_INDEX.encode(),
        b" " * (MAX_MANIFEST_BYTES + 1),
    ],
)
def test_what_is_no_index_is_refused(content):
    with pytest.raises(InvalidManifestError):
        parse_referrers(content)
    with pytest.raises(InvalidManifestError):
        add_referrer(content, SBOM)


def test_an_index_does_not_grow_beyond_what_registries_take():
    large = Descriptor(
        OCI_MANIFEST, digest_of(b"large"), 1, {"a": "x" * (MAX_MANIFEST_BYTES - 400)}
    )
    full = add_referrer(None, large)
    with pytest.raises(InvalidManifestError, match=str(MAX_MANIFEST_BYTES)):
        add_referrer(full, SIGNATURE)
