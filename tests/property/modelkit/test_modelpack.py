"""ModelPacks of any kit: what is written reads back, and no layer is lost without a Kitfile."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from kitd.modelkit.config_blob import encode_config
from kitd.modelkit.dialect import Dialect
from kitd.modelkit.kit import read_kit
from kitd.modelkit.kitfile import (
    Code,
    Dataset,
    Docs,
    Kitfile,
    LayerDigests,
    Model,
    ModelPart,
    Package,
    Prompt,
    with_layer_digests,
)
from kitd.modelkit.manifest import KITFILE, encode_modelpack_manifest
from kitd.modelkit.media_type import MODELPACK_CONFIG, LayerFormat
from kitd.modelkit.modelpack import as_modelpack_layers, encode_modelpack_config
from kitd.modelkit.path import clean_path
from kitd.modelkit.plan import plan_layers
from kitd.modelkit.unpack_plan import plan_unpack
from kitd.oci.descriptor import Descriptor, describe
from kitd.oci.digest import digest_of
from kitd.oci.manifest import Manifest, parse_manifest

NAMES = st.text("ab.é", min_size=1, max_size=3).filter(lambda name: name not in {".", ".."})
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


@st.composite
def kits(draw) -> tuple[Kitfile, list[bytes], LayerFormat]:
    """Return a Kitfile, the content of its layers (some equal), and how they are stored."""
    paths = draw(st.lists(PATHS, unique_by=clean_path, min_size=1, max_size=8))
    kinds = draw(st.lists(st.integers(0, 5), min_size=len(paths), max_size=len(paths)))
    of = [[path for path, k in zip(paths, kinds, strict=True) if k == kind] for kind in range(6)]
    model = None
    if of[0] or of[1]:
        # There is one model only; what is more are its parts.
        parts = (*of[0][1:], *of[1])
        model = Model(path=of[0][0] if of[0] else "", parts=tuple(ModelPart(path=p) for p in parts))
    kitfile = Kitfile(
        manifest_version="1.0.0",
        package=Package(draw(NAMES), license=draw(st.sampled_from(["", "MIT"]))),
        model=model,
        code=tuple(Code(path=path) for path in of[2]),
        datasets=tuple(Dataset(path=path) for path in of[3]),
        docs=tuple(Docs(path=path) for path in of[4]),
        prompts=tuple(Prompt(path=path) for path in of[5]),
    )
    form = draw(st.sampled_from(LayerFormat))
    # Archives hold their paths, so those of two entries differ.
    contents = (
        [path.encode() for path in paths]
        if form is LayerFormat.TAR
        else [draw(st.sampled_from([b"x", b"y"])) for _ in paths]
    )
    return kitfile, contents, form


def packed(kitfile: Kitfile, contents: list[bytes], form: LayerFormat) -> tuple[Manifest, bytes]:
    plans = plan_layers(kitfile, Dialect.CURRENT, layer_format=form)
    digests = [LayerDigests(digest_of(content), digest_of(content)) for content in contents]
    layers = [
        Descriptor(str(plan.type), digest_of(content), len(content), plan.annotations)
        for plan, content in zip(plans, contents, strict=True)
    ]
    described = with_layer_digests(kitfile, digests)
    config = encode_modelpack_config(described, created="2026-01-02T03:04:05Z")
    manifest = encode_modelpack_manifest(
        describe(MODELPACK_CONFIG, config),
        as_modelpack_layers(layers),
        cli_version="1.16.0",
        created="2026-01-02T03:04:05Z",
        kitfile=encode_config(described).decode(),
    )
    return parse_manifest(manifest), config


@given(kits())
def test_what_is_written_reads_back(kit):
    manifest, config = packed(*kit)
    read = read_kit(manifest, config)
    assert (read.is_generated, read.notes) == (False, ())
    assert encode_config(read.kitfile).decode() == manifest.annotations[KITFILE]


@given(kits())
def test_without_its_kitfile_a_modelpack_unpacks_to_the_same(kit):
    manifest, config = packed(*kit)
    bare = replace(manifest, annotations={})
    read, generated = read_kit(manifest, config), read_kit(bare, config)
    assert (generated.is_generated, generated.notes) == (True, ())
    assert generated.kitfile.package == read.kitfile.package

    def unpacked(source: Manifest, kitfile: Kitfile) -> set[tuple[str, str, str | None]]:
        plan = plan_unpack(source, kitfile, ())
        return {(layer.path, layer.target.digest, layer.diff_id) for layer in plan}

    assert unpacked(bare, generated.kitfile) == unpacked(manifest, read.kitfile)
    assert len(unpacked(bare, generated.kitfile)) == len(manifest.layers)
