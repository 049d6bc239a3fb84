"""Which layers there are and which of them take what."""

import pytest

from kitd.modelkit.dialect import Dialect
from kitd.modelkit.errors import KitfileError, UnsupportedKitError
from kitd.modelkit.ignore import IgnoreRules
from kitd.modelkit.kitfile import parse_kitfile
from kitd.modelkit.media_type import Compression, LayerFormat
from kitd.modelkit.plan import Selection, plan_layers, select

KITFILE = """\
manifestVersion: 1.0.0
model: {path: main, parts: [{path: main/sub/../part.bin}]}
code: [{path: .}]
datasets: [{path: main/sub/data/}]
"""
MODEL, PART, CODE, DATA = range(4)


def selection(kitfile: str = KITFILE, ignore: str = "", **options):
    rules = IgnoreRules.parse(ignore.encode())
    return select(parse_kitfile(kitfile.encode()), rules, Dialect.CURRENT, **options)


DIRECTORIES = [
    ("main", (MODEL, PART, DATA)),
    ("main/sub", (MODEL, DATA)),
    ("main/sub/data", (DATA,)),
    ("main/sub/data/deep", (DATA,)),
    ("main/part", (MODEL,)),
    ("main-card", (CODE,)),
    ("lib", (CODE,)),
    ("a..b", (CODE,)),
]
FILES = [
    ("main/w", (MODEL,)),
    ("main/part.bin", (PART,)),
    ("main/part.bin.bak", (MODEL,)),
    ("main/sub/x", (MODEL,)),
    ("main/sub/data.csv", (MODEL,)),
    ("main/sub/data/x", (DATA,)),
    ("main/sub/data/deep/x", (DATA,)),
    ("main.py", (CODE,)),
    ("x..y", (CODE,)),
    ("lib/a..b/c", (CODE,)),
    ("Kitfile", ()),
    (".kitignore", ()),
    ("lib/Kitfile", (CODE,)),
]


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_file_is_in_the_deepest_layer_and_a_directory_leads_to_its_layers(shuffled):
    chosen = selection()
    asked = [(path, True, layers) for path, layers in DIRECTORIES]
    asked += [(path, False, layers) for path, layers in FILES]
    asked.sort(reverse=shuffled)
    for path, is_dir, layers in asked:
        assert chosen.layers_of(path.encode(), is_dir=is_dir) == layers, path


def test_a_walk_enters_only_what_leads_to_a_layer():
    chosen = selection("code: [{path: src}]\ndatasets: [{path: data/train/set}]\n")
    entered = [
        path
        for path in (".git", ".venv", "data", "data/test", "data/train", "data/train/set", "src")
        if chosen.enter(path.encode())
    ]
    assert entered == ["data", "data/train", "data/train/set", "src"]


@pytest.mark.parametrize(("ignore", "entered"), [("skip\n", False), ("skip\n!skip/keep\n", True)])
def test_an_ignored_directory_is_entered_only_for_exceptions(ignore, entered):
    chosen = selection(ignore=ignore)
    assert chosen.layers_of(b"skip", is_dir=True) == ()
    assert chosen.enter(b"skip") is entered
    assert chosen.layers_of(b"skip/drop", is_dir=False) == ()
    assert chosen.layers_of(b"skip/keep", is_dir=False) == ((CODE,) if entered else ())


def test_names_that_are_not_utf8_are_taken():
    assert selection().layers_of(b"lib/\xff\xfe", is_dir=False) == (CODE,)


def test_a_layers_descriptor_tells_its_path_and_that_it_is_a_prompt():
    kitfile = parse_kitfile(b"model: {path: ./weights/}\nprompts: [{path: AGENTS.md}]\n")
    model, prompt = plan_layers(kitfile, Dialect.CURRENT, compression=Compression.GZIP)
    assert (str(model.type), model.annotations) == (
        "application/vnd.kitops.modelkit.model.v1.tar+gzip",
        {"org.cncf.model.filepath": "weights"},
    )
    assert (str(prompt.type), prompt.annotations) == (
        "application/vnd.kitops.modelkit.code.v1.tar+gzip",
        {
            "org.cncf.model.filepath": "AGENTS.md",
            "ml.kitops.modelkit.layer-subtype": "prompt",
        },
    )


def test_kit_1_7_annotates_no_layer():
    (layer,) = plan_layers(parse_kitfile(b"code: [{path: a}]"), Dialect.KIT_1_7)
    assert layer.annotations == {}
    assert layer.path == b"a"


def test_an_mcp_server_is_a_raw_layer_that_no_rule_leaves_out():
    kitfile = "code: [{path: .}]\nmcpServers: [{name: s, path: tools/s.mcpb}]\n"
    chosen = selection(kitfile, ignore="tools\n", compression=Compression.ZSTD)
    assert str(chosen.layers[1].type) == "application/vnd.kitops.modelkit.mcpb.v1.raw"
    assert chosen.layers_of(b"tools", is_dir=True) == ()
    assert chosen.enter(b"tools")
    assert chosen.layers_of(b"tools/s.mcpb", is_dir=False) == (1,)
    assert chosen.layers_of(b"tools/s.mcpb", is_dir=True) == ()
    assert chosen.layers_of(b"tools/other", is_dir=False) == ()


def test_raw_layers_are_single_files_and_kept_out_of_tars():
    chosen = selection("code: [{path: a/x}, {path: b}]", layer_format=LayerFormat.RAW)
    assert chosen.layers_of(b"a", is_dir=True) == ()
    assert chosen.enter(b"a")
    assert chosen.layers_of(b"a/x", is_dir=False) == (0,)
    assert chosen.layers_of(b"b", is_dir=True) == ()
    assert chosen.layers_of(b"b/x", is_dir=False) == ()


def test_a_parent_and_what_is_remote_have_no_layer():
    kitfile = (
        b"model: {path: 'registry.example.com/team/base:v1', parts: [{path: head}]}\n"
        b"datasets: [{path: far, remotePath: 's3://b/k', remoteHash: h}, {path: near}]\n"
    )
    layers = plan_layers(parse_kitfile(kitfile), Dialect.CURRENT)
    assert [layer.path for layer in layers] == [b"head", b"near"]


def test_what_parents_have_is_left_out_but_for_layers_that_begin_in_there():
    layers = plan_layers(
        parse_kitfile(b"code: [{path: .}]\ndatasets: [{path: base/own}]"), Dialect.CURRENT
    )
    chosen = Selection(layers, IgnoreRules.parse(b""), [b"base", b"lib/w.bin", b"."])
    everything = {
        "base": (1,),
        "base.csv": (0,),
        "base/m.bin": (),
        "base/own": (1,),
        "base/own/x": (1,),
        "base/own.csv": (),
        "lib": (0,),
        "lib/w.bin": (),
        "lib/w.bin.md": (0,),
    }
    found = {
        path: chosen.layers_of(path.encode(), is_dir=path in ("base", "base/own", "lib"))
        for path in everything
    }
    assert found == everything
    assert chosen.enter(b"base")


@pytest.mark.parametrize(
    "options", [{"layer_format": LayerFormat.RAW}, {"compression": Compression.ZSTD}]
)
def test_kit_1_7_reads_neither_raw_nor_zstd(options):
    with pytest.raises(UnsupportedKitError, match=r"kit 1\.7 cannot read"):
        plan_layers(parse_kitfile(b"code: [{path: a}]"), Dialect.KIT_1_7, **options)


def test_an_invalid_kitfile_has_no_layers():
    with pytest.raises(KitfileError, match="outside the project"):
        plan_layers(parse_kitfile(b"code: [{path: ../a}]"), Dialect.CURRENT)
