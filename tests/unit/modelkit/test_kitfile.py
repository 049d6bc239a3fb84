"""Reading Kitfiles: shapes, positions of errors, bounds."""

from dataclasses import replace

import pytest

from kitd.modelkit.errors import KitfileError
from kitd.modelkit.kitfile import (
    Code,
    Dataset,
    Docs,
    EntryKind,
    Kitfile,
    LayerDigests,
    McpServer,
    Model,
    ModelPart,
    Package,
    Prompt,
    layer_entries,
    model_reference,
    parse_kitfile,
    reference_of,
    with_layer_digests,
)
from kitd.oci.digest import digest_of

EVERYTHING = b"""\
manifestVersion: 1.0.0
package: {name: p, version: 1.10, description: d, license: MIT, authors: [a, null, 1]}
model:
  name: m
  path: m.bin
  license: l
  framework: f
  format: gguf
  version: 017
  description: text
  parts: [{name: n, path: part, license: l, type: t}]
  parameters: {a: [1, {b: 0x10}]}
code: [{path: src, description: d, license: l}]
datasets:
  - {name: d, path: data, description: x, license: l, parameters: 3}
  - {name: r, path: there, remotePath: s3://b/k, remoteHash: abc}
docs: [{path: README.md, description: d}]
prompts: [{name: p, path: AGENTS.md, description: d}]
mcpServers: [{name: s, path: s.mcpb, description: d}]
"""


def test_every_key_of_the_current_dialect_is_read():
    assert parse_kitfile(EVERYTHING) == Kitfile(
        manifest_version="1.0.0",
        package=Package("p", "1.10", "d", "MIT", ("a", "1")),
        model=Model(
            name="m",
            path="m.bin",
            license="l",
            framework="f",
            format="gguf",
            version="017",
            description="text",
            parts=(ModelPart(name="n", path="part", license="l", type="t"),),
            parameters={"a": (1, {"b": 16})},
        ),
        code=(Code(path="src", description="d", license="l"),),
        datasets=(
            Dataset(name="d", path="data", description="x", license="l", parameters=3),
            Dataset(name="r", path="there", remote_path="s3://b/k", remote_hash="abc"),
        ),
        docs=(Docs(path="README.md", description="d"),),
        prompts=(Prompt(name="p", path="AGENTS.md", description="d"),),
        mcp_servers=(McpServer(name="s", path="s.mcpb", description="d"),),
    )


@pytest.mark.parametrize(
    ("content", "kitfile"),
    [
        (b"package:\nmodel:\ncode:\n", Kitfile()),
        (b"model: {}\n", Kitfile(model=Model())),
        (b"code: [null, {path: a}, ~]\n", Kitfile(code=(Code(path="a"),))),
        (b"manifestVersion: '1'\n---\nnonsense: true\n", Kitfile(manifest_version="1")),
        (b"\xef\xbb\xbfmanifestVersion: 1.0\n", Kitfile(manifest_version="1.0")),
        (b"code: [&c {path: a, license: MIT}, {<<: *c, path: b}]\n",
         Kitfile(code=(Code(path="a", license="MIT"), Code(path="b", license="MIT")))),
        (b"docs: [{<<: [{path: a}, {path: b, description: d}]}]\n",
         Kitfile(docs=(Docs(path="a", description="d"),))),
        (b"manifestVersion: !!binary aGVsbG8=\n", Kitfile(manifest_version="hello")),
        (b"model: {parameters: {'<<': 1}}\n", Kitfile(model=Model(parameters={"<<": 1}))),
    ],
)  # fmt: skip
def test_null_aliases_merges_and_further_documents(content, kitfile):
    assert parse_kitfile(content) == kitfile


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Kitfile:1:1: the file is empty"),
        (b"# only a comment\n", "Kitfile:1:1: the file is empty"),
        (b"just text\n", "Kitfile:1:1: expected keys and values, found text"),
        (b"a: 1\nmodell: {}\n", "Kitfile:1:1: unknown key 'a'"),
        (b"modle: {}\n", "Kitfile:1:1: unknown key 'modle', did you mean 'model'?"),
        (b"code:\n  - paht: x\n", "Kitfile:2:5: unknown key 'paht', did you mean 'path'?"),
        (b"docs: []\ncode: []\ndocs: []\n", "Kitfile:3:1: the key 'docs' is already on line 1"),
        (b"model:\n  path: [a]\n", "Kitfile:2:9: expected text, found a list"),
        (b"model: x\n", "Kitfile:1:8: expected keys and values, found text"),
        (b"code: {path: x}\n", "Kitfile:1:7: expected a list, found keys and values"),
        (b"model: {digest: x}\n", "Kitfile:1:9: unknown key 'digest'"),
        (b"model:\n  parameters: {1: a}\n", "Kitfile:2:16: the key '1' is not text"),
        (b"model: {parameters: {a: {b: 1, b: 2}}}\n",
         "Kitfile:1:32: the key 'b' is already on line 1"),
        (b"model: {parameters: .inf}\n", "Kitfile:1:21: .inf cannot be written as JSON"),
        (b"model: {parameters: !!int x}\n", "Kitfile:1:21: 'x' is not of the type int"),
        (b"model: {parameters: {[a]: b}}\n", "Kitfile:1:22: a key must be text"),
        (b"model: {parameters: *a}\n", "Kitfile:1:21: the anchor 'a' is not defined"),
        (b"model: {parameters: &a [*a]}\n",
         "Kitfile:1:25: the value of the anchor 'a' contains itself"),
        (b"docs: [{<<: 1}]\n", "Kitfile:1:13: << takes a map or a list of maps"),
        (b"model:\n  name: caf\xe9\n", "Kitfile:2:12: the byte 0xe9 is not UTF-8"),
        (b"model:\r\n  name: a\x07b\n", "Kitfile:2:10: the character U+0007 is not allowed"),
    ],
)  # fmt: skip
def test_errors_say_where_and_why(content, message):
    with pytest.raises(KitfileError) as caught:
        parse_kitfile(content)
    assert caught.value.message == message
    assert caught.value.problems == (message.removeprefix("Kitfile:"),)


def test_a_tab_is_named_with_its_place_and_a_hint():
    with pytest.raises(KitfileError, match=r"^my/Kitfile:2:1: ") as caught:
        parse_kitfile(b"model:\n\tname: x\n", name="my/Kitfile")
    assert caught.value.hint == "indent with spaces, not with tabs"


def test_unbalanced_brackets_are_named_with_their_place():
    with pytest.raises(KitfileError, match=r"^Kitfile:2:1: "):
        parse_kitfile(b"code: [{path: x}\n")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a: " + b"x" * 1024 * 1024, "more than 1048576"),
        (b"model: {parameters: " + b"[" * 60 + b"]" * 60 + b"}", "nested deeper than 48 levels"),
        (b"model: {parameters: [" + b"a," * 200_000 + b"]}", "too large"),
    ],
    ids=["bytes", "depth", "nodes"],
)
def test_bounds(content, problem):
    with pytest.raises(KitfileError, match=problem):
        parse_kitfile(content)


def laughs(leaf: str) -> bytes:
    lines = ["model:", "  parameters:", f"    a0: &a0 [{leaf}]"]
    for level in range(1, 20):
        aliases = ",".join([f"*a{level - 1}"] * 10)
        lines.append(f"    a{level}: &a{level} [{aliases}]")
    return "\n".join(lines).encode()


@pytest.mark.parametrize("leaf", ["lol", "x" * 100_000])
def test_aliases_do_not_multiply_without_bound(leaf):
    with pytest.raises(KitfileError, match="too large with its aliases followed"):
        parse_kitfile(laughs(leaf))


def test_aliases_do_not_nest_without_bound():
    lines = ["model:", "  parameters:", "    a0: &a0 []"]
    lines += [f"    a{level}: &a{level} [*a{level - 1}]" for level in range(1, 60)]
    with pytest.raises(KitfileError, match="nested deeper"):
        parse_kitfile("\n".join(lines).encode())


def test_layers_are_ordered_by_kind_and_remote_datasets_have_none():
    places = layer_entries(parse_kitfile(EVERYTHING))
    assert [(place.kind, place.index, place.entry.path) for place in places] == [
        (EntryKind.MODEL, 0, "m.bin"),
        (EntryKind.MODEL_PART, 0, "part"),
        (EntryKind.CODE, 0, "src"),
        (EntryKind.DATASET, 0, "data"),
        (EntryKind.DOCS, 0, "README.md"),
        (EntryKind.PROMPT, 0, "AGENTS.md"),
        (EntryKind.MCP_SERVER, 0, "s.mcpb"),
    ]


def test_digests_go_to_the_entries_that_have_layers():
    kitfile = parse_kitfile(EVERYTHING)
    places = layer_entries(kitfile)
    digests = [digest_of(place.kind.encode()) for place in places]
    packed = with_layer_digests(kitfile, [LayerDigests(digest, digest) for digest in digests])
    assert [place.entry.digest for place in layer_entries(packed)] == digests
    assert packed.datasets[1].digest is None
    with pytest.raises(ValueError, match="zip"):
        with_layer_digests(kitfile, [])


@pytest.mark.parametrize(
    ("path", "reads_as_reference"),
    [
        ("weights/model.bin", False),
        ("registry.example.com/team/model", False),
        ("registry.example.com/team/model:v1", True),
        ("model:v1.bin", True),
        ("dir/A:b", False),
        ("./models/film:champion", False),
        (f"m@{digest_of(b'')}", True),
    ],
)
def test_a_path_is_a_reference_if_it_has_a_colon_or_at_sign_and_parses(path, reads_as_reference):
    assert (reference_of(path) is not None) is reads_as_reference


def test_a_model_that_has_a_layer_refers_to_no_kit():
    model = Model(path="llama3:8b.gguf")
    assert model_reference(Kitfile(model=model)) is not None
    assert layer_entries(Kitfile(model=model)) == ()
    packed = Kitfile(model=replace(model, digest=digest_of(b"")))
    assert model_reference(packed) is None
    assert [place.entry.path for place in layer_entries(packed)] == ["llama3:8b.gguf"]
