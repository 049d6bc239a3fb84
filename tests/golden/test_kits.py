"""Packing by the pure functions alone gives the bytes that kit gives."""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest

from kitd.errors import KitdError
from kitd.modelkit import media_type as types
from kitd.modelkit.config_blob import encode_config, parse_config
from kitd.modelkit.dialect import Dialect
from kitd.modelkit.ignore import IgnoreRules
from kitd.modelkit.kitfile import LayerDigests, layer_entries, parse_kitfile, with_layer_digests
from kitd.modelkit.manifest import encode_manifest
from kitd.modelkit.plan import select
from kitd.modelkit.tar import TRAILER, header, padding
from kitd.oci.descriptor import Descriptor, describe
from kitd.oci.digest import digest_of
from kitd.oci.manifest import parse_manifest


@dataclass
class Kit:
    manifest: bytes
    config: bytes
    tars: list[bytes]
    entries: list[list[list]]


def walk(root: bytes, prefix: bytes, selection):
    for entry in sorted(os.scandir(os.path.join(root, prefix)), key=lambda entry: entry.name):
        path, status = prefix + entry.name, entry.stat(follow_symlinks=False)
        if stat.S_ISREG(status.st_mode):
            yield path, status, selection.layers_of(path, is_dir=False)
        elif stat.S_ISDIR(status.st_mode):
            yield path, status, selection.layers_of(path, is_dir=True)
            if selection.enter(path):
                yield from walk(root, path + b"/", selection)


def pack(root: Path, dialect: Dialect, cli_version: str, created: str | None = None) -> Kit:
    kitfile = parse_kitfile((root / "Kitfile").read_bytes())
    ignore = root / ".kitignore"
    rules = IgnoreRules.parse(ignore.read_bytes() if ignore.exists() else b"")
    selection = select(kitfile, rules, dialect)
    for layer in selection.layers:
        os.lstat(os.path.join(os.fsencode(root), layer.path))
    tars = [b""] * len(selection.layers)
    entries = [[] for _ in selection.layers]
    for path, status, layers in walk(os.fsencode(root), b"", selection):
        is_dir = stat.S_ISDIR(status.st_mode)
        content = b"" if is_dir else (root / os.fsdecode(path)).read_bytes()
        mode = f"{stat.S_IMODE(status.st_mode):o}"
        for number in layers:
            block = header(path, status.st_mode, len(content), is_dir=is_dir)
            tars[number] += block + content + padding(len(content))
            kind = "dir" if is_dir else "file"
            entries[number].append([os.fsdecode(path), mode, kind, len(content)])
    tars = [tar + TRAILER for tar in tars]
    digests = [LayerDigests(digest_of(tar), digest_of(tar)) for tar in tars]
    config = encode_config(with_layer_digests(kitfile, digests))
    layers = [
        Descriptor(str(layer.type), digest_of(tar), len(tar), layer.annotations)
        for layer, tar in zip(selection.layers, tars, strict=True)
    ]
    manifest = encode_manifest(
        describe(types.CONFIG, config), layers, dialect, cli_version=cli_version, created=created
    )
    return Kit(manifest, config, tars, entries)


def test_kit_1_7_dialect_gives_the_same_manifest(case, expected, materialise):
    root = materialise(case)
    if not expected["ok"]:
        with pytest.raises((KitdError, FileNotFoundError)):
            pack(root, Dialect.KIT_1_7, "1.7.0")
        return
    kit = pack(root, Dialect.KIT_1_7, "1.7.0")
    assert kit.entries == [layer["entries"] for layer in expected["layers"]]
    assert kit.config.decode() == expected["config"]["text"]
    assert kit.manifest.decode() == expected["manifest"]["text"]
    assert digest_of(kit.manifest) == expected["manifest"]["digest"]


def test_current_dialect_gives_the_same_layers_and_config(case, expected, materialise):
    root = materialise(case)
    if not expected["ok"]:
        with pytest.raises((KitdError, FileNotFoundError)):
            pack(root, Dialect.CURRENT, "1.16.0")
        return
    kit = pack(root, Dialect.CURRENT, "1.16.0", "2026-01-02T03:04:05Z")
    assert [digest_of(tar) for tar in kit.tars] == [layer["digest"] for layer in expected["layers"]]
    assert digest_of(kit.config) == expected["config"]["digest"]
    manifest = parse_manifest(kit.manifest)
    assert types.kit_format(manifest) is types.KitFormat.MODELKIT
    assert all("org.cncf.model.filepath" in layer.annotations for layer in manifest.layers)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("bad-unknown-key", "Kitfile:2:1: unknown key 'modell', did you mean 'model'?"),
        ("bad-duplicate-path", "Kitfile: code layer 0 and docs layer 0 use the same path x"),
        (
            "bad-absolute",
            "Kitfile: absolute paths are not supported (path /etc in code layer 0)",
        ),
        ("bad-ignore-pattern", ".kitignore:1: the [ is not closed: '[a-'"),
    ],
)
def test_refused_kits_say_where_and_why(name, problem, golden_cases, materialise):
    with pytest.raises(KitdError) as caught:
        pack(materialise(golden_cases[name]), Dialect.KIT_1_7, "1.7.0")
    assert caught.value.message == problem


def test_equal_content_in_two_kits_is_one_blob(golden_cases, materialise):
    one, two = (
        pack(materialise(golden_cases[f"shared-dataset-{version}"]), Dialect.CURRENT, "1.16.0")
        for version in ("v1", "v2")
    )
    assert one.tars[1] == two.tars[1]
    assert one.tars[0] != two.tars[0]


def test_a_directory_in_the_current_dialect(materialise):
    case = {
        "name": "directory",
        "kitfile": (
            "manifestVersion: 1.0.0\npackage: {name: tiny}\nmodel: {name: tiny, path: ./weights/}\n"
        ),
        "files": {"weights/a.bin": "data"},
    }
    kit = pack(materialise(case), Dialect.CURRENT, "1.16.0", "2026-01-02T03:04:05Z")
    assert len(kit.manifest) == 643
    assert hashlib.sha256(kit.tars[0]).hexdigest().startswith("6e0c405eceb2ba8e")
    assert hashlib.sha256(kit.config).hexdigest().startswith("eed3d7965f18446b")
    assert digest_of(kit.manifest) == (
        "sha256:0e97ac6609e29194b1ceaf1185fe7ec8cb92cc3ccfa46f4122bc41bfd9acad20"
    )


def test_an_empty_kit_in_the_current_dialect(materialise):
    case = {
        "name": "empty",
        "kitfile": "manifestVersion: 1.0.0\npackage:\n  name: test-empty\n",
    }
    kit = pack(materialise(case), Dialect.CURRENT, "1.16.0", "2026-01-02T03:04:05Z")
    assert len(kit.config) == 59
    assert digest_of(kit.manifest) == (
        "sha256:cb206db42aac263383500219f836587b341afba31c2107c70da6c7cc9b0d509c"
    )


def test_names_that_strain_a_tar_header(materialise):
    """Exactly full names, prefixes of one byte, splits on directories, PAX, the sticky bit."""
    names = [
        f"d/{'a' * 98}",
        f"d/{'a' * 99}",
        f"{'x' * 60}/{'y' * 60}",
        f"{'x' * 60}/{'y' * 60}d/{'z' * 50}/{'q' * 20}",
        "n" * 120,
        "é/ü.txt",
        f"{'k' * 60}/é{'k' * 60}",
        "s/" + "".join(f"{digit * 30}/" for digit in "12345") + "6" * 90,
    ]
    case = {
        "name": "stress",
        "kitfile": "manifestVersion: 1.0.0\nmodel: {path: .}\n",
        "files": dict.fromkeys(names, "data"),
        "dirs": {"stick": "1777"},
    }
    kit = pack(materialise(case), Dialect.KIT_1_7, "1.7.0")
    assert len(kit.tars[0]) == 20992
    assert hashlib.sha256(kit.tars[0]).hexdigest() == (
        "df6271d24396f18a16412e82f294d1efa4db29fd74a4bf3bd1efdee29c99b0dc"
    )


def test_a_layer_without_entries_is_two_empty_blocks(materialise):
    case = {
        "name": "nothing",
        "kitfile": "code: [{path: notes}]",
        "kitignore": "notes\n",
        "files": {"notes": "x"},
    }
    kit = pack(materialise(case), Dialect.KIT_1_7, "1.7.0")
    assert digest_of(kit.tars[0]) == (
        "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    )


def test_what_kit_stored_can_be_read(kit_storage):
    """Every manifest in kit's storage is a ModelKit whose config names the layers' digests."""
    index = parse_manifest((kit_storage / "index.json").read_bytes())
    assert len(index.manifests) == 3
    for described in index.manifests:
        blobs = kit_storage / "blobs/sha256"
        manifest = parse_manifest((blobs / described.digest[7:]).read_bytes())
        assert types.kit_format(manifest) is types.KitFormat.MODELKIT
        config = (blobs / manifest.config.digest[7:]).read_bytes()
        kitfile = parse_config(config)
        assert encode_config(kitfile) == config
        assert [place.entry.digest for place in layer_entries(kitfile)] == [
            layer.digest for layer in manifest.layers
        ]


def test_every_golden_config_is_written_as_it_was_read(expected, case):
    if expected["ok"] and case["name"] != "parameters":
        text = expected["config"]["text"].encode()
        assert encode_config(parse_config(text)) == text
