"""Worker processes from outside: kept, killed, replaced, and never left behind."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from kitd.errors import Disposition, KitdError
from kitd.inotify import CREATE, MOVED_TO, open_inotify, parse_events
from kitd.packing.order import (
    Advanced,
    Known,
    Planned,
    Project,
    ScanOrder,
    Streaming,
    Streams,
    Watched,
)
from kitd.packing.pool import MAX_SCANS, WARM, NoWorkerError, WorkerDiedError, WorkerPool
from kitd.store.blob_store import BlobStore

KITFILE = "model: {path: weights.bin}"
HUGE = 16 << 30
"""Bytes of a file without content: far more than is packed before it is stopped."""


@pytest.fixture
def small(project):
    return Project(root=str(project({"Kitfile": KITFILE, "weights.bin": "weights"})))


@pytest.fixture
def endless(project, tmp_path):
    """A project whose pack ends only because somebody ends it; compressed, it asks for no room."""
    root = project({"Kitfile": KITFILE, "weights.bin": ""}, tmp_path / "endless")
    os.truncate(root / "weights.bin", HUGE)
    return Project(root=str(root), compression="gzip")


async def ignore(notice):
    """Nobody watches the progress, and nothing is known."""
    return Known({}) if isinstance(notice, Planned) else None


def pack(pool, project, hear=ignore):
    return pool.pack(project, hear, known=None, expected=None)


def scan(pool, project, hear=ignore, *, watch=False):
    return pool.scan(ScanOrder(project=project, patience_s=900, watch=watch), hear)


async def begin(group, pool, project):
    """Start a pack and return its task once it has written something."""
    advanced = asyncio.Event()

    async def hear(notice):
        if isinstance(notice, Advanced):
            advanced.set()
        return await ignore(notice)

    packing = group.create_task(outcome(pack(pool, project, hear)))
    async with asyncio.timeout(20):
        await advanced.wait()
    return packing


async def outcome(pack):
    """Return the error that a pack ends with, so that its group lives on."""
    try:
        return await pack
    except KitdError as error:
        return error


def in_flight(store):
    return list(store.ingest_dir.iterdir())


async def test_a_warm_worker_is_there_before_the_first_order_and_serves_many(
    store, small, children
):
    async with WorkerPool(store.root) as pool:
        workers = children()
        assert len(workers) == 1
        first = await pack(pool, small)
        scanned = await scan(pool, small)
        again = await pack(pool, small)
        assert children() == workers
    assert first.fingerprint == scanned.fingerprint == again.fingerprint
    assert first.layers[0].digest == again.layers[0].digest
    assert children() == set()


async def test_orders_at_once_have_a_worker_each_and_few_stay(store, small, children):
    async with WorkerPool(store.root) as pool:
        packed = await asyncio.gather(*(pack(pool, small) for _ in range(3)))
        assert len({one.config_digest for one in packed}) == 1
        assert len(children()) == WARM
    assert children() == set()
    assert in_flight(store) == []


async def test_a_refused_order_keeps_its_worker(store, small, project, tmp_path, children):
    broken = project({"Kitfile": "modle: {}"}, tmp_path / "broken")
    async with WorkerPool(store.root) as pool:
        workers = children()
        with pytest.raises(KitdError) as caught:
            await pack(pool, Project(root=str(broken)))
        assert caught.value.code == "invalid_kitfile"
        assert caught.value.disposition is Disposition.FAIL
        assert caught.value.hint
        await pack(pool, small)
        assert children() == workers


async def test_progress_only_grows_and_knows_its_end(store, project):
    root = project({"Kitfile": KITFILE, "weights.bin": bytes(20 << 20)})
    seen = []

    async def hear(notice):
        if isinstance(notice, Advanced):
            seen.append(notice)
        return await ignore(notice)

    async with WorkerPool(store.root) as pool:
        await pack(pool, Project(root=str(root)), hear)
    done = [advanced.done_bytes for advanced in seen]
    assert done
    assert done == sorted(done)
    assert {advanced.total_bytes for advanced in seen} == {20 << 20}
    assert done[-1] <= 20 << 20


async def test_a_cancelled_pack_ends_its_worker_and_leaves_nothing(store, small, endless, children):
    async with WorkerPool(store.root) as pool:
        workers = children()
        async with asyncio.TaskGroup() as group:
            packing = await begin(group, pool, endless)
            assert len(in_flight(store)) == 1
            packing.cancel()
        assert packing.cancelled()
        assert children() == set()
        assert in_flight(store) == []
        await pack(pool, small)
        assert len(children()) == 1
        assert not children() & workers
    assert children() == set()


async def test_a_worker_that_is_killed_is_an_error_to_try_again(store, small, endless, children):
    async with WorkerPool(store.root) as pool:
        async with asyncio.TaskGroup() as group:
            packing = await begin(group, pool, endless)
            (worker,) = children()
            os.kill(worker, signal.SIGKILL)
        error = packing.result()
        assert isinstance(error, WorkerDiedError)
        assert error.disposition is Disposition.CRASH
        assert in_flight(store) == []
        assert children() == set()
        await pack(pool, small)
    assert children() == set()


async def test_a_worker_that_died_idle_costs_no_order(store, small, children, until):
    async with WorkerPool(store.root) as pool:
        (worker,) = children()
        os.kill(worker, signal.SIGKILL)
        await until(lambda: all(process.returncode is not None for process in pool._idle))
        assert (await scan(pool, small)).fingerprint
        assert worker not in children()


async def test_many_scans_at_once_take_turns_with_few_workers(store, small, children):
    async with WorkerPool(store.root) as pool:
        most = 0
        async with asyncio.TaskGroup() as group:
            scans = [group.create_task(scan(pool, small)) for _ in range(4 * MAX_SCANS)]
            while not all(scan.done() for scan in scans):
                most = max(most, len(children()))
                await asyncio.sleep(0.005)
        assert len({scan.result().fingerprint for scan in scans}) == 1
        # One that is being reaped may still be seen beside its successor.
        assert MAX_SCANS <= most <= 2 * MAX_SCANS
    assert children() == set()


async def test_a_scan_that_waits_for_its_turn_has_not_begun(store, small):
    inside = most = 0

    @contextmanager
    def scanning():
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        try:
            yield
        finally:
            inside -= 1

    order = ScanOrder(project=small, patience_s=900)
    async with WorkerPool(store.root) as pool:
        await asyncio.gather(*(pool.scan(order, ignore, scanning) for _ in range(2 * MAX_SCANS)))
        assert (most, inside) == (MAX_SCANS, 0)
        with pytest.raises(KitdError):
            await pool.scan(
                ScanOrder(project=Project(root="/nowhere"), patience_s=900), ignore, scanning
            )
    assert inside == 0


async def test_a_worker_that_is_stopped_is_given_up_and_replaced(store, small, children):
    async with WorkerPool(store.root, silence_s=4.0) as pool:
        (worker,) = children()
        os.kill(worker, signal.SIGSTOP)
        with pytest.raises(NoWorkerError, match="said nothing for 4 s") as caught:
            await scan(pool, small)
        assert caught.value.disposition is Disposition.RETRY
        assert children() == set()
        assert (await scan(pool, small)).fingerprint


async def test_a_worker_that_looks_for_the_digest_first_says_how_far_it_is(store, endless):
    """Who says nothing is given up; the same bytes are read once more after that."""
    os.truncate(Path(endless.root) / "weights.bin", 1 << 26)
    streams = Streams(repository="r/x", over_bytes=1, digest_first=True)
    advanced = []

    async def hear(notice):
        match notice:
            case Streaming():
                raise EOFError("nobody takes it")
            case Advanced():
                advanced.append(notice)
        return await ignore(notice)

    async with WorkerPool(store.root) as pool:
        with pytest.raises(EOFError):
            await pool.pack(endless, hear, known=None, expected=None, streams=streams)
    assert {notice.total_bytes for notice in advanced} == {2 << 26}


async def test_a_file_that_can_be_shared_needs_no_room(btrfs, project):
    """It takes none, where a copy of it would not leave enough."""
    if btrfs is None:
        pytest.skip("mounting a file system whose files can share blocks needs root")
    store = BlobStore(btrfs / "cache")
    store.create()
    root = project({"Kitfile": KITFILE, "weights.bin": os.urandom(40 << 20)}, btrfs / "project")
    assert not store.has_room_for(40 << 20)
    streams = Streams(repository="r/x", over_bytes=None, digest_first=False)

    async def hear(notice):
        assert not isinstance(notice, Streaming)
        return await ignore(notice)

    raw = Project(root=str(root), layer_format="raw")
    async with WorkerPool(store.root) as pool:
        packed = await pool.pack(raw, hear, known=None, expected=None, streams=streams)
    assert store.size_of(packed.layers[0].digest) == 40 << 20


async def test_a_worker_that_is_kept_waiting_may_be_silent(store, small):
    """Until whoever keeps it waiting says that it does no more."""
    asked = []

    def is_kept_waiting():
        asked.append(None)
        return len(asked) < 3

    streams = Streams(repository="r/x", over_bytes=0, digest_first=False)

    async with WorkerPool(store.root, silence_s=0.5) as pool:
        # Nobody opens the other end of its pipe.
        with pytest.raises(NoWorkerError):
            await pool.pack(
                small,
                ignore,
                known=None,
                expected=None,
                streams=streams,
                is_kept_waiting=is_kept_waiting,
            )
    assert len(asked) == 3


async def test_a_worker_that_cannot_be_started_is_an_error_to_try_again(store, small):
    async with WorkerPool(store.root) as pool:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        async with pool._worker():
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            try:
                with pytest.raises(NoWorkerError, match="cannot start a packing process"):
                    await scan(pool, small)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert (await scan(pool, small)).fingerprint


async def test_a_sweep_leaves_other_packs_alone(store, endless, children):
    async with WorkerPool(store.root) as pool, asyncio.TaskGroup() as group:
        one = await begin(group, pool, endless)
        two = await begin(group, pool, endless)
        assert len(in_flight(store)) == 2
        one.cancel()
        await asyncio.wait([one])
        assert len(in_flight(store)) == 1
        assert len(children()) == 1
        two.cancel()
    assert in_flight(store) == []


async def test_progress_that_nobody_can_take_ends_the_worker(store, endless, children):
    async def refuse(_notice):
        raise ZeroDivisionError

    async with WorkerPool(store.root) as pool:
        with pytest.raises(ZeroDivisionError):
            await pack(pool, endless, refuse)
        assert children() == set()
        assert in_flight(store) == []


def alive(pid):
    """Whether a process runs; an orphan's zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


DAEMON = """
import asyncio, sys
from pathlib import Path
from kitd.packing.order import Known, Planned, Project
from kitd.packing.pool import WorkerPool

async def main():
    async with WorkerPool(Path(sys.argv[1])) as pool:
        async def hear(notice):
            if isinstance(notice, Planned):
                return Known({})
            print(*(process.pid for process in pool._busy), flush=True)
        project = Project(root=sys.argv[2], compression="gzip")
        await pool.pack(project, hear, known=None, expected=None)

asyncio.run(main())
"""


async def test_a_worker_ends_at_once_with_the_process_that_it_works_for(store, endless):
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON, store.root, endless.root], stdout=subprocess.PIPE
    )
    worker = int(daemon.stdout.readline())
    assert alive(worker)
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()
    deadline = time.monotonic() + 5
    while alive(worker):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
    assert len(in_flight(store)) == 1
    store.sweep()
    assert in_flight(store) == []


async def test_a_full_disk_is_the_orders_error(small_store, endless):
    async with WorkerPool(small_store.root) as pool:
        with pytest.raises(KitdError) as caught:
            await pack(pool, Project(root=endless.root))
    assert caught.value.code == "no_space"
    assert caught.value.disposition is Disposition.PAUSE
    assert in_flight(small_store) == []


@pytest.fixture
def inotify():
    handle = open_inotify()
    yield handle
    os.close(handle)


@pytest.fixture
def deep(project, tmp_path):
    """A project with a directory that its pack enters and one that it does not."""
    files = {"Kitfile": "code: [{path: src}]", "src/a/b.py": "", "other/c.py": ""}
    return project(files, tmp_path / "deep")


async def watch(pool, root):
    """Scan and return what the worker says of its watches."""
    told = []

    async def hear(notice):
        if isinstance(notice, Watched):
            told.append(notice)
        return await ignore(notice)

    await scan(pool, Project(root=str(root)), hear, watch=True)
    (watched,) = told
    return watched


def happened(inotify):
    """Return the watches and names of what appeared since this was asked last."""
    try:
        events = list(parse_events(os.read(inotify, 1 << 16)))
    except BlockingIOError:
        return set()
    return {(event.wd, event.name) for event in events if event.mask & (CREATE | MOVED_TO)}


async def test_what_a_worker_watches_is_seen_by_the_process_it_works_for(store, deep, inotify):
    async with WorkerPool(store.root, inotify=inotify) as pool:
        watched = await watch(pool, deep)
        assert (watched.complete, watched.refused) == (True, None)
        assert len(watched.descriptors) == 3
        assert happened(inotify) == set()
        for name in ("new", "src/new", "src/a/new", "other/new"):
            (deep / name).touch()
        seen = happened(inotify)
    assert {wd for wd, _ in seen} == set(watched.descriptors)
    assert [name for _, name in seen] == [b"new"] * 3


async def test_all_workers_put_their_watches_into_one_instance(store, deep, inotify):
    """The same directory has the same watch, whoever asks for it."""
    async with WorkerPool(store.root, inotify=inotify) as pool:
        one, other = await asyncio.gather(watch(pool, deep), watch(pool, deep))
    async with WorkerPool(store.root, inotify=inotify) as pool:
        later = await watch(pool, deep)
    assert set(one.descriptors) == set(other.descriptors) == set(later.descriptors)
    assert len(one.descriptors) == 3


async def test_watches_outlive_the_worker_that_placed_them(store, deep, inotify, children):
    async with WorkerPool(store.root, inotify=inotify) as pool:
        watched = await watch(pool, deep)
    assert children() == set()
    (deep / "src/a/new").touch()
    ((wd, name),) = happened(inotify)
    assert wd in watched.descriptors
    assert name == b"new"


async def test_a_scan_that_is_not_to_watch_and_a_pack_leave_no_watch(store, deep, inotify):
    async with WorkerPool(store.root, inotify=inotify) as pool:
        await scan(pool, Project(root=str(deep)))
        await pack(pool, Project(root=str(deep)))
        (deep / "src/new").touch()
        assert happened(inotify) == set()


async def test_a_pool_without_notifications_says_that_nothing_is_watched(store, deep):
    async with WorkerPool(store.root) as pool:
        watched = await watch(pool, deep)
    assert (watched.descriptors, watched.complete, watched.refused) == ((), True, None)


async def test_a_worker_inherits_nothing_else(store, deep, inotify, children, tmp_path):
    """What the daemon has open, such as the ledger, stays its own."""
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        async with WorkerPool(store.root, inotify=inotify) as pool:
            await watch(pool, deep)
            (worker,) = children()
            links = {os.readlink(link) for link in Path(f"/proc/{worker}/fd").iterdir()}
    assert "anon_inode:inotify" in links
    assert str(tmp_path / "secret") not in links


async def test_scans_that_hang_leave_their_turns_to_others(store, small, children, until):
    """A server that is gone keeps as many as ask for it, and nobody else."""
    async with WorkerPool(store.root, slow_s=0.1) as pool, asyncio.TaskGroup() as group:
        begun = 0

        async def hang(notice):
            nonlocal begun
            if isinstance(notice, Planned):
                begun += 1
                await asyncio.Event().wait()

        hanging = [group.create_task(scan(pool, small, hang)) for _ in range(MAX_SCANS + 2)]
        await until(lambda: begun == MAX_SCANS + 2)
        assert (await scan(pool, small)).fingerprint
        for one in hanging:
            one.cancel()
    assert children() == set()
