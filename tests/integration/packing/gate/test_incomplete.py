"""Sets of files of which one is missing hold a project back."""

import json

import pytest

LATER_S = 3600.0


def shards(numbers, *, count=3, stem="model-", suffix=".safetensors"):
    content = b"\x02\0\0\0\0\0\0\0{}" if suffix == ".safetensors" else b""
    return {f"{stem}{number:05}-of-{count:05}{suffix}": content for number in numbers}


def index(*names):
    return json.dumps({"metadata": {}, "weight_map": {f"w{n}": n for n in names}})


@pytest.mark.parametrize(
    "files",
    [
        shards([1, 2, 3]),
        shards([0, 1, 2], stem="data/train.", suffix=".json.gz"),
        shards([1], count=1, stem="", suffix=""),
        shards([7], count=0),
        shards([1, 2, 3], stem="a/") | shards([1, 2], count=2, stem="b/"),
        {"take-1-of-9.txt": "", "0000001-of-00000009": "", "00001-of-00002/": ""},
    ],
    ids=["from one", "from zero", "one", "none", "two sets", "other names"],
)
def test_a_complete_set_does_not_hold(project, holds, files):
    root = project({name: content for name, content in files.items() if not name.endswith("/")})
    for name in files:
        if name.endswith("/"):
            (root / name).mkdir()
    assert holds(root) == []


@pytest.mark.parametrize(
    ("numbers", "present", "missing"),
    [([1, 3], 1, 2), ([2, 3], 2, 1), ([0, 2], 0, 1), ([3], 3, 1), ([1, 2], 1, 3)],
)
def test_a_set_holds_that_lacks_a_shard_of_a_model(project, holds, numbers, present, missing):
    root = project(shards(numbers, stem="sub/model-"))
    for later_s in (0, LATER_S):
        assert holds(root, later_s=later_s, detail=True) == [
            (
                "incomplete",
                f"sub/model-{present:05}-of-00003.safetensors",
                f"of its set of 3, model-{missing:05}-of-00003.safetensors is missing",
            )
        ]


def test_a_set_of_data_holds_while_it_is_young_only(project, holds):
    root = project(shards([0, 1], count=1024, stem="c4-train.", suffix=".json.gz"))
    assert holds(root) == [("incomplete", "c4-train.00000-of-01024.json.gz")]
    assert holds(root, later_s=LATER_S) == []


def test_a_set_is_looked_at_if_any_of_its_files_is_judged(project, holds):
    root = project(shards([1, 3]) | shards([2], stem="other-"))
    assert holds(root, {b"model-00003-of-00003.safetensors"}) == [
        ("incomplete", "model-00001-of-00003.safetensors")
    ]


def test_a_shard_that_stays_out_of_the_kit_is_not_missing(project, holds):
    root = project(shards([1, 2, 3]))
    (root / "elsewhere").write_bytes(b"")
    assert holds(root, ignored=b"model-00002*\n") == []
    (root / "model-00003-of-00003.safetensors").unlink()
    (root / "model-00003-of-00003.safetensors").symlink_to("elsewhere")
    assert holds(root) == []


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("model.safetensors.index.json", "a.safetensors"),
        ("pytorch_model.bin.index.json", "b.bin"),
        ("sub/tf_model.h5.index.json", "c.h5"),
    ],
)
def test_an_index_holds_until_all_that_it_names_is_beside_it(project, holds, name, file):
    root = project({name: index(file)})
    for later_s in (0, LATER_S):
        assert holds(root, later_s=later_s, detail=True) == [
            ("incomplete", name, f"it names {file}, which is missing")
        ]
    (root / name).with_name(file).write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    assert holds(root) == []


def test_an_index_is_read_if_it_or_a_file_that_it_may_name_is_judged(project, holds):
    root = project({"m.bin.index.json": index("gone.bin"), "a.bin": "a", "sub/a.bin": "a", "b": ""})
    held = [("incomplete", "m.bin.index.json")]
    assert holds(root, {b"m.bin.index.json"}) == held
    assert holds(root, {b"a.bin"}) == held
    assert holds(root, {b"b", b"sub/a.bin"}) == []


def test_an_index_that_is_cut_holds(project, holds):
    root = project({"m.bin.index.json": index("a.bin")[:-3], "a.bin": ""})
    assert holds(root, detail=True) == [("incomplete", "m.bin.index.json", "it is not valid JSON")]


@pytest.mark.parametrize(
    "content",
    ["[]", '{"other": 1}', '{"weight_map": {"a": 1}}', '{"weight_map": ["a"]}'],
)
def test_an_index_of_something_else_does_not_hold(project, holds, content):
    assert holds(project({"m.bin.index.json": content})) == []


@pytest.mark.parametrize(
    "name", ["../../../etc/none", "/none", "a\0b", "\udcff\ud800", "x" * 5000, "a.bin/b"]
)
def test_an_index_of_hostile_names_does_no_harm(project, holds, name):
    root = project({"m.bin.index.json": index(name), "a.bin": ""})
    assert {gate for gate, _ in holds(root)} <= {"incomplete"}


def test_an_index_that_is_a_link_is_not_read(project, holds):
    root = project({"index": index("gone.bin"), "a.bin": ""})
    (root / "m.bin.index.json").symlink_to("index")
    assert holds(root) == []
