"""Reading for somebody else: kitd packs for him nothing that he could not read himself."""

import json
import os
import struct
import time

import pytest

from kitd.caller import Caller
from kitd.errors import KitdError
from kitd.inotify import open_inotify
from kitd.packing.order import Opened, PackOrder, Project, ScanOrder, Unchanged
from kitd.packing.worker import run_pack, run_scan

KITFILE = (
    "manifestVersion: 1.0.0\nmodel: {path: w}\ncode: [{path: src}]\ndocs: [{path: deep/er/d}]\n"
)
FILES = {
    "Kitfile": KITFILE,
    ".kitignore": "src/left-out\n",
    "w": "weights",
    "src/a.py": "a",
    "src/left-out": "x",
    "deep/er/d": "d",
}
STRANGER = os.getuid() + 1001


@pytest.fixture
def tree(project):
    """A project that everybody may read."""
    root = project(FILES)
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return root


def caller(root, uid=STRANGER, gids=(), **changes):
    status = root.stat()
    return Caller(uid=uid, gids=gids, root=(status.st_dev, status.st_ino), **changes)


@pytest.fixture
def scan(daemon):
    def run(root, reader, *, known=None):
        project = Project(root=str(root), reader=reader)
        return run_scan(ScanOrder(project=project, patience_s=0, known=known), daemon, None)

    return run


@pytest.fixture
def pack(store, daemon):
    def run(root, reader, *, known=None):
        project = Project(root=str(root), reader=reader)
        order = PackOrder(project=project, cache=str(store.root), label="x-", known=known)
        return run_pack(order, daemon)

    return run


def test_what_he_could_read_is_packed_as_for_anybody(pack, scan, tree):
    reader = caller(tree)
    assert scan(tree, reader).fingerprint == scan(tree, None).fingerprint
    packed = [[layer.digest for layer in pack(tree, by).layers] for by in (reader, None)]
    assert packed[0] == packed[1]
    assert len(packed[0]) == 3


@pytest.mark.parametrize(
    ("path", "mode", "named"),
    [
        ("w", 0o600, "w"),
        ("src/a.py", 0o640, "src/a.py"),
        ("deep/er/d", 0o000, "deep/er/d"),
        ("src", 0o700, "src"),
        ("src", 0o754, "src"),
        ("deep", 0o711, "deep"),
        ("deep/er", 0o750, "deep/er"),
        ("Kitfile", 0o600, "Kitfile"),
        (".kitignore", 0o600, ".kitignore"),
        (".", 0o700, "project"),
    ],
)
@pytest.mark.parametrize("work", ["scan", "pack"])
def test_what_he_could_not_read_is_not_read_for_him(request, work, tree, path, mode, named):
    run = request.getfixturevalue(work)
    os.chmod(tree / path, mode)
    with pytest.raises(KitdError) as caught:
        run(tree, caller(tree))
    assert caught.value.code == "unreadable_by_caller"
    assert f"user {STRANGER}" in caught.value.message
    assert named in caught.value.message
    assert f"{mode:04o}" in caught.value.message
    run(tree, None)


def test_what_stays_out_of_the_kit_may_be_unreadable(pack, tree):
    os.chmod(tree / "src/left-out", 0o600)
    assert len(pack(tree, caller(tree)).layers) == 3


def test_a_layer_that_was_built_for_somebody_else_is_not_handed_out(pack, tree, daemon):
    """The files are not read again, and their rights are asked all the same."""
    os.chmod(tree / "w", 0o600)
    built = pack(tree, None)
    keys = daemon.asked[-1]
    daemon.layers = dict(zip(keys, built.layers, strict=True))
    with pytest.raises(KitdError, match="no right to read w"):
        pack(tree, caller(tree))


def test_a_directory_that_was_closed_shows_although_nothing_else_did_change(scan, tree):
    """A glance compares only the modes of directories, but enters each of them."""
    reader = caller(tree)
    end_s = time.monotonic() + 10
    # Until a change would show in the times.
    while (known := scan(tree, reader).glance) is None:
        assert time.monotonic() < end_s
    assert isinstance(scan(tree, reader, known=known), Unchanged)
    os.chmod(tree / "src", 0o700)
    with pytest.raises(KitdError, match="src"):
        scan(tree, reader, known=known)


@pytest.mark.parametrize("git", [{}, {".git/HEAD": "0123456789" * 4}])
def test_a_commit_that_he_could_not_read_is_not_told(pack, project, tree, git):
    project(git)
    if git:
        assert pack(tree, None).git_commit == "0123456789" * 4
        os.chmod(tree / ".git", 0o700)
    assert pack(tree, caller(tree)).git_commit is None


def test_with_an_access_control_list_only_the_owner_is_let_in(pack, tree):
    """Its mask stands where the mode has the group, so that the mode no longer tells."""
    entries = ((1, 6, -1), (2, 0, STRANGER), (4, 4, -1), (16, 4, -1), (32, 4, -1))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(tree / "w", "system.posix_acl_access", acl)
    except OSError as error:
        pytest.skip(f"no access control lists here: {error.strerror}")
    with pytest.raises(KitdError, match="access control list"):
        pack(tree, caller(tree))
    assert pack(tree, caller(tree, uid=os.getuid())).layers


@pytest.mark.parametrize("work", ["scan", "pack"])
def test_another_directory_in_the_place_of_the_one_that_was_shown_is_not_read(
    request, work, tree, daemon
):
    reader = caller(tree)
    moved = tree.rename(tree.with_name("moved"))
    outcomes = []
    for replace in (lambda: None, tree.mkdir, tree.rmdir):
        replace()
        with pytest.raises(KitdError) as caught:
            request.getfixturevalue(work)(tree, reader)
        outcomes.append((caught.value.code, caught.value.message))
    tree.symlink_to(moved)
    request.getfixturevalue(work)(tree, reader)
    assert {code for code, _ in outcomes} == {"denied"}
    assert len(set(outcomes)) == 1, "what is there instead is told"
    assert str(reader.root[1]) in outcomes[0][1]


def test_his_own_directory_is_read_without_having_been_shown(pack, tree):
    mine = Caller(uid=os.getuid(), gids=())
    assert pack(tree, mine).layers
    with pytest.raises(KitdError, match="neither a directory of user"):
        pack(tree, Caller(uid=STRANGER, gids=()))


def test_an_index_does_not_tell_what_is_outside_of_the_project(scan, project, tree, tmp_path):
    """Whether a file exists elsewhere could be asked for by naming it as a missing shard."""
    (tmp_path / "secret").touch()
    (tree / "src/out").symlink_to(tmp_path)

    def told(name):
        index = json.dumps({"weight_map": {"layer": name}})
        project({"src/m.safetensors.index.json": index})
        return [h.detail.replace(name, "") for h in scan(tree, None).holds if "names" in h.detail]

    assert told("../../secret") == told("../../absent")
    assert told("out/secret") == told("out/absent")
    assert told(f"{tmp_path}/secret") == told(f"{tmp_path}/absent")
    assert told("absent") != []


@pytest.mark.parametrize("ignored", ["", "hidden\n"])
def test_nothing_tells_what_is_in_a_directory_that_he_cannot_search(
    pack, scan, project, tree, ignored
):
    """The Kitfile and an index may name what no walk comes to."""
    (tree / "hidden").mkdir(mode=0o700)
    (tree / "hidden/there").touch()
    project({".kitignore": ignored, "m.safetensors.index.json": "{}"})

    def told(
        work, name, kitfile="manifestVersion: 1.0.0\nmodel: {path: m.safetensors.index.json}\n"
    ):
        index = json.dumps({"weight_map": {"layer": f"hidden/{name}"}})
        project({"Kitfile": kitfile, "m.safetensors.index.json": index})
        try:
            outcome = work(tree, caller(tree))
        except KitdError as error:
            return error.code, error.message
        return [hold.detail.replace(name, "") for hold in getattr(outcome, "holds", ())]

    assert told(scan, "there") == told(scan, "absent") == []
    for work in (scan, pack):
        code, message = told(work, "x", "manifestVersion: 1.0.0\nmodel: {path: hidden/there}\n")
        assert code == "unreadable_by_caller"
        again = told(work, "x", "manifestVersion: 1.0.0\nmodel: {path: hidden/absent}\n")
        assert again == (code, message)


def test_a_kitfile_behind_a_link_is_not_looked_for(tree, daemon, tmp_path):
    """Neither to be read nor to be watched: whether it could be tells what is there."""
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    outcomes = set()
    for target in (hidden, tmp_path / "absent"):
        (tree / "link").unlink(missing_ok=True)
        (tree / "link").symlink_to(target)
        project = Project(root=str(tree), kitfile="link/Kitfile", reader=caller(tree))
        inotify = open_inotify()
        with pytest.raises(KitdError) as caught:
            run_scan(ScanOrder(project=project, patience_s=0, watch=True), daemon, inotify)
        os.close(inotify)
        outcomes.add((caught.value.code, caught.value.message))
    assert len(outcomes) == 1
    assert outcomes.pop()[0] == "unreadable_input"


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files to two users needs root")
def test_files_of_two_users_and_a_group(pack, tree):
    ann, bob, group = 2001, 2002, 2050
    for path in (tree, *tree.rglob("*")):
        os.chown(path, ann, group)
        path.chmod(0o750 if path.is_dir() else 0o640)
    assert pack(tree, Caller(uid=ann, gids=(ann,))).layers
    assert pack(tree, caller(tree, uid=bob, gids=(bob, group))).layers
    with pytest.raises(KitdError, match=f"user {bob}"):
        pack(tree, caller(tree, uid=bob, gids=(bob,)))
    os.chown(tree / "w", bob, bob)
    with pytest.raises(KitdError, match="to read w"):
        pack(tree, Caller(uid=ann, gids=(ann, group)))


def test_an_opened_root_is_told_before_anything_is_read(scan, tree, daemon):
    scan(tree, caller(tree))
    assert isinstance(daemon.notices[0], Opened)
