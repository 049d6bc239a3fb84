"""What arrived of a blob, when the next attempt goes on with it."""

import hashlib
import os
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from kitd.content.store import MismatchError
from kitd.oci.descriptor import describe
from kitd.oci.digest import from_hash
from kitd.store.blob_store import NoSpaceError
from kitd.store.buffer_ring import BUFFER_BYTES
from kitd.store.direct_file import BLOCK_BYTES
from kitd.store.partial import CATCH_UP_BYTES, PartialBlob, put_verified
from kitd.store.sample import MAX_SAMPLES, SAMPLE_BYTES, keep_sample, sample_path

CONTENT = os.urandom(7 * BUFFER_BYTES + 12_345)
TARGET = describe("application/octet-stream", CONTENT)


@pytest.fixture(autouse=True)
def nothing_stays_open():
    threads, handles = set(threading.enumerate()), os.listdir("/proc/self/fd")
    yield
    assert set(threading.enumerate()) <= threads
    assert os.listdir("/proc/self/fd") == handles


def caught_up(store, target=TARGET):
    partial = PartialBlob(store, target)
    while not partial.catch_up():
        pass
    return partial


def arrive(store, content, target=TARGET):
    """Let a part arrive that nobody commits."""
    with caught_up(store, target) as partial:
        partial.ring.write(content)


def downloads(store):
    return {path.name: path.read_bytes() for path in store.downloads_dir.iterdir()}


@pytest.mark.parametrize(
    "arrived", [1, BLOCK_BYTES, BUFFER_BYTES, 5 * BUFFER_BYTES + BLOCK_BYTES + 1, len(CONTENT) - 1]
)
def test_the_next_attempt_goes_on_at_the_last_whole_block(store, arrived):
    arrive(store, CONTENT[:arrived])
    assert list(downloads(store).values()) == [CONTENT[:arrived]]
    assert not store.has(TARGET)
    with caught_up(store) as partial:
        found = partial.found_bytes
        assert found == arrived // BLOCK_BYTES * BLOCK_BYTES
        partial.ring.write(CONTENT[found:])
        assert partial.commit().reused is False
    assert store.path_of(TARGET.digest).read_bytes() == CONTENT
    assert downloads(store) == {}


def test_a_part_of_every_attempt_stays(store):
    for at in range(0, len(CONTENT), BUFFER_BYTES):
        with caught_up(store) as partial:
            partial.ring.write(CONTENT[partial.found_bytes : at + BUFFER_BYTES])
    with caught_up(store) as partial:
        partial.ring.write(CONTENT[partial.found_bytes :])
        partial.commit()
    assert store.has(TARGET)


def test_all_that_is_missing_may_be_the_commit(store):
    content = bytes(2 * BUFFER_BYTES)
    target = describe("", content)
    arrive(store, content, target)
    with caught_up(store, target) as partial:
        assert partial.found_bytes == target.size
        partial.commit()
    assert store.has(target)


def test_a_large_part_is_hashed_again_in_pieces(store):
    size = CATCH_UP_BYTES + BLOCK_BYTES
    target = replace(TARGET, size=size + 1)
    store.partial_path(target.digest).touch()
    os.truncate(store.partial_path(target.digest), size)
    with PartialBlob(store, target) as partial:
        assert not partial.catch_up()
        assert partial.catch_up()


def test_other_algorithms_are_hashed_by_their_own(store):
    digest = from_hash(hashlib.sha512(CONTENT))
    target = replace(TARGET, digest=digest)
    arrive(store, CONTENT[: 3 * BUFFER_BYTES], target)
    with caught_up(store, target) as partial:
        partial.ring.write(CONTENT[partial.found_bytes :])
        assert partial.commit().digest == digest


def test_where_nothing_arrived_nothing_stays(store):
    with caught_up(store):
        assert stat.S_IMODE(store.partial_path(TARGET.digest).stat().st_mode) == 0o600
    assert downloads(store) == {}


def test_more_than_the_blob_has_is_cut_off(store):
    store.partial_path(TARGET.digest).write_bytes(CONTENT + bytes(5 * BLOCK_BYTES))
    with caught_up(store) as partial:
        assert partial.found_bytes <= TARGET.size
        partial.ring.write(CONTENT[partial.found_bytes :])
        partial.commit()
    assert store.has(TARGET)


@pytest.mark.parametrize("arrived", [0, 100, 3 * BUFFER_BYTES])
def test_something_else_is_never_gone_on_with_and_a_sample_of_it_stays(store, arrived):
    other = b"<html>log in</html>" + bytes(arrived)
    arrive(store, other[:arrived])
    with caught_up(store) as partial:
        partial.ring.write(other[partial.found_bytes :])
        with pytest.raises(MismatchError, match=TARGET.digest) as caught:
            partial.commit()
    assert downloads(store) == {}
    assert not store.has(TARGET)
    sample = sample_path(store, TARGET.digest)
    assert str(sample) in caught.value.hint
    assert sample.read_bytes() == other[:SAMPLE_BYTES]
    # No damaged blob: nobody misses it.
    assert store.in_quarantine() == {}
    with caught_up(store) as partial:
        assert partial.found_bytes == 0
        partial.ring.write(CONTENT)
        partial.commit()


def test_a_small_blob_is_published_whole_or_not_at_all(store):
    target = describe("", b"weights")
    with pytest.raises(MismatchError):
        put_verified(store, target, b"whites")
    assert sample_path(store, target.digest).read_bytes() == b"whites"
    assert not store.has(target)
    assert put_verified(store, target, b"weights").digest == target.digest
    assert store.has(target)


def test_the_newest_samples_stay(store):
    digests = [describe("", bytes([number])).digest for number in range(MAX_SAMPLES + 3)]
    for number, digest in enumerate(digests):
        path = keep_sample(store, digest, b"x" * (SAMPLE_BYTES + 1))
        os.utime(path, (number, number))
        assert keep_sample(store, digest, b"y" * (SAMPLE_BYTES + 1)) == path
        os.utime(path, (number, number))
    left = {path.name for path in store.quarantine_dir.iterdir()}
    assert left == {sample_path(store, digest).name for digest in digests[3:]}
    assert sample_path(store, digests[-1]).stat().st_size == SAMPLE_BYTES


def test_rejections_at_once_make_room_for_their_samples_together(store):
    for number in range(MAX_SAMPLES):
        keep_sample(store, describe("", bytes([number])).digest, b"old")
    digests = [describe("", b"new %d" % number).digest for number in range(64)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda digest: keep_sample(store, digest, b"new"), digests))
    assert len(list(store.quarantine_dir.iterdir())) <= MAX_SAMPLES + 16


def test_where_no_sample_can_be_kept_it_is_still_a_mismatch(store):
    store.quarantine_dir.rmdir()
    store.quarantine_dir.write_bytes(b"no directory")
    with pytest.raises(MismatchError) as caught:
        put_verified(store, describe("", b"weights"), b"whites!")
    assert "no sample of it could be kept" in caught.value.hint


def test_what_arrived_is_there_although_the_blob_came_from_elsewhere(store):
    arrive(store, CONTENT[:BUFFER_BYTES])
    store.put(CONTENT)
    with caught_up(store) as partial:
        partial.ring.write(CONTENT[partial.found_bytes :])
        assert partial.commit().reused is True
    assert downloads(store) == {}


def test_it_is_counted_and_can_be_dropped(store):
    arrive(store, CONTENT[:BUFFER_BYTES])
    (found,) = store.partials()
    assert (found.digest, found.size) == (TARGET.digest, BUFFER_BYTES)
    assert store.usage().other_bytes == BUFFER_BYTES
    assert store.drop_partial(TARGET.digest) == BUFFER_BYTES
    assert store.drop_partial(TARGET.digest) == 0
    assert store.partials() == []


def test_a_sweep_keeps_it(store):
    arrive(store, CONTENT[:BUFFER_BYTES])
    store.sweep()
    assert len(store.partials()) == 1


def test_a_full_disk_keeps_what_it_took(small_store):
    with pytest.raises(NoSpaceError):
        arrive(small_store, CONTENT)
    (content,) = downloads(small_store).values()
    assert content
    assert CONTENT.startswith(content)


def test_a_disk_without_direct_writes_takes_it_too(cached_only_store):
    arrive(cached_only_store, CONTENT[: 2 * BUFFER_BYTES + 1])
    with caught_up(cached_only_store) as partial:
        partial.ring.write(CONTENT[partial.found_bytes :])
        partial.commit()
    assert cached_only_store.path_of(TARGET.digest).read_bytes() == CONTENT


RECEIVER = """
import pathlib, sys
from kitd.oci.descriptor import Descriptor
from kitd.store.blob_store import BlobStore
from kitd.store.partial import PartialBlob
root, digest, size = sys.argv[1:]
with PartialBlob(BlobStore(pathlib.Path(root)), Descriptor("", digest, int(size))) as partial:
    assert partial.catch_up()
    while piece := sys.stdin.buffer.read(100_000):
        partial.ring.write(piece)
        print(flush=True)
"""


def test_what_a_killed_process_got_is_a_beginning_of_the_blob(store):
    receiver = subprocess.Popen(
        [sys.executable, "-c", RECEIVER, store.root, TARGET.digest, str(TARGET.size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    for at in range(0, 6_500_000, 100_000):
        receiver.stdin.write(CONTENT[at : at + 100_000])
        assert receiver.stdout.read(1) == b"\n"
    receiver.send_signal(signal.SIGKILL)
    receiver.wait()
    receiver.stdin.close()
    receiver.stdout.close()
    (content,) = downloads(store).values()
    assert CONTENT.startswith(content)
    # What was in memory is lost, and no more.
    assert len(content) >= 6_500_000 - 4 * BUFFER_BYTES
    with caught_up(store) as partial:
        partial.ring.write(CONTENT[partial.found_bytes :])
        partial.commit()
    assert store.has(TARGET)
