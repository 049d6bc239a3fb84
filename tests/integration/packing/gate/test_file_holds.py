"""Files that are not finished hold a project back, for as long as that can be said of them."""

import fcntl
import json
import mmap
import os
import struct
import subprocess
import sys

import pytest

from kitd.hold import MAX_HOLDS
from kitd.packing.gate.lease import has_writer

HALF = struct.pack("<Q", 60) + b'{"a": {"data_offsets": [0, 90]}}'.ljust(60) + bytes(9)
LATER_S = 3600.0


def test_a_project_at_rest_is_not_held(project, holds):
    root = project({"a.bin": "a", "sub/b.json": "{}", "c.safetensors": HALF + bytes(81)})
    assert holds(root) == []


def test_a_file_that_another_program_writes_is_held_until_it_closes_it(project, holds):
    root = project({"a.bin": "a", "b.bin": "b"})
    script = "import sys; file = open(sys.argv[1], 'ab'); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(root / "a.bin")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        assert holds(root, detail=True) == [
            ("writer", "a.bin", "a program has it open for writing")
        ]
    assert holds(root) == []


def test_a_file_that_is_written_through_a_mapping_is_held_after_its_descriptor_is_closed(
    project, holds
):
    root = project({"a.bin": "content"})
    with (root / "a.bin").open("r+b") as file:
        mapping = mmap.mmap(file.fileno(), 0)
    with mapping:
        assert holds(root) == [("writer", "a.bin")]
    assert holds(root) == []


def test_a_file_that_somebody_reads_is_not_held(project, holds):
    root = project({"a.bin": "a"})
    with (root / "a.bin").open("rb"):
        assert holds(root) == []


def test_a_file_that_is_open_but_not_written_to_holds_for_so_long_only(project, holds):
    root = project({"log": "a"})
    with (root / "log").open("ab"):
        assert holds(root, later_s=800) == [("writer", "log")]
        assert holds(root, later_s=1000) == []


@pytest.mark.parametrize(("later_s", "held"), [(-30, True), (-LATER_S, False)])
def test_a_clock_that_was_wrong_does_not_hold_a_file_for_ever(project, holds, later_s, held):
    root = project({"a.bin": "a", "b.part": "b"})
    with (root / "a.bin").open("ab"):
        assert bool(holds(root, later_s=later_s)) == held


def test_a_temporary_name_holds_while_the_file_is_young(project, holds):
    root = project({"model.bin.incomplete": "a", "tmp-checkpoint-5/model.bin": "b"})
    assert holds(root) == [
        ("temporary", "model.bin.incomplete"),
        ("temporary", "tmp-checkpoint-5/model.bin"),
    ]
    assert holds(root, later_s=LATER_S) == []


def test_a_truncated_file_holds_however_old_it_is(project, holds):
    root = project({"a.safetensors": HALF})
    for later_s in (0, LATER_S, -LATER_S):
        assert holds(root, later_s=later_s, detail=True) == [
            (
                "truncated",
                "a.safetensors",
                "safetensors header promises 158 bytes, the file has 77",
            )
        ]


@pytest.mark.parametrize(
    ("name", "content"), [("a.zip", b"PK\3\4"), ("a.tar", bytes(257) + b"ustar" + bytes(9))]
)
def test_a_truncated_archive_that_some_readers_take_holds_while_it_is_young(
    project, holds, name, content
):
    root = project({name: content})
    assert holds(root) == [("truncated", name)]
    assert holds(root, later_s=LATER_S) == []


def test_a_file_is_told_of_once(project, holds):
    root = project({"a.tmp/b.safetensors": HALF})
    with (root / "a.tmp/b.safetensors").open("ab"):
        assert holds(root) == [("temporary", "a.tmp/b.safetensors")]


def test_only_files_that_are_judged_are_looked_at(project, holds):
    root = project({"a.safetensors": HALF, "b.safetensors": HALF, "c.tmp": "c"})
    assert holds(root, {b"b.safetensors"}) == [("truncated", "b.safetensors")]


def test_a_limited_number_of_files_is_told(project, holds):
    root = project({f"{number:03}.safetensors": HALF for number in range(MAX_HOLDS + 15)})
    told = [path for _, path, _ in holds(root, detail=True)]
    assert told == [f"{number:03}.safetensors" for number in range(MAX_HOLDS)]


def test_a_name_that_is_no_text_is_told_escaped(project, holds):
    root = project({})
    (root / os.fsdecode(b"\xff\n.tmp")).write_bytes(b"")
    assert holds(root) == [("temporary", "\\xff\\n.tmp")]


def replace_by_link(path):
    path.rename(path.with_name("other"))
    path.symlink_to("other")


def replace_by_fifo(path):
    path.unlink()
    os.mkfifo(path)


def replace_by_copy(path):
    path.with_name("copy").write_bytes(path.read_bytes())
    path.with_name("copy").rename(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(HALF[:-1]),
        replace_by_link,
        replace_by_fifo,
        replace_by_copy,
    ],
    ids=["gone", "written", "link", "fifo", "copy"],
)
def test_what_is_no_longer_what_the_walk_saw_is_left_to_the_next_walk(project, holds, walk, change):
    root = project({"a.safetensors": HALF, "b.safetensors": HALF})
    tree = walk(root)
    change(root / "a.safetensors")
    assert holds(root, tree=tree) == [("truncated", "b.safetensors")]


def test_no_lease_is_left_on_a_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"")
    file = os.open(path, os.O_RDONLY)
    try:
        assert has_writer(file) is False
        assert fcntl.fcntl(file, fcntl.F_GETLEASE) == fcntl.F_UNLCK
    finally:
        os.close(file)


def test_where_there_are_no_leases_nothing_is_said_of_writers():
    read, write = os.pipe()
    try:
        assert has_writer(read) is None
    finally:
        os.close(read)
        os.close(write)


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's files take root to be judged")
def test_a_file_of_another_user_has_to_be_quiet_for_a_while(project, holds, walk, monkeypatch):
    root = project({"a.bin": "a"})
    tree = walk(root)
    root.chmod(0o755)
    # That user cannot come here by the path.
    monkeypatch.chdir(root)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setuid(65534)
            waits = (0.0, 100.0)
            found = [holds(".", tree=tree, later_s=later_s) for later_s in waits]
            os.write(write, json.dumps(found).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = json.load(pipe)
    os.waitpid(child, 0)
    assert said == [[["recent", "a.bin"]], []]
