"""The process that hashes the cache again, as the daemon speaks to it."""

import json
import os
import subprocess
import sys

import pytest

from kitd.oci.digest import digest_of
from kitd.store.rehash import TELL_EVERY_BYTES


@pytest.fixture
def process():
    process = subprocess.Popen(
        [sys.executable, "-I", "-m", "kitd.store.rehash"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    yield process
    process.stdin.close()
    assert process.wait(timeout=10) == 0
    process.stdout.close()


@pytest.fixture
def ask(process):
    """Ask for one file, and return what is said of it."""

    def ask(path, algorithm="sha256"):
        process.stdin.write(json.dumps({"algorithm": algorithm, "path": str(path)}) + "\n")
        said = [json.loads(process.stdout.readline())]
        while "found" not in said[-1]:
            said.append(json.loads(process.stdout.readline()))
        return said

    return ask


def test_a_file_is_named_by_its_content(ask, tmp_path):
    path = tmp_path / "a file\n"
    path.write_bytes(b"weights")
    inode = path.stat().st_ino
    assert ask(path) == [{"read": 7, "found": digest_of(b"weights"), "inode": inode}]
    path.write_bytes(b"")
    assert ask(path) == [{"read": 0, "found": digest_of(b""), "inode": inode}]
    (last,) = ask(path, "sha512")
    assert last["found"].startswith("sha512:cf83e135")


def test_it_tells_how_far_it_is(ask, tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2 * TELL_EVERY_BYTES + 5)
    assert [each["read"] for each in ask(path)] == [TELL_EVERY_BYTES, TELL_EVERY_BYTES, 5]


def test_what_is_gone_is_no_damage_and_what_cannot_be_read_is(ask, tmp_path):
    assert ask(tmp_path / "none") == [{"read": 0, "found": None, "why": None}]
    (tmp_path / "link").symlink_to(tmp_path)
    (answer,) = ask(tmp_path / "link")
    assert (answer["found"], answer["why"]) == (None, "Too many levels of symbolic links")
    (answer,) = ask(tmp_path)
    assert answer["why"] == "Is a directory"


@pytest.mark.skipif(sys.platform != "linux", reason="idle priorities are Linux's")
def test_it_takes_only_what_nobody_else_wants(ask, process, tmp_path):
    ask(tmp_path / "none")
    assert os.sched_getscheduler(process.pid) == os.SCHED_IDLE
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19
    said = subprocess.run(["ionice", "-p", str(process.pid)], capture_output=True, check=True)
    assert said.stdout.strip() == b"idle"
