"""Building layers while the tree moves: what changed between look and read is never published."""

import gzip
import os
import shutil
import socket
import subprocess
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from kitd.errors import Disposition
from kitd.modelkit.dialect import Dialect
from kitd.modelkit.ignore import IgnoreRules
from kitd.modelkit.kitfile import parse_kitfile
from kitd.modelkit.media_type import MEDIA_COMPRESSION, LayerFormat
from kitd.modelkit.plan import Selection, plan_layers
from kitd.packing.compress import block_threads, compressing
from kitd.packing.layer import build_layer
from kitd.packing.reader import STEP_BYTES
from kitd.packing.scan import InputChangedError, open_root, scan
from kitd.store.blob_store import NoSpaceError
from kitd.store.buffer_ring import BUFFER_BYTES

BIG = 3 << 20
FILES = {"a/small": "content", "a/z/last": "last", "b/big": bytes(BIG)}

COMPRESSED = [name for name in MEDIA_COMPRESSION if name != "none"]


@pytest.fixture(params=COMPRESSED)
def compression_and_inflate(request):
    """Each compression, and what Python's own gzip or Debian's zstd makes of a blob."""
    if request.param != "zstd":
        return request.param, gzip.decompress
    command = [request.getfixturevalue("zstd"), "-dc"]
    return (
        request.param,
        lambda stored: (
            subprocess.run(command, input=stored, capture_output=True, check=True).stdout
        ),
    )


@pytest.fixture(autouse=True)
def nothing_stays_open():
    threads, handles = set(threading.enumerate()), os.listdir("/proc/self/fd")
    yield
    assert set(threading.enumerate()) <= threads
    assert os.listdir("/proc/self/fd") == handles


@contextmanager
def looked_at(root, kitfile=b"code: [{path: .}]", *, compression="none", **settings):
    """Yield a function that builds a layer of what a scan saw just now, by default the first."""
    settings["compression"] = MEDIA_COMPRESSION[compression]
    plans = plan_layers(parse_kitfile(kitfile), Dialect.CURRENT, **settings)
    handle = open_root(str(root))
    tree = scan(handle, Selection(plans, IgnoreRules.parse(b"")))

    def build(store, advanced=lambda _: None, index=0):
        entries = [entry for entry in tree.entries if index in entry.layers]
        with block_threads() as threads:
            return build_layer(
                handle,
                plans[index],
                entries,
                store,
                compress=compressing(compression, threads),
                advanced=advanced,
            )

    try:
        yield build
    finally:
        os.close(handle)


def nothing_stays(store):
    return not list(store.ingest_dir.iterdir()) and not list(store.root.glob("blobs/*/*"))


def swapped_for_link(path, target):
    path.rename(path.with_name("aside"))
    path.symlink_to(target)


def bind(path):
    path.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def to_fifo(path):
    path.unlink()
    os.mkfifo(path)


def to_directory(path):
    path.unlink()
    path.mkdir()


def rewritten(path):
    """Write other bytes of the same length, and let the clock's last digit move."""
    status = path.stat()
    path.write_text("CONTENT")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


CHANGES = {
    "grown": lambda root, _: (root / "a/small").write_text("content and more"),
    "shrunk": lambda root, _: (root / "a/small").write_text("con"),
    "emptied": lambda root, _: (root / "a/small").write_text(""),
    "rewritten": lambda root, _: rewritten(root / "a/small"),
    "replaced by an equal file": lambda root, _: (
        shutil.copy2(root / "a/small", root / "copy"),
        (root / "copy").replace(root / "a/small"),
    ),
    "other mode": lambda root, _: (root / "a/small").chmod(0o600),
    "gone": lambda root, _: (root / "a/small").unlink(),
    "directory gone": lambda root, _: shutil.rmtree(root / "a"),
    "link to itself elsewhere": lambda root, _: swapped_for_link(root / "a/small", "aside"),
    "link to an outside file": lambda root, out: swapped_for_link(
        root / "a/small", out / "a/small"
    ),
    "directory swapped for a link": lambda root, out: swapped_for_link(root / "a", out / "a"),
    "inner directory swapped": lambda root, out: swapped_for_link(root / "a/z", out / "a/z"),
    "fifo": lambda root, _: to_fifo(root / "a/small"),
    "socket": lambda root, _: bind(root / "a/small"),
    "directory": lambda root, _: to_directory(root / "a/small"),
    "link to a device": lambda root, _: swapped_for_link(root / "a/small", "/dev/zero"),
    "link loop": lambda root, _: swapped_for_link(root / "a", "a"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changed_since_the_scan_is_not_packed(project, store, tmp_path, change):
    root = project(FILES)
    outside = project(FILES, tmp_path / "outside")
    with looked_at(root) as build:
        change(root, outside)
        with pytest.raises(InputChangedError) as caught:
            build(store)
    assert caught.value.code == "input_changed"
    assert caught.value.disposition is Disposition.SNOOZE
    assert caught.value.message.startswith(("a/small ", "a/z/last "))
    assert nothing_stays(store)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: os.truncate(path, BIG - 1),
        lambda path: os.truncate(path, BIG + 1),
        lambda path: os.truncate(path, 0),
        lambda path: path.chmod(0o600),
        os.utime,
    ],
    ids=["shrunk", "grown", "emptied", "mode", "time"],
)
@pytest.mark.parametrize("layer_format", LayerFormat)
@pytest.mark.parametrize("compression", MEDIA_COMPRESSION)
def test_what_changes_while_it_is_read_is_not_packed(
    project, store, change, layer_format, compression
):
    root = project(FILES)
    steps = []

    def advanced(count):
        steps.append(count)
        if sum(steps) < BIG:
            change(root / "b/big")

    settings = {"layer_format": layer_format, "compression": compression}
    with (
        looked_at(root, b"model: {path: b/big}", **settings) as build,
        pytest.raises(InputChangedError, match="b/big"),
    ):
        build(store, advanced)
    assert steps
    assert nothing_stays(store)


@pytest.mark.parametrize("compression", MEDIA_COMPRESSION)
def test_whoever_is_told_of_a_step_can_end_the_work(project, store, compression):
    class EndedError(Exception):
        pass

    def advanced(count):
        raise EndedError

    with looked_at(project(FILES), compression=compression) as build, pytest.raises(EndedError):
        build(store, advanced)
    assert nothing_stays(store)


def test_a_full_disk_is_known_before_anything_is_read(project, small_store):
    root = project({"a": "a"})
    os.truncate(root / "a", 5 << 20)
    steps = []
    with looked_at(root) as build, pytest.raises(NoSpaceError):
        build(small_store, steps.append)
    assert steps == []
    assert nothing_stays(small_store)


@pytest.mark.parametrize("compression", COMPRESSED)
def test_a_disk_that_fills_up_while_a_layer_is_compressed_is_named(
    project, small_store, compression
):
    root = project({"a": os.urandom(12 << 20)})
    with looked_at(root, compression=compression) as build, pytest.raises(NoSpaceError):
        build(small_store)
    assert nothing_stays(small_store)


@pytest.mark.parametrize("size", [0, 1, 1 << 19, (5 << 20) + 7])
def test_a_compressed_layer_is_the_same_tar(project, store, compression_and_inflate, size):
    compression, inflate = compression_and_inflate
    root = project({"a": os.urandom(size // 2) + bytes(size - size // 2), "b/c": "c"})
    with looked_at(root) as build:
        plain = build(store)
    with looked_at(root, compression=compression) as build:
        packed = build(store)
    assert packed.diff_id == plain.diff_id == plain.blob.digest
    tar = store.path_of(plain.blob.digest).read_bytes()
    assert inflate(store.path_of(packed.blob.digest).read_bytes()) == tar


def test_layers_can_be_built_at_the_same_time(project, store):
    contents = {f"d{number}/big": os.urandom(BIG + number) for number in range(4)}
    kitfile = b"code: [{path: d0}, {path: d1}, {path: d2}, {path: d3}]"
    with looked_at(project(contents), kitfile) as build, ThreadPoolExecutor(4) as pool:
        built = list(pool.map(lambda index: build(store, index=index), range(4)))
    for number, layer in enumerate(built):
        with tarfile.open(store.path_of(layer.blob.digest)) as tar:
            name = f"d{number}/big"
            assert tar.extractfile(name).read() == contents[name]


def test_an_undisturbed_layer_reports_every_byte_and_is_published(project, store):
    steps = []
    with looked_at(project(FILES)) as build:
        built = build(store, steps.append)
    assert sum(steps) == BIG + len("content") + len("last")
    assert max(steps) < STEP_BYTES + BUFFER_BYTES
    with tarfile.open(store.path_of(built.blob.digest)) as tar:
        assert tar.getnames() == ["a", "a/small", "a/z", "a/z/last", "b", "b/big"]
        assert tar.extractfile("a/small").read() == b"content"
        assert tar.extractfile("b/big").read() == bytes(BIG)


def test_names_that_are_no_text_are_packed_as_they_are(tmp_path, store):
    root = tmp_path / "project"
    root.mkdir()
    (root / os.fsdecode(b"caf\xe9")).write_text("latin")
    (root / "new\nline").write_text("line")
    with looked_at(root) as build:
        built = build(store)
    with tarfile.open(store.path_of(built.blob.digest)) as tar:
        assert [os.fsencode(name) for name in tar.getnames()] == [b"caf\xe9", b"new\nline"]


def test_a_message_never_carries_a_names_control_characters(tmp_path, store):
    root = tmp_path / "project"
    root.mkdir()
    name = os.fsdecode(b"\x1b[31mred\xff\n")
    (root / name).write_text("x")
    with looked_at(root) as build:
        (root / name).unlink()
        with pytest.raises(InputChangedError) as caught:
            build(store)
    assert caught.value.message.startswith(r"\x1b[31mred\xff\n changed while")


def test_files_at_the_edges_of_the_buffers_are_packed_whole(project, store):
    sizes = [0, 1, 511, 512, 513]
    sizes += [BUFFER_BYTES + more for more in (-1024, -512, -1, 0, 1)]
    contents = {f"{size:08}": os.urandom(size) for size in sizes}
    with looked_at(project(contents)) as build:
        built = build(store)
    with tarfile.open(store.path_of(built.blob.digest)) as tar:
        assert {name: tar.extractfile(name).read() for name in tar.getnames()} == contents
