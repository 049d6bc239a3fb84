"""Manifests and the key of their content."""

import json

import pytest

from kitd.modelkit import media_type as types
from kitd.modelkit.dialect import Dialect
from kitd.modelkit.manifest import (
    content_key,
    encode_manifest,
    file_metadata,
    unpack_warnings,
)
from kitd.oci.descriptor import Descriptor, describe
from kitd.oci.digest import digest_of
from kitd.oci.manifest import parse_manifest

CONFIG = describe(types.CONFIG, b"{}")
LAYER = Descriptor("type", digest_of(b"x"), 1, {"org.cncf.model.filepath": "x", "a": "b"})


def test_annotations_are_sorted():
    content = encode_manifest(
        CONFIG, [LAYER], Dialect.CURRENT, cli_version="1.16.0", created="2026-01-02T03:04:05Z"
    )
    assert b'"annotations":{"a":"b","org.cncf.model.filepath":"x"}' in content
    assert content.endswith(
        b'"annotations":{"ml.kitops.modelkit.cli-version":"1.16.0",'
        b'"org.opencontainers.image.created":"2026-01-02T03:04:05Z"}}'
    )


@pytest.mark.parametrize(("dialect", "layers"), [(Dialect.KIT_1_7, None), (Dialect.CURRENT, [])])
def test_no_layers_are_null_to_kit_1_7_and_a_list_since(dialect, layers):
    content = encode_manifest(CONFIG, [], dialect, cli_version="1")
    assert json.loads(content)["layers"] == layers


def test_kit_1_7_is_not_told_when():
    made = [
        encode_manifest(CONFIG, [], Dialect.KIT_1_7, cli_version="1", created=created)
        for created in (None, "2026-01-02T03:04:05Z")
    ]
    assert made[0] == made[1]


@pytest.mark.parametrize("dialect", list(Dialect))
def test_both_dialects_are_modelkits(dialect):
    manifest = parse_manifest(encode_manifest(CONFIG, [LAYER], dialect, cli_version="1"))
    assert types.kit_format(manifest) is types.KitFormat.MODELKIT


def test_the_content_key_changes_with_config_layers_annotations_and_dialect():
    other_config = describe(types.CONFIG, b"{ }")
    other_layer = Descriptor(LAYER.media_type, LAYER.digest, LAYER.size)
    keys = {
        content_key(CONFIG, [LAYER], Dialect.CURRENT),
        content_key(CONFIG, [LAYER], Dialect.KIT_1_7),
        content_key(other_config, [LAYER], Dialect.CURRENT),
        content_key(CONFIG, [other_layer], Dialect.CURRENT),
        content_key(CONFIG, [LAYER, LAYER], Dialect.CURRENT),
    }
    assert len(keys) == 5
    assert content_key(CONFIG, [LAYER], Dialect.CURRENT) in keys


def test_the_content_key_changes_with_the_form_and_with_a_time_that_was_asked_for():
    keys = {
        content_key(CONFIG, [LAYER], Dialect.CURRENT),
        content_key(CONFIG, [LAYER], types.KitFormat.MODELPACK),
        content_key(CONFIG, [LAYER], Dialect.CURRENT, created_s=0),
        content_key(CONFIG, [LAYER], Dialect.CURRENT, created_s=1),
    }
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("digests", "form", "warned"),
    [("ab", "raw", False), ("aab", "raw", True), ("aa", "tar", False)],
)
def test_equal_files_are_too_much_for_kit(digests, form, warned):
    layers = [
        Descriptor(f"application/vnd.kitops.modelkit.code.v1.{form}", digest_of(name.encode()), 1)
        for name in digests
    ]
    assert bool(unpack_warnings(layers)) == warned


def test_a_raw_files_metadata():
    assert file_metadata("model.gguf", 0o104644, 16) == (
        '{"name":"model.gguf","mode":420,"uid":0,"gid":0,"size":16,'
        '"mtime":"1970-01-01T00:00:00Z","typeflag":48}'
    )
