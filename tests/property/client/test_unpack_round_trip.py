"""Any tree goes through a tar of the standard library and comes out equal; no bytes do harm."""

import contextlib
import hashlib
import io
import os
import tarfile
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from kitd.client.extract import OpenLayer, extract
from kitd.client.record import Layer
from kitd.client.tar_reader import TarError, TarReader
from kitd.errors import KitdError

TAR = "application/vnd.kitops.modelkit.model.v1.tar"

PARTS = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=40
).filter(lambda part: part not in (".", "..") and len(part.encode()) < 200)
TREES = st.recursive(
    st.binary(max_size=1500),
    lambda children: st.dictionaries(PARTS, children, max_size=4),
    max_leaves=12,
).filter(lambda tree: isinstance(tree, dict))


def add(archive: tarfile.TarFile, tree: dict, prefix: str = "") -> None:
    for name, node in tree.items():
        member = tarfile.TarInfo(prefix + name)
        if isinstance(node, dict):
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(member)
            add(archive, node, f"{prefix}{name}/")
        else:
            member.size = len(node)
            archive.addfile(member, io.BytesIO(node))


def read_back(path: Path) -> dict:
    return {
        child.name: read_back(child) if child.is_dir() else child.read_bytes()
        for child in path.iterdir()
    }


def unpack(content: bytes, target: Path) -> None:
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    with tempfile.TemporaryFile() as blob:
        blob.write(content)
        blob.flush()
        layer = OpenLayer(Layer(digest, len(content), TAR, digest, ""), blob.fileno())
        extract(target, [layer], kitfile=None, progress=lambda _: None)


@settings(max_examples=60, deadline=None)
@given(TREES, st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_a_tree_comes_out_as_it_went_in(tree, form):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        add(archive, tree)
    with tempfile.TemporaryDirectory() as target:
        unpack(buffer.getvalue(), Path(target))
        assert read_back(Path(target)) == tree


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=2000), st.data())
def test_damage_is_refused_and_leaves_nothing(noise, data):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        add(archive, {"a": b"1" * 700, "d": {"b": b"2"}})
    content = bytearray(buffer.getvalue()[:5000])
    at = data.draw(st.integers(0, len(content)))
    content[at : at + len(noise)] = noise
    with tempfile.TemporaryDirectory() as world:
        target = Path(world) / "target"
        try:
            unpack(bytes(content), target)
        except KitdError:
            assert os.listdir(world) == []
        else:
            assert os.listdir(world) == ["target"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(min_size=512, max_size=512), max_size=6), st.integers(1, 2000))
def test_no_bytes_raise_anything_but_a_tar_error(blocks, step):
    source = io.BytesIO(b"".join(blocks))
    reader = TarReader(lambda size: source.read(min(size, step)))
    with contextlib.suppress(TarError):
        assert list(reader.entries()) == []
