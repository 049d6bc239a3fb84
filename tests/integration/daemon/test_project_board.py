"""Projects that come, change and go while they are watched, over a real ledger and real workers."""

import asyncio
import os
from contextlib import asynccontextmanager

import msgspec
import pytest
import structlog

from kitd.clock import SystemClock
from kitd.config.model import ProjectConfig, SettleConfig
from kitd.daemon.author_reach import AuthorReach
from kitd.daemon.layer_relay import LayerRelays
from kitd.daemon.packer import Packer
from kitd.daemon.parent_finder import ParentFinder
from kitd.daemon.project_board import ProjectBoard
from kitd.jobs.assembly import NotAtRestError, PackArgs
from kitd.jobs.port import PackSettings
from kitd.ledger.catalog import Catalog
from kitd.ledger.database import Database
from kitd.ledger.job_ledger import JobLedger
from kitd.ledger.pack_memory import PackMemory
from kitd.ledger.project_ledger import ProjectLedger
from kitd.modelkit.dialect import Dialect
from kitd.oci.reference import parse_repository
from kitd.packing.pool import WorkerPool
from kitd.queue.job import JobState, Lane
from kitd.queue.retry import failure_of
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent
from kitd.watch.inotify_hints import InotifyHints
from kitd.watch.project_watcher import ChangeSources
from kitd.watch.root_monitor import RootMonitor

REPOSITORY = parse_repository("demo")
SETTINGS = PackSettings(
    dialect=Dialect.CURRENT, cli_version="1.16.0", compression="none", layer_format="tar"
)


async def nothing(_manifest):
    """No kit is summarised here."""


async def until(condition, within_s=15.0):
    """Poll for a condition, with a deadline."""
    async with asyncio.timeout(within_s):
        while not await condition():
            await asyncio.sleep(0.01)


def watchers():
    """Return the names of the tasks that watch projects."""
    return sorted(t.get_name() for t in asyncio.all_tasks() if t.get_name().startswith("watch-"))


@pytest.fixture
async def database(tmp_path):
    async with Database(tmp_path / "ledger.sqlite3") as database:
        yield database


@pytest.fixture
def jobs(database):
    return JobLedger(database, SystemClock(), 1)


async def no_registry(repository):
    raise AssertionError(f"a scan does not talk to {repository}")


@pytest.fixture
def new_board(database, jobs, tmp_path):
    """Run a board."""
    clock = SystemClock()
    store = BlobStore(tmp_path / "cache")
    store.create()

    @asynccontextmanager
    async def new_board(configured=None):
        async with (
            InotifyHints() as hints,
            WorkerPool(store.root, inotify=hints.descriptor) as pool,
        ):
            catalog = Catalog(database, clock, nothing)
            board = ProjectBoard(
                projects=ProjectLedger(database, clock),
                jobs=jobs,
                catalog=catalog,
                packer=Packer(
                    pool,
                    PackMemory(database, clock),
                    store,
                    LayerRelays(no_registry, over_bytes=lambda: None),
                    ParentFinder(catalog, CacheContent(store), no_registry),
                    AuthorReach(tuple, daemon_uid=os.geteuid(), nobody=None),
                ),
                sources=ChangeSources(hints, RootMonitor()),
                settings=SETTINGS,
                clock=clock,
            )
            running = asyncio.create_task(board.run(configured or {}))
            await board.started()
            try:
                yield board
                assert not running.done(), running
            finally:
                running.cancel()
                await asyncio.wait([running])
            assert running.cancelled()
            assert watchers() == []

    return new_board


@pytest.fixture
def project(tmp_path):
    root = tmp_path / "project"
    root.mkdir()
    (root / "Kitfile").write_text("model: {path: weights.bin}")
    (root / "weights.bin").write_text("weights")
    return root


def add(board, path, **changes):
    definition = {"kitfile": None, "repository": REPOSITORY, "tags": ("latest",), "push": False}
    return board.add("demo", path=str(path), **definition | changes)


async def test_a_project_that_is_added_twice_at_once_has_one_watcher(new_board, project):
    async with new_board() as board:
        await asyncio.gather(*(add(board, project, tags=(f"v{n}",)) for n in range(8)))
        assert watchers() == ["watch-demo"]


async def test_a_project_that_comes_and_goes_at_once_is_there_or_not(new_board, project):
    async with new_board() as board:
        for _ in range(20):
            await asyncio.gather(add(board, project), board.remove("demo"), return_exceptions=True)
            known = [f"watch-{view.name}" for view in await board.list()]
            assert watchers() == known


async def test_a_hold_and_a_release_at_once_leave_the_watcher_as_the_ledger_says(
    new_board, project, database
):
    async with new_board() as board:
        await add(board, project)
        for _ in range(10):
            changes = [board.hold("demo"), board.release("demo"), board.hold("demo")]
            await asyncio.gather(*changes)
            (row,) = await database.read("SELECT held FROM projects")
            assert ((await board.get("demo")).state == "held") == bool(row["held"])


async def test_a_broken_watcher_starts_again_and_takes_nothing_with_it(
    new_board, project, database
):
    """It cannot tell that its tree settled, then finds no row of its own, and recovers."""
    refuse = "CREATE TRIGGER t BEFORE INSERT ON jobs BEGIN SELECT raise(ABORT, 'refused'); END"
    with structlog.testing.capture_logs() as said:

        async def broken(error):
            return any(line["event"] == "watch.broken" and error in line["error"] for line in said)

        async with new_board() as board:
            await database.write(lambda connection: connection.execute(refuse).rowcount)
            await add(board, project)
            await until(lambda: broken("refused"))
            forget = "UPDATE projects SET name = 'gone'"
            await database.write(lambda connection: connection.execute(forget).rowcount)
            await until(lambda: broken("there is no project demo"))
            mend = "UPDATE projects SET name = 'demo'"
            await database.write(lambda connection: connection.execute(mend).rowcount)
            await database.write(lambda connection: connection.execute("DROP TRIGGER t").rowcount)

            async def told():
                return await database.read("SELECT 1 FROM jobs WHERE project = 'demo'")

            await until(told)


async def claimed(jobs):
    """Return the next pack once there is one, and what it is to pack."""
    found = []

    async def claim():
        found.extend(await jobs.claim({Lane.PACK: 1}))
        return found

    await until(claim)
    return found[0], msgspec.json.decode(found[0].args, type=PackArgs)


async def test_a_project_that_moved_under_its_pack_comes_to_rest_anew(new_board, project, jobs):
    """Nothing of it changed that a hint would tell of: the pack is what noticed."""
    config = ProjectConfig(
        path=project, reference=REPOSITORY, push=False, settle=SettleConfig(quiet_s=0.1)
    )
    async with new_board(configured={"demo": config}) as board:
        first, wanted = await claimed(jobs)
        assert wanted.fingerprint is not None
        assert (await board.get("demo")).state == "packing"
        await jobs.step_aside(first, failure_of(NotAtRestError("it moved")))
        board.job_ended(first)
        second, again = await claimed(jobs)
        assert second.id != first.id
        assert again == wanted


async def test_a_project_that_changed_while_a_pack_waits_is_packed_as_it_is_then(
    new_board, project, jobs
):
    config = ProjectConfig(
        path=project, reference=REPOSITORY, push=False, settle=SettleConfig(quiet_s=0.1)
    )
    async with new_board(configured={"demo": config}):

        async def latest():
            return await jobs.latest("demo")

        await until(latest)
        (old,) = await latest()
        (project / "weights.bin").write_text("better weights")

        async def replaced():
            return (await jobs.job(old.id)).superseded_by

        await until(replaced)
        new, wanted = await claimed(jobs)
    assert new.id == await replaced()
    assert wanted.fingerprint not in (
        None,
        msgspec.json.decode(old.args, type=PackArgs).fingerprint,
    )


async def test_a_cancelled_pack_is_not_said_to_be_on_its_way_and_comes_with_a_rescan(
    new_board, project, jobs
):
    config = ProjectConfig(
        path=project, reference=REPOSITORY, push=False, settle=SettleConfig(quiet_s=0.1)
    )
    async with new_board(configured={"demo": config}) as board:

        async def waiting():
            return [job for job in await jobs.latest("demo") if job.state is JobState.READY]

        await until(waiting)
        (job,) = await waiting()
        board.job_ended(await jobs.request_cancel(job.id))

        async def given_up():
            return "came to nothing" in ((await board.get("demo")).reason or "")

        await until(given_up)
        board.rescan("demo")
        await until(waiting)
        assert [again.id for again in await waiting()] != [job.id]


async def taken_back(change):
    """Begin a change, and take it back while the ledger writes it."""
    task = asyncio.create_task(change)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_change_that_is_taken_back_is_made_as_a_whole_or_not_at_all(
    new_board, project, database
):
    """The row of a project, its watcher, and what its watcher does are never two stories."""

    async def as_one(board):
        rows = await database.read("SELECT name, held FROM projects ORDER BY name")
        known = [f"watch-{row['name']}" for row in rows]

        async def watched():
            return watchers() == known

        await until(watched, within_s=5)
        for row in rows:
            assert ((await board.get(row["name"])).state == "held") == bool(row["held"])
        return rows

    async with new_board() as board:
        await taken_back(add(board, project))
        assert await as_one(board)
        await taken_back(board.hold("demo"))
        await taken_back(board.release("demo"))
        assert await as_one(board)
        await taken_back(add(board, project, tags=("other",)))
        assert await as_one(board)
        await taken_back(board.remove("demo"))
        assert not await as_one(board)
