"""Work that cannot be stopped holds up neither a cancellation nor the end of kitd.

What hangs here hangs for real: a process that was stopped, a server that never answers, a read in
a thread that nothing interrupts.
"""

import asyncio
import os
import signal
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from kitd.blocking import run_blocking
from kitd.clock import SystemClock
from kitd.ledger.job_ledger import JobLedger
from kitd.oci.reference import parse_repository
from kitd.packing.order import Project, ScanOrder
from kitd.packing.pool import WorkerPool
from kitd.queue.job import JobState, Lane
from kitd.registry.client import RegistryClient
from kitd.registry.settings import RegistrySettings
from kitd.registry.transport import Surroundings
from kitd.store.blob_store import BlobStore

pytestmark = pytest.mark.slow

CANCEL_S = 12.0
"""What a person is promised."""


@pytest.fixture
def fifo(tmp_path):
    """A file that a thread opens for ever; it is let go afterwards."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    yield path
    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))


@pytest.fixture
def hang_in_a_thread(fifo):
    """Do what a read does whose file system is gone."""

    async def hang():
        await run_blocking(fifo.read_bytes)

    return hang


@asynccontextmanager
async def silent_registry():
    """Accept connections and never say anything."""
    leave = asyncio.Event()

    async def say_nothing(_reader, writer):
        await leave.wait()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with RegistryClient(lambda _: RegistrySettings(), Surroundings(environment={})) as it:
            yield await it.repository(parse_repository(f"127.0.0.1:{port}/team/model"))
        leave.set()


@asynccontextmanager
async def stopped_worker(tmp_path: Path):
    """Give what scans a project with a worker process that was stopped."""
    store = BlobStore(tmp_path / "cache")
    store.create()
    order = ScanOrder(project=Project(root=str(tmp_path)), patience_s=900)
    async with WorkerPool(store.root) as pool:
        (worker,) = pool._idle
        os.kill(worker.pid, signal.SIGSTOP)

        async def hear(_notice):
            return None

        yield lambda: pool.scan(order, hear)
        assert not Path(f"/proc/{worker.pid}").exists()


async def test_whatever_hangs_is_cancelled_within_twelve_seconds(
    jobs, executing, until, request_of, stage, poll, tmp_path, hang_in_a_thread
):
    let_go = asyncio.Event()

    async def ignore_it():
        while not let_go.is_set():
            with suppress(asyncio.CancelledError):
                await let_go.wait()

    async with silent_registry() as repository, stopped_worker(tmp_path) as scan:
        stage.works = {
            "registry": lambda: repository.resolve("latest"),
            "worker": scan,
            "thread": hang_in_a_thread,
            "task": ignore_it,
        }
        names = set(stage.works)
        running = [await jobs.enqueue(request_of(name, lock=name)) for name in sorted(names)]
        async with executing(slots={Lane.PACK: 4}) as executor:
            await poll(lambda: stage.inside == names)
            began = time.monotonic()
            for job in running:
                await jobs.request_cancel(job.id)
                executor.cancel(job.id)
            await until(JobState.CANCELLED, *running)
            assert time.monotonic() - began < CANCEL_S
            # Their slots and their locks are free.
            stage.works = {}
            again = [await jobs.enqueue(request_of(name, lock=name)) for name in sorted(names)]
            await until(JobState.SUCCEEDED, *again)
    let_go.set()


async def test_kitd_stops_within_twelve_seconds_whatever_hangs(
    jobs, database, executing, request_of, stage, poll, hang_in_a_thread, until
):
    stage.works["thread"] = hang_in_a_thread
    stage.gate("patient")
    stuck, patient = [await jobs.enqueue(request_of(name)) for name in ("thread", "patient")]
    async with executing():
        await poll(lambda: stage.inside == {"thread", "patient"})
        began = time.monotonic()
    assert time.monotonic() - began < CANCEL_S
    await until(JobState.READY, patient)
    # What it still does, it does in the name of an attempt that is over for the next life.
    assert (await jobs.job(stuck.id)).state is JobState.RUNNING
    next_life = JobLedger(database, SystemClock(), epoch=2)
    assert await next_life.recover() == 1


async def test_what_ends_late_changes_nothing(
    jobs, executing, until, request_of, stage, poll, fifo, hang_in_a_thread
):
    stage.works["a"] = hang_in_a_thread
    heard = []
    job = await jobs.enqueue(request_of("a"))
    async with executing(progress=lambda job, _progress: heard.append(job.id)) as executor:
        await poll(lambda: stage.inside)
        await jobs.request_cancel(job.id)
        executor.cancel(job.id)
        (ended,) = await until(JobState.CANCELLED, job)
        stage.contexts["a"].report("still at it")
        os.close(os.open(fifo, os.O_WRONLY))
        await poll(lambda: not stage.inside)
        assert await jobs.job(job.id) == ended
    assert heard == []
