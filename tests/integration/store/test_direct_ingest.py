"""Large blobs past the page cache, on disks that allow that and on others."""

import fcntl
import hashlib
import os
import resource
import stat
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from kitd.oci.digest import digest_of, from_hash
from kitd.store.blob_store import BlobStore, NoSpaceError, StoreError
from kitd.store.buffer_ring import BUFFER_BYTES
from kitd.store.direct_ingest import DirectIngest

BLOCK = 4096
SIZES = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1]
SIZES += [3 * BUFFER_BYTES, 5 * BUFFER_BYTES + BLOCK + 7]


@pytest.fixture(autouse=True)
def nothing_stays_open():
    threads, handles = set(threading.enumerate()), os.listdir("/proc/self/fd")
    yield
    assert set(threading.enumerate()) <= threads
    assert os.listdir("/proc/self/fd") == handles


def left_over(store):
    return list(store.ingest_dir.iterdir())


def blobs(store):
    return list(store.root.glob("blobs/*/*"))


def put(store, content):
    with DirectIngest(store) as ingest:
        ingest.ring.write(content)
        return ingest.commit()


def is_direct(path):
    """Whether this process has a file open for direct writes."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == str(path):
                return bool(fcntl.fcntl(int(name), fcntl.F_GETFL) & os.O_DIRECT)
    raise AssertionError(f"{path} is not open")


@pytest.mark.parametrize("size", SIZES)
def test_the_blob_is_what_was_written(store, size):
    content = os.urandom(size)
    committed = put(store, content)
    assert (committed.digest, committed.size, committed.reused) == (
        digest_of(content),
        size,
        False,
    )
    path = store.path_of(committed.digest)
    assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert left_over(store) == []


def test_the_page_cache_is_left_alone_where_the_disk_allows_it(store, tmp_path):
    try:
        os.close(os.open(tmp_path / "probe", os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
        allowed = True
    except OSError:
        allowed = False
    with DirectIngest(store) as ingest:
        (temporary,) = left_over(store)
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        ingest.ring.write(bytes(8 * BUFFER_BYTES))
        assert is_direct(temporary) == allowed
        ingest.commit()


@pytest.mark.parametrize("size", SIZES)
def test_a_disk_without_direct_writes_takes_blobs_too(cached_only_store, size):
    content = os.urandom(size)
    with DirectIngest(cached_only_store) as ingest:
        assert not is_direct(*left_over(cached_only_store))
        ingest.ring.write(content)
        committed = ingest.commit()
    assert cached_only_store.path_of(committed.digest).read_bytes() == content
    assert left_over(cached_only_store) == []


def test_equal_content_is_stored_once(store):
    content = os.urandom(2 * BUFFER_BYTES + 1)
    first = put(store, content)
    before = store.path_of(first.digest).stat()
    assert put(store, content).reused is True
    assert store.put(content).reused is True
    assert store.path_of(first.digest).stat().st_ino == before.st_ino
    assert left_over(store) == []


@pytest.mark.parametrize("size", [0, 1, BUFFER_BYTES, 9 * BUFFER_BYTES + 1])
def test_leaving_without_a_commit_leaves_nothing(store, size):
    with DirectIngest(store) as ingest:
        ingest.ring.write(bytes(size))
    ingest.discard()
    assert (left_over(store), blobs(store)) == ([], [])


@pytest.mark.parametrize("size", [1, 6 * BUFFER_BYTES])
def test_an_error_of_the_producer_leaves_nothing(store, size):
    def fail():
        with DirectIngest(store) as ingest:
            ingest.ring.write(bytes(size))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (left_over(store), blobs(store)) == ([], [])


@pytest.mark.parametrize("size", [5 << 20, 20 << 20])
def test_a_full_disk_is_named_and_nothing_stays(small_store, size):
    with pytest.raises(NoSpaceError) as caught:
        put(small_store, bytes(size))
    assert str(small_store.ingest_dir) in caught.value.message
    assert (left_over(small_store), blobs(small_store)) == ([], [])
    content = os.urandom(300_000)
    assert put(small_store, content).digest == digest_of(content)


@pytest.mark.parametrize("excess", [0, 100, BLOCK, BLOCK + 100])
def test_a_file_that_may_not_grow_is_an_error_of_the_store(store, excess):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * BUFFER_BYTES + excess, hard))
    try:
        with pytest.raises(StoreError, match="File too large"):
            put(store, bytes(4 * BUFFER_BYTES))
        with DirectIngest(store) as ingest:
            ingest.ring.write(bytes(2 * BUFFER_BYTES + excess))
            assert ingest.commit().size == 2 * BUFFER_BYTES + excess
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert left_over(store) == []


def test_a_directory_that_is_gone_is_named(tmp_path):
    with pytest.raises(StoreError, match=str(tmp_path / "none" / "ingest")):
        DirectIngest(BlobStore(tmp_path / "none"))


WRITER = """
import hashlib, pathlib, sys
from kitd.errors import DurabilityError
from kitd.store.blob_store import BlobStore, NoSpaceError, StoreError
from kitd.store.direct_ingest import DirectIngest
piece = bytes(range(256)) * 4096
try:
    with DirectIngest(BlobStore(pathlib.Path(sys.argv[1]))) as ingest:
        for _ in range(5):
            ingest.ring.write(piece)
        ingest.ring.write(b"rest")
        ingest.commit()
except NoSpaceError:
    sys.exit(3)
except StoreError:
    sys.exit(4)
except DurabilityError:
    sys.exit(5)
"""
DONE, NO_SPACE, CACHE_IO, NOT_DURABLE = 0, 3, 4, 5


@pytest.fixture
def write_with_fault(store, strace):
    """Write five buffers and a rest while a system call fails; return how that ended."""

    def write(fault):
        call = fault.partition(":")[0]
        command = [strace, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
        command += ["-e", f"inject={fault}", sys.executable, "-c", WRITER, str(store.root)]
        return subprocess.run(command, timeout=60, check=False).returncode

    return write


# Calls are counted for each thread, and the one that writes does nothing else.
@pytest.mark.parametrize("number", range(1, 6))
def test_a_disk_that_refuses_a_direct_write_later_gets_buffered_ones(
    store, write_with_fault, number
):
    assert write_with_fault(f"write:error=EINVAL:when={number}") == DONE
    content = bytes(range(256)) * 4096 * 5 + b"rest"
    assert store.path_of(digest_of(content)).read_bytes() == content
    assert left_over(store) == []


@pytest.mark.parametrize(
    ("fault", "end"),
    [
        ("write:error=ENOSPC:when=1", NO_SPACE),
        ("write:error=EDQUOT:when=4", NO_SPACE),
        ("write:error=EIO:when=6", CACHE_IO),
        ("write:error=EINVAL:when=1+", CACHE_IO),
        ("fdatasync:error=EIO", NOT_DURABLE),
        ("fchmod:error=EPERM", CACHE_IO),
        ("rename:error=EROFS", CACHE_IO),
    ],
)
def test_a_disk_that_fails_publishes_nothing(store, write_with_fault, fault, end):
    assert write_with_fault(fault) == end
    assert (left_over(store), blobs(store)) == ([], [])


def test_several_threads_may_write_at_once(store):
    contents = [os.urandom(3 * BUFFER_BYTES + number) for number in range(4)]
    committed = {}

    def write(number):
        committed[number] = put(store, contents[number])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, content in enumerate(contents):
        assert committed[number].digest == from_hash(hashlib.sha256(content))
        assert store.path_of(committed[number].digest).read_bytes() == content


def test_a_clone_is_made_where_the_file_system_can_and_is_no_copy(tmp_path, btrfs):
    """Elsewhere nothing has happened, and the blob is written as any other."""
    for place in (tmp_path, btrfs):
        if place is None:
            continue
        source = place / "source"
        content = os.urandom(3 * BUFFER_BYTES + 7)
        source.write_bytes(content)
        probe = ["cp", "--reflink=always", source, place / "probe"]
        can_share = subprocess.run(probe, capture_output=True, check=False).returncode == 0
        store = BlobStore(place / "cache")
        store.create()
        steps = []
        with source.open("rb") as file, DirectIngest(store) as ingest:
            assert ingest.clone(file.fileno(), steps.append) is can_share
            # What happens to the file from now on is no part of it.
            source.write_bytes(b"other")
            if not can_share:
                assert steps == []
                ingest.ring.write(content)
            blob = ingest.commit()
        assert (blob.digest, blob.size) == (digest_of(content), len(content))
        assert store.path_of(blob.digest).read_bytes() == content
        assert left_over(store) == []
        assert not can_share or sum(steps) == len(content)
