"""Scans: what makes the state of a project another one, and what is never looked at."""

import ctypes
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from kitd.errors import KitdError
from kitd.modelkit.dialect import Dialect
from kitd.modelkit.ignore import IgnoreRules
from kitd.modelkit.kitfile import parse_kitfile
from kitd.modelkit.plan import Selection, plan_layers
from kitd.packing.order import Project, ScanOrder
from kitd.packing.recipe import look, read_recipe
from kitd.packing.scan import MAX_DEPTH, InputError, MissingInputError, open_root, scan
from kitd.packing.worker import run_scan

KITFILE = """\
manifestVersion: 1.0.0
model: {path: model}
datasets: [{path: data/train.csv}]
"""
FILES = {
    "Kitfile": KITFILE,
    ".kitignore": "**/*.tmp\nmodel/cache\n",
    "model/weights.bin": "weights",
    "model/sub/part.bin": "part",
    "data/train.csv": "a,b",
    "data/other.csv": "c,d",
    "notes.txt": "notes",
}


def state(root, **settings):
    return scanned(root, **settings).fingerprint


def scanned(root, **settings):
    order = ScanOrder(project=Project(root=str(root), **settings), patience_s=900)
    return run_scan(order, Nobody(), None)


class Nobody:
    """A daemon that does not care and knows nothing."""

    def tell(self, notice):
        pass

    def known_layers(self, keys):
        return {}

    def parents(self, reference, authors):
        return ()


def append(path, text):
    path.write_text(path.read_text() + text)


def later(path):
    """Move a file's time on by a nanosecond, which its directory does not notice."""
    times = path.stat()
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1))


def replaced(path):
    """Put an equal file in the place of another."""
    copy = path.with_suffix(".copy")
    shutil.copy2(path, copy)
    copy.replace(path)


def retyped(root):
    (root / "model/sub/part.bin").unlink()
    (root / "model/sub/part.bin").mkdir()


CHANGES = {
    "content": lambda root: (root / "model/weights.bin").write_text("other weights"),
    "one byte more": lambda root: append(root / "model/weights.bin", "x"),
    "time": lambda root: later(root / "model/weights.bin"),
    "mode": lambda root: (root / "model/weights.bin").chmod(0o600),
    "directory mode": lambda root: (root / "model").chmod(0o700),
    "mode of the way to a layer": lambda root: (root / "data").chmod(0o700),
    "new name": lambda root: (root / "model/weights.bin").rename(root / "model/w.bin"),
    "new inode": lambda root: replaced(root / "model/weights.bin"),
    "new file": lambda root: (root / "model/sub/more.bin").write_text(""),
    "new directory": lambda root: (root / "model/empty").mkdir(),
    "file gone": lambda root: (root / "model/sub/part.bin").unlink(),
    "file to directory": retyped,
    "Kitfile": lambda root: (root / "Kitfile").write_text(KITFILE + "# a comment\n"),
    "newly ignored": lambda root: (root / ".kitignore").write_text("model/sub"),
}
NO_CHANGES = {
    "nothing": lambda root: None,
    "file outside every layer": lambda root: (root / "data/other.csv").write_text("x"),
    "new file outside every layer": lambda root: (root / "data/new.csv").write_text("x"),
    "new directory outside every layer": lambda root: (root / "results/run").mkdir(parents=True),
    "ignored file": lambda root: (root / "model/x.tmp").write_text("x"),
    "ignored directory": lambda root: (root / "model/cache/deep").mkdir(parents=True),
    "Kitfile's time": lambda root: later(root / "Kitfile"),
    "a comment in .kitignore": lambda root: append(root / ".kitignore", "# x\n"),
    "reading": lambda root: (root / "model/weights.bin").read_bytes(),
    "a link": lambda root: (root / "model/link").symlink_to("weights.bin"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_to_what_is_packed_is_another_state(project, change):
    root = project(FILES)
    before = state(root)
    change(root)
    assert state(root) != before


@pytest.mark.parametrize("change", NO_CHANGES.values(), ids=NO_CHANGES)
def test_a_change_to_anything_else_is_the_same_state(project, change):
    root = project(FILES)
    before = state(root)
    change(root)
    assert state(root) == before


@pytest.mark.parametrize(
    "settings", [{"dialect": "kit-1.7"}, {"compression": "gzip"}, {"kitfile": "other"}]
)
def test_how_a_project_is_packed_belongs_to_its_state(project, settings):
    root = project(FILES | {"other": KITFILE + "\n"})
    assert state(root, **settings) != state(root)


def no_parents(reference):
    raise AssertionError(f"nothing here refers to {reference}")


def test_a_scan_counts_what_is_packed(project):
    root = project(FILES)
    handle = open_root(str(root))
    packed = Project(root=str(root))
    tree = look(handle, packed, read_recipe(handle, packed, no_parents)).tree
    os.close(handle)
    # model, weights.bin, sub, part.bin, data and train.csv
    assert len(tree.entries) == 6


IN_OPEN = 0x20


class Watch:
    """The kernel's own account of which directories were opened."""

    def __init__(self):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.handle = self.libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self.paths = {}

    def add(self, path):
        self.paths[self.libc.inotify_add_watch(self.handle, os.fsencode(path), IN_OPEN)] = path

    def opened(self):
        try:
            events = os.read(self.handle, 1 << 16)
        except BlockingIOError:
            return set()
        found, start = set(), 0
        while start < len(events):
            watch, _, _, length = struct.unpack_from("iIII", events, start)
            found.add(self.paths[watch])
            start += 16 + length
        return found


def test_directories_that_no_layer_takes_are_never_opened(project):
    root = project(
        FILES
        | {
            "model/cache/deep/x": "",
            "outside/deep/x": "",
            ".git/objects/x": "",
            "data/more/x": "",
            "model-2/x": "",
        }
    )
    pruned = ["model/cache", "model/cache/deep", "outside", ".git/objects", "data/more", "model-2"]
    entered = ["model", "model/sub", "data"]
    watch = Watch()
    for name in pruned + entered:
        watch.add(root / name)
    watch.opened()
    state(root)
    assert watch.opened() == {root / name for name in entered}
    os.close(watch.handle)


@pytest.mark.parametrize("kitfile", ["Kitfile", "kitfile", ".kitfile"])
def test_a_kitfile_may_have_any_of_its_names(project, kitfile):
    assert state(project({kitfile: KITFILE, **dict(list(FILES.items())[2:])}))


@pytest.mark.parametrize(
    ("files", "settings", "code", "said"),
    [
        ({}, {}, "missing_input", "there is no Kitfile in "),
        ({}, {"kitfile": "train.yaml"}, "missing_input", "there is no train.yaml in "),
        ({"Kitfile": "model: {path: gone.bin}"}, {}, "missing_input", "gone.bin"),
        ({"Kitfile": "model: {path: a/b}", "a": ""}, {}, "missing_input", "a/b"),
        ({"Kitfile": "modle: {}"}, {}, "invalid_kitfile", "modle"),
        ({"Kitfile": "x" * (1 << 20) + "x"}, {}, "unreadable_input", "larger than"),
        ({"Kitfile/x": ""}, {}, "unreadable_input", "Kitfile"),
        (
            {"Kitfile": "docs: [{path: .}]", ".kitignore/x": ""},
            {},
            "unreadable_input",
            ".kitignore",
        ),
        ({"Kitfile": "code: [{path: .}]", ".kitignore": "[a-"}, {}, "invalid_kitignore", "1"),
        ({"Kitfile": "code: [{path: .}]"}, {"compression": "lzma"}, "unsupported_kit", "lzma"),
        (
            {"Kitfile": "code: [{path: .}]"},
            {"compression": "zstd", "dialect": "kit-1.7"},
            "unsupported_kit",
            "kit 1.7 cannot read tar layers with compression zstd",
        ),
    ],
)
def test_what_is_missing_or_broken_is_named(project, files, settings, code, said):
    root = project(files)
    open_files = len(os.listdir("/proc/self/fd"))
    with pytest.raises(KitdError) as caught:
        state(root, **settings)
    assert caught.value.code == code
    assert said in caught.value.message
    assert len(os.listdir("/proc/self/fd")) == open_files


def test_a_kitfile_that_is_not_there_is_told_as_it_was_named(project):
    with pytest.raises(MissingInputError) as caught:
        state(project({}), kitfile="/nowhere/Kitfile")
    assert caught.value.message == "there is no /nowhere/Kitfile"
    # Whoever packs by hand has no project whose setting could be wrong.
    assert "pack --kitfile" in caught.value.hint


def test_a_project_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingInputError, match="gone does not exist"):
        state(tmp_path / "gone")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        state(tmp_path / "file")


@pytest.mark.parametrize("name", ["Kitfile", ".kitignore"])
@pytest.mark.parametrize("writer", [False, True])
def test_a_fifo_in_place_of_a_small_file_holds_nothing_up(project, name, writer):
    root = project({key: value for key, value in FILES.items() if key != name})
    os.mkfifo(root / name)
    handle = os.open(root / name, os.O_RDWR) if writer else None
    with pytest.raises(InputError, match="not a file"):
        state(root)
    if handle is not None:
        os.close(handle)


@pytest.mark.parametrize(
    ("kitfile", "found"),
    [
        ("kits/a", True),
        ("./kits/a", True),
        ("kits/link", False),
        ("linked/a", False),
        ("../outside/a", False),
        ("kits/../../outside/a", False),
    ],
)
def test_a_kitfile_is_read_in_the_project_and_through_no_link(project, tmp_path, kitfile, found):
    project({"a": KITFILE}, tmp_path / "outside")
    root = project({**FILES, "kits/a": KITFILE})
    (root / "kits/link").symlink_to("a")
    (root / "linked").symlink_to(tmp_path / "outside")
    if found:
        assert state(root, kitfile=kitfile) == state(root)
    else:
        with pytest.raises(InputError, match="cannot read"):
            state(root, kitfile=kitfile)


@pytest.mark.parametrize("path", ["link", "link/x", "real/link", "real/link/x", "dangling"])
def test_a_layers_path_may_not_lead_through_a_link(project, tmp_path, path):
    project({"x": "outside"}, tmp_path / "outside")
    root = project({"Kitfile": f"model: {{path: {path}}}", "real/x": ""})
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "real/link").symlink_to("../real")
    (root / "dangling").symlink_to("nowhere")
    with pytest.raises(InputError, match="is a symbolic link"):
        state(root)


def test_a_layers_path_is_a_file_or_a_directory(project):
    root = project({"Kitfile": "model: {path: pipe}"})
    os.mkfifo(root / "pipe")
    with pytest.raises(InputError, match="neither a file nor a directory"):
        state(root)


def walk(root):
    """Return the tree of a project whose only layer is the project."""
    plans = plan_layers(parse_kitfile(b"code: [{path: .}]"), Dialect.CURRENT)
    handle = open_root(str(root))
    try:
        return scan(handle, Selection(plans, IgnoreRules.parse(b"")))
    finally:
        os.close(handle)


def test_links_and_special_files_stay_out(project, tmp_path):
    project({"secret": "x"}, tmp_path / "outside")
    root = project({"a": "", "d/b": ""})
    (root / "to-file").symlink_to("a")
    (root / "d/to-outside").symlink_to(tmp_path / "outside")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket"))
        tree = walk(root)
    assert [entry.path for entry in tree.entries] == [b"a", b"d", b"d/b"]
    assert tree.links == (b"d/to-outside", b"to-file")


def test_names_are_bytes_in_bytewise_order(tmp_path):
    root = os.fsencode(tmp_path)
    names = [b"B", b"a-b", b"a.txt", b"a/x", b"caf\xc3\xa9", b"caf\xe9", b"new\nline", b"\xff/\xfe"]
    for name in names:
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb"):
            pass
    assert [entry.path for entry in walk(tmp_path).entries] == [
        b"B", b"a", b"a/x", b"a-b", b"a.txt", b"caf\xc3\xa9", b"caf\xe9", b"new\nline",
        b"\xff", b"\xff/\xfe",
    ]  # fmt: skip


def nest(root, depth, name):
    """Make directories inside one another, deeper than a path can say."""
    handle = os.open(root, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=handle)
        inner = os.open(name, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)


def test_a_deep_tree_is_walked_up_to_a_bound(tmp_path):
    nest(tmp_path, MAX_DEPTH, "d")
    assert len(walk(tmp_path).entries) == MAX_DEPTH
    nest(tmp_path / "d", MAX_DEPTH, "e")
    with pytest.raises(InputError, match="nested deeper than"):
        walk(tmp_path)


def test_a_path_that_cannot_be_opened_in_one_call_is_refused(tmp_path):
    nest(tmp_path, 25, "d" * 200)
    with pytest.raises(InputError, match="is a path of more than 4095 bytes"):
        walk(tmp_path)


UNPRIVILEGED = """
import json, os, sys
from pathlib import Path
from kitd.errors import KitdError
from kitd.packing.order import PackOrder, Project, ScanOrder
from kitd.packing.worker import run_pack, run_scan

class Nobody:
    def tell(self, notice):
        pass
    def known_layers(self, keys):
        return {}
    def parents(self, reference, authors):
        return ()

if os.getuid() == 0:
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
verb, root, cache = sys.argv[1:]
project = Project(root=root)
try:
    if verb == "scan":
        run_scan(ScanOrder(project=project, patience_s=900), Nobody(), None)
    else:
        run_pack(PackOrder(project=project, cache=cache, label="x-"), Nobody())
except KitdError as error:
    print(json.dumps([error.code, error.message, error.hint, os.listdir(cache + "/ingest")]))
"""


@pytest.mark.parametrize(
    ("verb", "locked", "code", "said"),
    [
        ("pack", "model/sub/part.bin", "unreadable_input", "cannot read model/sub/part.bin"),
        ("scan", "model/sub", "unreadable_input", "cannot open the directory model/sub"),
        ("scan", "Kitfile", "unreadable_input", "cannot read Kitfile"),
        ("scan", ".kitignore", "unreadable_input", "cannot read .kitignore"),
        ("scan", ".", "unreadable_input", "cannot open"),
    ],
)
def test_what_kitds_user_may_not_read_is_named(project, verb, locked, code, said):
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)
        root = project(FILES, Path(home) / "project")
        cache = Path(home) / "cache"
        for directory in ("ingest", "blobs/sha256"):
            (cache / directory).mkdir(parents=True)
            (cache / directory).chmod(0o777)
        (root / locked).chmod(0)
        done = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, verb, root, cache],
            capture_output=True,
            check=True,
            timeout=20,
        )
        (root / locked).chmod(0o755)
    found_code, message, hint, left = json.loads(done.stdout)
    assert found_code == code
    assert said in message
    assert "Permission denied" in message
    assert left == []
    assert hint is None or "read it" in hint


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6711, 0o4001])
def test_files_that_lend_their_owners_rights_are_not_packed(project, mode):
    root = project({"Kitfile": "code: [{path: src}]\n", "src/tool": "x"})
    (root / "src" / "tool").chmod(mode)
    with pytest.raises(KitdError) as caught:
        state(root)
    assert caught.value.code == "set_id"
    assert f"src/tool is setuid or setgid (mode {mode:04o})" in caught.value.message
    (root / ".kitignore").write_text("src/tool\n")
    assert state(root)


def test_bits_that_mean_nothing_on_a_file_are_packed_as_kit_packs_them(project):
    """Directories of groups have them, and files in them may."""
    root = project({"Kitfile": "code: [{path: src}]\n", "src/data": "x"})
    (root / "src").chmod(0o3775)
    (root / "src" / "data").chmod(0o6664)
    assert state(root)
