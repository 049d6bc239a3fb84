"""Which kits follow from which, and when that comes to no end."""

import pytest

from kitd.modelkit.chain import (
    DATASETS_ONLY,
    MAX_PARENTS,
    ReferenceCycleError,
    TooManyParentsError,
    Trail,
    filter_text,
    layer_paths,
    merge,
    of_parent,
)
from kitd.modelkit.filter import parse_filter
from kitd.modelkit.kitfile import parse_kitfile
from kitd.oci.digest import digest_of
from kitd.oci.reference import parse_reference


def ref(text):
    return parse_reference(text)


def test_a_chain_of_ten_parents_is_followed_and_no_longer_one():
    trail = Trail.begin([ref("team/child:v1")])
    for number in range(MAX_PARENTS):
        trail = trail.to(ref(f"team/parent:v{number}")).at(digest_of(b"%d" % number))
    why = r"more than 10 kits .* team/child:v1 on; .* team/parent:v10"
    with pytest.raises(TooManyParentsError, match=why):
        trail.to(ref("team/parent:v10"))


@pytest.mark.parametrize(
    "again", ["r.example.com/a", "r.example.com/a:latest", "R.example.com/a:latest"]
)
def test_a_name_that_comes_back_is_a_loop_however_it_is_spelt(again):
    trail = Trail.begin([ref("r.example.com/a:latest")]).to(ref("r.example.com/b:v1"))
    with pytest.raises(
        ReferenceCycleError,
        match=r"r\.example\.com/a:latest => r\.example\.com/b:v1 => r\.example\.com/a:latest$",
    ):
        trail.to(ref(again))


def test_a_kit_that_comes_back_under_another_name_is_a_loop():
    trail = Trail.begin([ref("a:v1")], digest_of(b"a")).to(ref("b:v1")).at(digest_of(b"b"))
    with pytest.raises(ReferenceCycleError, match=f"a:other => {digest_of(b'a')}"):
        trail.to(ref("a:other")).at(digest_of(b"a"))


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ((), ("model",)),
        (("model",), ("model",)),
        (("datasets,model:m,n", "code"), ("model:m,n",)),
        (("model:a", "docs,model"), ("model:a", "model")),
        (("code", "kitfile:model"), None),
    ],
)
def test_of_a_parent_only_the_model_is_taken(filters, expected):
    reduced = of_parent([parse_filter(text) for text in filters])
    assert (None if reduced is None else tuple(map(filter_text, reduced))) == expected


def test_a_filter_is_written_as_it_is_read():
    (datasets,) = DATASETS_ONLY
    for chosen in (datasets, parse_filter("model,code:b,a"), parse_filter("kitfile")):
        assert parse_filter(filter_text(chosen)) == chosen


def test_the_nearest_wins_and_lists_follow_each_other():
    child = parse_kitfile(
        b"package: {name: child, authors: [Ada]}\n"
        b"model: {path: 'p:v1', license: MIT, parts: [{path: head}]}\n"
        b"code: [{path: src}]\n"
    )
    parent = parse_kitfile(
        b"manifestVersion: 1.0.0\npackage: {name: parent, version: 1.2.0, authors: [Bo]}\n"
        b"model: {name: m, path: 'g:v1', framework: torch, format: onnx, parts: [{path: lora}]}\n"
        b"docs: [{path: README.md}]\n"
    )
    root = parse_kitfile(
        b"package: {license: Apache-2.0}\nmodel: {name: r, path: m.bin, framework: jax}\n"
        b"datasets: [{path: data}]\nprompts: [{path: AGENTS.md}]\n"
    )
    merged = merge(child, [parent, root])
    assert (merged.package.name, merged.package.version) == ("child", "1.2.0")
    assert (merged.package.license, merged.package.authors) == ("Apache-2.0", ("Ada", "Bo"))
    model = merged.model
    assert (model.name, model.path, model.framework, model.license) == (
        "m",
        "m.bin",
        "torch",
        "MIT",
    )
    assert model.format == ""
    assert [part.path for part in model.parts] == ["head", "lora"]
    assert [entry.path for entry in (*merged.code, *merged.datasets, *merged.docs)] == [
        "src",
        "data",
        "README.md",
    ]
    assert merged.prompts[0].path == "AGENTS.md"
    assert merged.manifest_version == "1.0.0"


def test_layers_have_paths_and_references_have_none():
    kits = [
        parse_kitfile(b"model: {path: 'p:v1', parts: [{path: ./head/}]}\ncode: [{path: src}]"),
        parse_kitfile(
            b"model: {path: m.bin}\ncode: [{path: src}]\n"
            b"datasets: [{path: far, remotePath: 's3://b/k', remoteHash: h}]\n"
        ),
    ]
    assert layer_paths(kits) == ("head", "m.bin", "src")
