"""Manifests and indexes as they come from registries, honest or not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitd.oci import media_type as types
from kitd.oci.descriptor import Descriptor, describe
from kitd.oci.digest import digest_of
from kitd.oci.manifest import (
    MAX_MANIFEST_BYTES,
    InvalidManifestError,
    describe_referrer,
    parse_manifest,
)

DIGEST = digest_of(b"")
CONFIG = {"mediaType": types.OCI_EMPTY, "digest": DIGEST, "size": 2}
LAYER = {"mediaType": "application/vnd.example.layer", "digest": DIGEST, "size": 3}
CHILD = {"mediaType": types.OCI_MANIFEST, "digest": DIGEST, "size": 4}
MANIFEST = {"schemaVersion": 2, "config": CONFIG, "layers": [LAYER]}
INDEX = {"schemaVersion": 2, "manifests": [CHILD]}


def encode(document) -> bytes:
    return json.dumps(document).encode()


def test_a_manifest_names_its_config_before_its_layers():
    manifest = parse_manifest(
        encode(
            MANIFEST
            | {
                "mediaType": types.OCI_MANIFEST,
                "artifactType": "application/vnd.example",
                "subject": CHILD,
                "annotations": {"a": "b"},
                "unknown": [{}],
            }
        )
    )
    assert manifest.media_type == types.OCI_MANIFEST
    assert manifest.artifact_type == "application/vnd.example"
    assert manifest.annotations == {"a": "b"}
    assert manifest.subject == Descriptor(types.OCI_MANIFEST, DIGEST, 4)
    assert [child.size for child in manifest.children] == [2, 3]


def test_an_index_names_manifests():
    index = parse_manifest(encode(INDEX), types.OCI_INDEX)
    assert index.config is None
    assert [child.size for child in index.children] == [4]


@pytest.mark.parametrize("layers", [{"layers": None}, {"layers": []}, {}])
def test_a_kit_without_layers_has_only_a_config(layers):
    manifest = parse_manifest(encode({"schemaVersion": 2, "config": CONFIG, **layers}))
    assert manifest.layers == ()


def test_a_descriptor_keeps_annotations_and_artifact_type():
    rich = LAYER | {"annotations": {"org.cncf.model.filepath": "a"}, "artifactType": "x/y"}
    (layer,) = parse_manifest(encode(MANIFEST | {"layers": [rich]})).layers
    assert layer.annotations == {"org.cncf.model.filepath": "a"}
    assert layer.artifact_type == "x/y"


@pytest.mark.parametrize(
    ("document", "sent_as", "kind"),
    [
        (MANIFEST, None, types.OCI_MANIFEST),
        (INDEX, None, types.OCI_INDEX),
        (MANIFEST, types.DOCKER_MANIFEST, types.DOCKER_MANIFEST),
        (INDEX | {"mediaType": types.DOCKER_INDEX}, None, types.DOCKER_INDEX),
        (INDEX | {"mediaType": types.DOCKER_INDEX}, types.DOCKER_INDEX, types.DOCKER_INDEX),
    ],
)
def test_the_type_is_the_documents_own_or_the_senders_or_a_guess(document, sent_as, kind):
    assert parse_manifest(encode(document), sent_as).media_type == kind


@pytest.mark.parametrize(
    ("document", "sent_as"),
    [
        (MANIFEST | {"mediaType": types.OCI_MANIFEST}, types.DOCKER_MANIFEST),
        (MANIFEST | {"mediaType": types.OCI_MANIFEST}, types.OCI_INDEX),
        (MANIFEST, types.OCI_INDEX),
        (INDEX, types.OCI_MANIFEST),
        (MANIFEST, "application/json"),
        (MANIFEST, "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        (MANIFEST | {"mediaType": "application/json"}, None),
        (MANIFEST | INDEX, types.OCI_MANIFEST),
        (MANIFEST | INDEX, types.OCI_INDEX),
        (INDEX | {"layers": []}, None),
        ({"schemaVersion": 2}, types.OCI_MANIFEST),
        ({"schemaVersion": 1, "config": CONFIG}, None),
        ({"config": CONFIG}, None),
        (MANIFEST | {"schemaVersion": True}, None),
        (MANIFEST | {"schemaVersion": "2"}, None),
        (MANIFEST | {"schemaVersion": 2.0}, None),
        (MANIFEST | {"config": []}, None),
        (MANIFEST | {"layers": {}}, None),
        (MANIFEST | {"layers": "layers"}, None),
        (MANIFEST | {"layers": [1]}, None),
        (MANIFEST | {"layers": [None]}, None),
        (MANIFEST | {"annotations": {"a": 1}}, None),
        (MANIFEST | {"annotations": []}, None),
        (MANIFEST | {"subject": "sha256:"}, None),
        (MANIFEST | {"mediaType": 2}, None),
        (MANIFEST | {"artifactType": {}}, None),
        (MANIFEST | {"layers": [LAYER | {"size": -1}]}, None),
        (MANIFEST | {"layers": [LAYER | {"size": 1.5}]}, None),
        (MANIFEST | {"layers": [LAYER | {"size": True}]}, None),
        (MANIFEST | {"layers": [LAYER | {"size": "3"}]}, None),
        (MANIFEST | {"layers": [LAYER | {"size": 2**63}]}, None),
        (MANIFEST | {"layers": [LAYER | {"size": 10**4000}]}, None),
        (MANIFEST | {"layers": [LAYER | {"digest": "sha256:0"}]}, None),
        (MANIFEST | {"layers": [LAYER | {"digest": "../../etc/passwd"}]}, None),
        (MANIFEST | {"layers": [LAYER | {"digest": None}]}, None),
        (MANIFEST | {"layers": [LAYER | {"mediaType": None}]}, None),
        (MANIFEST | {"layers": [{}]}, None),
        ([MANIFEST], None),
        ("manifest", None),
        (None, None),
        (2, None),
    ],
)
def test_what_kitd_cannot_follow_is_refused(document, sent_as):
    with pytest.raises(InvalidManifestError):
        parse_manifest(encode(document), sent_as)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"<html>",
        b"\xff\xfe",
        b'{"schemaVersion":2,"schemaVersion":2}',
        b'{"schemaVersion":2,"annotations":{"a":"1","a":"2"}}',
        b'{"schemaVersion":NaN}',
        b'{"schemaVersion":2,"x":Infinity}',
        b'{"schemaVersion":2,"x":1e999}',
        b'{"schemaVersion":2,"x":' + b"9" * 5000 + b"}",
        b'{"schemaVersion":2,"annotations":{"a":"\\ud800"}}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":' * 65 + b"1" + b"}" * 65,
        encode(MANIFEST).decode().encode("utf-16"),
        b"\xef\xbb\xbf" + encode(MANIFEST),
        encode(MANIFEST) + b"{}",
        b" " * MAX_MANIFEST_BYTES + encode(MANIFEST),
    ],
)
def test_bytes_that_are_not_one_strict_json_object_are_refused(content):
    with pytest.raises(InvalidManifestError):
        parse_manifest(content)


def test_brackets_that_an_encoding_hides_do_not_reach_the_recursion_limit():
    """In UTF-16 the quote's byte occurs inside other characters."""
    hidden = '"∢"'.encode("utf-16-le") + ("[" * 100_000).encode("utf-16-le")
    with pytest.raises(InvalidManifestError):
        parse_manifest(hidden)


def test_a_duplicate_among_very_many_keys_is_found_quickly():
    """The time limit of a test is what a quadratic search would run into."""
    members = ",".join(f'"{number}":0' for number in range(300_000))
    content = f'{{{members},"299999":0}}'.encode()
    assert len(content) < MAX_MANIFEST_BYTES
    with pytest.raises(InvalidManifestError, match="'299999' is given twice"):
        parse_manifest(content)


def test_brackets_in_strings_are_not_nesting():
    annotations = {"a": '[{"' * 1000, "b": "\\" * 7 + '"[' * 100}
    manifest = parse_manifest(encode(MANIFEST | {"annotations": annotations}))
    assert manifest.annotations == annotations


def test_pairs_of_escaped_surrogates_are_characters():
    manifest = parse_manifest(encode(MANIFEST | {"annotations": {"a": "🦊"}}))
    assert manifest.annotations == {"a": "🦊"}


@pytest.mark.parametrize("key", ["mediaType", "schemaVersion", "artifactType"])
@pytest.mark.parametrize("value", ["\n" * 1_000_000, ["x" * 1_000_000], 10**4000])
def test_a_refusal_is_one_short_line(key, value):
    with pytest.raises(InvalidManifestError) as caught:
        parse_manifest(encode({"layers": [], "manifests": []} | MANIFEST | {key: value}))
    assert len(caught.value.message) < 500
    assert caught.value.message.isprintable()


def test_too_many_descriptors_are_refused():
    few = encode({"schemaVersion": 2, "manifests": [{}] * 20_001})
    with pytest.raises(InvalidManifestError, match="20001 items"):
        parse_manifest(few)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_only_the_one_error(content):
    with pytest.raises(InvalidManifestError):
        parse_manifest(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=6,
)
KEYS = [
    "schemaVersion", "mediaType", "artifactType", "config",
    "layers", "manifests", "subject", "annotations", "digest", "size",
]  # fmt: skip


@given(st.dictionaries(st.sampled_from(KEYS), JSON), st.sampled_from([MANIFEST, INDEX]))
def test_arbitrary_values_parse_or_raise_only_the_one_error(changes, document):
    try:
        manifest = parse_manifest(encode(document | changes))
    except InvalidManifestError:
        return
    assert types.is_manifest(manifest.media_type)


def test_a_referrer_carries_the_annotations_and_a_type():
    content = encode(MANIFEST | {"annotations": {"a": "b"}})
    target = describe(types.OCI_MANIFEST, content)
    referrer = describe_referrer(target, parse_manifest(content))
    assert (referrer.digest, referrer.size) == (target.digest, target.size)
    assert referrer.annotations == {"a": "b"}
    assert referrer.artifact_type == types.OCI_EMPTY
    named = parse_manifest(encode(MANIFEST | {"artifactType": "x/y"}))
    assert describe_referrer(target, named).artifact_type == "x/y"
    index = parse_manifest(encode(INDEX))
    assert describe_referrer(target, index).artifact_type is None
