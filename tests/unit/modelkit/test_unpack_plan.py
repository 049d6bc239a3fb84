"""Which layers an unpack needs, and where their files belong."""

import pytest

from kitd.modelkit import media_type as types
from kitd.modelkit.errors import InvalidConfigError
from kitd.modelkit.filter import parse_filter
from kitd.modelkit.kitfile import Code, Dataset, Kitfile, Model, ModelPart
from kitd.modelkit.unpack_plan import plan_unpack
from kitd.oci.descriptor import Descriptor, describe
from kitd.oci.digest import digest_of
from kitd.oci.manifest import Manifest
from kitd.oci.media_type import OCI_MANIFEST

PATH = "org.cncf.model.filepath"
METADATA = "org.cncf.model.file.metadata+json"
A, B, C = (digest_of(name) for name in (b"a", b"b", b"c"))


def layer(kind, digest, **annotations):
    return Descriptor(f"application/vnd.kitops.modelkit.{kind}", digest, 1, annotations)


def manifest(*layers):
    return Manifest(OCI_MANIFEST, None, describe(types.CONFIG, b"{}"), layers, (), None, {})


def test_equal_files_at_two_paths_are_both_written():
    layers = [
        layer("code.v1.raw", A, **{PATH: "src/__init__.py"}),
        layer("code.v1.raw", A, **{PATH: "tests/__init__.py", METADATA: '{"mode":493}'}),
    ]
    kitfile = Kitfile(
        code=(Code(path="./src/__init__.py", digest=A), Code(path="tests/__init__.py", digest=A))
    )
    plan = plan_unpack(manifest(*layers), kitfile, ())
    assert [(each.path, each.mode) for each in plan] == [
        ("src/__init__.py", None),
        ("tests/__init__.py", 0o755),
    ]


def test_a_file_goes_where_the_manifest_says():
    kitfile = Kitfile(code=(Code(path="said/in/the/Kitfile", digest=A),))
    (found,) = plan_unpack(manifest(layer("code.v1.raw", A, **{PATH: "./x"})), kitfile, ())
    assert found.path == "x"
    (found,) = plan_unpack(manifest(layer("code.v1.raw", A)), kitfile, ())
    assert found.path == "said/in/the/Kitfile"


def test_what_two_entries_have_in_common_comes_once():
    layers = [layer("code.v1.tar", A), layer("docs.v1.raw", B, **{PATH: "README"})]
    kitfile = Kitfile(
        code=(
            Code(path="src", digest=A),
            Code(path="./src/", digest=A),
            Code(path="README", digest=B),
            Code(path="README", digest=B),
        )
    )
    plan = plan_unpack(manifest(*layers), kitfile, ())
    assert [each.target.digest for each in plan] == [A, B]


def test_what_filters_leave_out_need_not_be_there():
    kitfile = Kitfile(
        model=Model(path="m", digest=A), datasets=(Dataset(path="d", name="d", digest=B),)
    )
    one = manifest(layer("model.v1.tar", A), layer("tokens.v9.x", C))
    assert [each.path for each in plan_unpack(one, kitfile, [parse_filter("model")])] == ["m"]
    with pytest.raises(InvalidConfigError, match=B):
        plan_unpack(one, kitfile, ())


def test_only_what_is_known_of_a_compressed_layer_is_promised():
    kitfile = Kitfile(model=Model(path="m", digest=A))
    (zipped,) = plan_unpack(manifest(layer("model.v1.tar+gzip", A)), kitfile, ())
    (plain,) = plan_unpack(manifest(layer("model.v1.tar", A)), kitfile, ())
    assert (zipped.diff_id, plain.diff_id) == (None, A)


def test_the_oldest_kits_count_and_begin_in_the_directory_of_the_entry():
    kitfile = Kitfile(
        model=Model(path="./models/big", parts=(ModelPart(path="tokenizer.json"),)),
        code=(Code(path="src/"),),
        datasets=(Dataset(path="data/train.csv"), Dataset(path="data/more/test.csv")),
    )
    layers = [
        layer("model.v1.tar", A),
        layer("dataset.v1.tar+gzip", B),
        layer("dataset.v1.tar+gzip", C),
        layer("modelpart.v1.tar", A),
        layer("code.v1.tar", A),
    ]
    plan = plan_unpack(manifest(*layers), kitfile, ())
    assert [(each.target.digest, each.prefix, each.path) for each in plan] == [
        (A, "models", "models/big"),
        (A, ".", "tokenizer.json"),
        (B, "data", "data/train.csv"),
        (C, "data/more", "data/more/test.csv"),
    ]
    (train,) = plan_unpack(
        manifest(*layers), kitfile, [parse_filter("datasets:data/more/test.csv")]
    )
    assert (train.target.digest, train.diff_id) == (C, None)


@pytest.mark.parametrize(
    ("layers", "problem"),
    [
        ([], "no layer of the manifest"),
        ([layer("code.v1.tar", A), layer("code.v1.tar", B)], "more layers than"),
        ([layer("docs.v1.tar", A)], "more layers than"),
    ],
)
def test_the_oldest_kits_have_a_layer_for_each_entry(layers, problem):
    with pytest.raises(InvalidConfigError, match=problem):
        plan_unpack(manifest(*layers), Kitfile(code=(Code(path="src"),)), ())


def test_half_known_is_refused():
    kitfile = Kitfile(code=(Code(path="a", digest=A), Code(path="b")))
    with pytest.raises(InvalidConfigError, match="and not of others"):
        plan_unpack(manifest(layer("code.v1.tar", A), layer("code.v1.tar", B)), kitfile, ())
