"""Blobs on a real disk: what is published, what is left over, and what never is."""

import hashlib
import os
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from kitd.content.store import ContentError, ContentNotFoundError, MismatchError
from kitd.errors import Disposition
from kitd.oci.descriptor import describe
from kitd.oci.digest import digest_of, from_hash
from kitd.store.blob_store import BlobStore, NoSpaceError, StoreError, Usage

CONTENT = os.urandom(300_000)
TARGET = describe("application/octet-stream", CONTENT)


def ingests(store):
    return sorted(path.name for path in store.ingest_dir.iterdir())


def blobs(store):
    return sorted(path.name for path in (store.root / "blobs").glob("*/*"))


def test_a_blob_appears_only_when_it_is_committed(store):
    with store.ingest() as ingest:
        ingest.write(CONTENT[:1000])
        ingest.write(memoryview(CONTENT)[1000:])
        assert ingest.size == len(CONTENT)
        assert (len(ingests(store)), blobs(store)) == (1, [])
        committed = ingest.commit(TARGET)
    assert (committed.digest, committed.size, committed.reused) == (
        TARGET.digest,
        TARGET.size,
        False,
    )
    assert ingests(store) == []
    assert store.path_of(TARGET.digest).read_bytes() == CONTENT


def test_an_error_before_the_commit_leaves_nothing(store):
    def fail():
        with store.ingest() as ingest:
            ingest.write(CONTENT)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (ingests(store), blobs(store)) == ([], [])


def test_leaving_without_a_commit_leaves_nothing(store):
    with store.ingest() as ingest:
        ingest.write(CONTENT)
    ingest.discard()
    assert (ingests(store), blobs(store)) == ([], [])


@pytest.mark.parametrize(
    "expected",
    [replace(TARGET, size=TARGET.size + 1), replace(TARGET, digest=digest_of(b"other"))],
    ids=["size", "digest"],
)
def test_what_is_not_what_was_expected_is_not_published(store, expected):
    with store.ingest() as ingest:
        ingest.write(CONTENT)
        with pytest.raises(MismatchError) as caught:
            ingest.commit(expected)
    assert caught.value.disposition is Disposition.RETRY
    assert (ingests(store), blobs(store)) == ([], [])


def test_equal_content_is_stored_once(store):
    first = store.put(CONTENT)
    inode = store.path_of(first.digest).stat().st_ino
    os.utime(store.path_of(first.digest), (1, 1))
    second = store.put(CONTENT)
    after = store.path_of(first.digest).stat()
    assert (first.reused, second.reused) == (False, True)
    assert after.st_ino == inode
    # Wanted again: a collection must not take it for something that was left over.
    assert after.st_mtime > 1
    assert store.usage() == Usage(blobs=1, size_bytes=len(CONTENT), other_bytes=0)
    assert ingests(store) == []


def test_a_blob_that_lost_its_end_is_replaced(store):
    store.put(CONTENT)
    path = store.path_of(TARGET.digest)
    path.chmod(0o600)
    os.truncate(path, 10)
    assert not store.has(TARGET)
    assert store.put(CONTENT).reused is False
    assert path.read_bytes() == CONTENT


def test_other_algorithms_have_their_own_directory(store):
    digest = from_hash(hashlib.sha512(CONTENT))
    assert store.put(CONTENT, "sha512").digest == digest
    assert (store.root / "blobs" / "sha512" / digest.partition(":")[2]).read_bytes() == CONTENT
    assert store.read(replace(TARGET, digest=digest), max_bytes=TARGET.size) == CONTENT


def test_nobody_else_may_look_in_and_nobody_may_write_a_blob(tmp_path):
    before = os.umask(0)
    try:
        store = BlobStore(tmp_path / "cache")
        store.create()
        with store.ingest() as ingest:
            (name,) = ingests(store)
            assert stat.S_IMODE((store.ingest_dir / name).stat().st_mode) == 0o600
            ingest.commit()
    finally:
        os.umask(before)
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(store.ingest_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(store.path_of(digest_of(b"")).stat().st_mode) == 0o444


def test_creating_a_store_again_keeps_what_it_holds(store):
    store.put(CONTENT)
    again = BlobStore(store.root)
    again.create()
    assert again.has(TARGET)
    assert (store.root / "oci-layout").read_bytes() == b'{"imageLayoutVersion":"1.0.0"}'


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as caught:
        BlobStore(tmp_path / "file" / "cache").create()
    assert str(tmp_path / "file" / "cache") in caught.value.message


def test_opening_checks_existence_and_size(store):
    with pytest.raises(ContentNotFoundError):
        store.open(TARGET)
    store.put(CONTENT)
    with pytest.raises(MismatchError):
        store.open(replace(TARGET, size=1))
    handle = store.open(TARGET)
    assert os.read(handle, 10) == CONTENT[:10]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(handle, b"x")
    os.close(handle)


def test_reading_a_small_blob_is_bounded_and_verified(store):
    store.put(CONTENT)
    assert store.read(TARGET, max_bytes=TARGET.size) == CONTENT
    with pytest.raises(ContentError):
        store.read(TARGET, max_bytes=TARGET.size - 1)
    path = store.path_of(TARGET.digest)
    path.chmod(0o600)
    path.write_bytes(bytes([CONTENT[0] ^ 1]) + CONTENT[1:])
    with pytest.raises(MismatchError, match="damaged"):
        store.read(TARGET, max_bytes=TARGET.size)


def test_a_sweep_removes_what_its_label_left_and_nothing_else(store):
    mine, other = BlobStore(store.root, label="a-"), BlobStore(store.root, label="b-")
    left, kept = mine.ingest(), other.ingest()
    left.write(CONTENT)
    kept.write(b"kept")
    mine.put(b"published")
    left.suspend()
    assert mine.sweep() == len(CONTENT)
    assert [name[:2] for name in ingests(store)] == ["b-"]
    assert kept.commit().size == 4
    kept.discard()
    assert len(blobs(store)) == 2


def test_a_sweep_without_a_label_removes_every_ingest_but_no_upload(store):
    for label in ("a-", "b-"):
        BlobStore(store.root, label=label).ingest().suspend()
    store.ingest_upload("upload").suspend()
    store.sweep()
    assert ingests(store) == []
    assert [path.name for path in store.uploads_dir.iterdir()] == ["upload"]


def test_an_upload_goes_on_where_it_was_suspended(store):
    upload = store.ingest_upload("upload")
    upload.write(CONTENT[:100_000])
    upload.suspend()
    upload.suspend()
    with BlobStore(store.root).resume("upload") as resumed:
        assert resumed.size == 100_000
        resumed.write(CONTENT[100_000:])
        resumed.commit(TARGET)
    assert store.has(TARGET)
    assert list(store.uploads_dir.iterdir()) == []


def test_an_upload_can_turn_to_another_algorithm(store):
    with store.ingest_upload("upload") as upload:
        upload.write(CONTENT)
        upload.rehash("sha512")
        assert (upload.algorithm, upload.size) == ("sha512", len(CONTENT))
        assert upload.commit().digest == from_hash(hashlib.sha512(CONTENT))


def test_a_full_disk_is_named_and_nothing_stays(small_store):
    with pytest.raises(NoSpaceError) as caught:
        small_store.put(bytes(4 << 20))
    assert caught.value.code == "no_space"
    assert caught.value.disposition is Disposition.PAUSE
    assert "free disk space" in caught.value.hint
    assert (ingests(small_store), blobs(small_store)) == ([], [])
    assert small_store.put(CONTENT).size == len(CONTENT)


def test_a_disk_that_is_too_small_is_known_before_anything_is_written(small_store):
    small_store.require_space(0)
    small_store.require_space(500_000)
    with pytest.raises(NoSpaceError) as caught:
        small_store.require_space(1 << 20)
    assert str(small_store.ingest_dir) in caught.value.message
    assert "free disk space" in caught.value.hint
    with pytest.raises(StoreError):
        BlobStore(small_store.root / "none").require_space(0)


def test_a_small_file_is_not_replaced_by_half_a_new_one(small_store):
    small_store.replace_file("index.json", b"old")
    with pytest.raises(NoSpaceError):
        small_store.replace_file("index.json", bytes(4 << 20))
    assert (small_store.root / "index.json").read_bytes() == b"old"
    assert ingests(small_store) == []
    assert sorted(entry.name for entry in small_store.root.iterdir()) == [
        "blobs", "downloads", "index.json", "ingest", "oci-layout", "quarantine", "uploads",
    ]  # fmt: skip


def test_whoever_reads_a_file_while_it_is_replaced_sees_one_or_the_other(store):
    path = store.root / "index.json"
    contents = [bytes([65 + number]) * 50_000 for number in range(20)]
    store.replace_file("index.json", contents[0])
    code = (
        "import pathlib, sys; path = pathlib.Path(sys.argv[1]); print(flush=True)\n"
        "while (content := path.read_bytes()) != b'end':\n"
        "    assert len(content) == 50_000 and len(set(content)) == 1, content[:10]\n"
    )
    reader = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
    assert reader.stdout.readline() == b"\n"
    for content in contents:
        store.replace_file("index.json", content)
    store.replace_file("index.json", b"end")
    assert reader.wait(timeout=20) == 0
    reader.stdout.close()
    assert ingests(store) == []


WRITER = """
import sys
from pathlib import Path
from kitd.store.blob_store import BlobStore
store = BlobStore(Path(sys.argv[1]), label=sys.argv[2])
content = bytes(range(256)) * 8192
sys.stdin.read()
with store.ingest() as ingest:
    for start in range(0, len(content), 1 << 16):
        ingest.write(content[start : start + (1 << 16)])
    print(ingest.commit().digest)
"""


def test_many_processes_may_write_the_same_blob_at_once(store):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, store.root, f"{number}-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for number in range(6)
    ]
    for writer in writers:
        writer.stdin.close()
    said = {writer.stdout.read() for writer in writers}
    assert [writer.wait(timeout=20) for writer in writers] == [0] * len(writers)
    for writer in writers:
        writer.stdout.close()
    content = bytes(range(256)) * 8192
    assert said == {f"{digest_of(content)}\n".encode()}
    assert store.read(describe("", content), max_bytes=len(content)) == content
    assert (ingests(store), len(blobs(store))) == ([], 1)


ENDLESS = """
import itertools, sys
from pathlib import Path
from kitd.store.blob_store import BlobStore
store = BlobStore(Path(sys.argv[1]), label="dead-")
for number in itertools.count():
    store.put(b"%d" % number * 50_000)
    store.replace_file("index.json", b"%d" % number * 50_000)
    print(flush=True)
"""


@pytest.mark.parametrize("blobs_before", [1, 2, 5])
def test_a_process_that_is_killed_leaves_whole_blobs_and_what_a_sweep_removes(store, blobs_before):
    writer = subprocess.Popen([sys.executable, "-c", ENDLESS, store.root], stdout=subprocess.PIPE)
    for _ in range(blobs_before):
        writer.stdout.readline()
    deadline = time.monotonic() + 10
    while not ingests(store) and time.monotonic() < deadline:
        pass
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    for name in blobs(store):
        content = (store.root / "blobs" / "sha256" / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == name
    assert len(blobs(store)) >= blobs_before
    BlobStore(store.root, label="dead-").sweep()
    assert ingests(store) == []
    left = {path.name for path in store.root.iterdir()}
    assert left == {
        "blobs", "downloads", "index.json", "ingest", "oci-layout", "quarantine", "uploads",
    }  # fmt: skip


def test_a_blob_that_is_removed_is_gone_and_counted(store):
    digest = store.put(CONTENT).digest
    assert store.remove(digest) == len(CONTENT)
    assert (store.remove(digest), blobs(store)) == (0, [])


def test_a_blob_that_was_touched_later_is_not_removed(store):
    digest = store.put(CONTENT).digest
    written_s = store.blobs()[0].written_s
    assert store.remove(digest, unless_after_s=written_s - 1) == 0
    assert store.remove(digest, unless_after_s=written_s) == len(CONTENT)
    assert not store.touch(digest)


def test_a_damaged_blob_is_put_aside_and_counted_until_it_is_dropped(store):
    digest = store.put(CONTENT).digest
    assert store.quarantine(digest)
    assert not store.has(TARGET)
    assert store.in_quarantine() == {digest: len(CONTENT)}
    assert store.usage() == Usage(blobs=0, size_bytes=0, other_bytes=len(CONTENT))
    assert not store.quarantine(digest)
    assert store.drop_quarantined(digest) == len(CONTENT)
    assert (store.drop_quarantined(digest), store.in_quarantine()) == (0, {})


def test_what_is_missing_is_remembered_without_a_byte(store):
    store.note_missing(TARGET.digest)
    assert store.in_quarantine() == {TARGET.digest: 0}
    assert store.usage().total_bytes == 0


def test_files_that_somebody_else_put_there_are_no_blobs(store):
    (store.root / "blobs" / "sha256" / "notes.txt").write_text("mine")
    (store.root / "quarantine" / "notes.txt").write_text("mine")
    assert (store.blobs(), store.in_quarantine()) == ([], {})


PUTTER = """
import pathlib, sys
from kitd.errors import DurabilityError
from kitd.store.blob_store import BlobStore
store = BlobStore(pathlib.Path(sys.argv[1]))
try:
    store.put(b"weights")
except DurabilityError as error:
    print(error.code, error.disposition)
"""


@pytest.mark.parametrize("call", ["fdatasync", "fsync"])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_an_fsync_that_fails_is_fatal_and_not_tried_again(store, strace, tmp_path, call, error):
    """The second one would succeed, and say nothing of what was lost."""
    log = tmp_path / "calls"
    done = subprocess.run(
        [strace, "-qq", "-o", log, "-e", "trace=fsync,fdatasync",
         "-e", f"inject={call}:error={error}", sys.executable, "-c", PUTTER, store.root],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == "fsync_failed fatal\n"
    assert log.read_text().count(f"{call}(") == 1
    assert ingests(store) == []
