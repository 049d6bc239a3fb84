"""When a pack makes a new kit, when it names one, and when it does neither: a real cache."""

import asyncio
import sqlite3
from contextlib import closing, nullcontext

import pytest

from kitd.clock import SystemClock
from kitd.content.store import CollectedError
from kitd.errors import Disposition, KitdError, UnavailableError
from kitd.jobs.assembly import NotAtRestError, PackArgs
from kitd.jobs.pack import PACK
from kitd.jobs.port import PackSettings, Ports
from kitd.ledger.catalog import Catalog
from kitd.ledger.database import Database
from kitd.ledger.job_ledger import JobLedger
from kitd.ledger.project_ledger import ProjectLedger
from kitd.modelkit.dialect import Dialect
from kitd.oci.digest import digest_of
from kitd.oci.reference import parse_repository
from kitd.packing.order import Packed, PackedLayer, WorkerError, failed
from kitd.packing.scan import InputChangedError, InputError
from kitd.queue.job import Lane
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent
from kitd.store.lease import LeaseBook
from kitd.triggers import requests_for


class Workbench:
    """Packs whatever `content` says, and does with the job what an executor would."""

    def __init__(self, database, store):
        clock = SystemClock()
        self.leases = LeaseBook()
        self.packs = 0
        self.content = b"weights"
        self.parents = ()
        self.expected = []
        self.refusal = None
        self.jobs = JobLedger(database, clock, epoch=1)
        self.projects = ProjectLedger(database, clock)
        self.catalog = Catalog(database, clock, summarize)
        self.ports = Ports(
            cache=CacheContent(store, self.leases),
            reach=None,
            keeps=None,
            catalog=self.catalog,
            packer=self,
            remote=unreachable,
            head_start=nobody_waits,
            mirrors=None,
            reads=None,
            mirror_remote=None,
            repositories=None,
            collector=None,
            verifier=None,
            importer=None,
            clock=clock,
            settings=PackSettings(
                dialect=Dialect.CURRENT,
                cli_version="1.16.0",
                compression="none",
                layer_format="tar",
            ),
        )

    async def pack(self, project, *, expected, destination, advanced, built, keep):
        self.expected.append(expected)
        self.packs += 1
        if self.refusal is not None:
            raise self.refusal
        digest = digest_of(self.content)
        return Packed(
            config_digest=digest_of(b"{}"),
            config_size=2,
            layers=(
                PackedLayer(
                    media_type="application/vnd.kitops.modelkit.model.v1.tar",
                    digest=digest,
                    size=len(self.content),
                    diff_id=digest,
                    annotations={},
                    reused=False,
                ),
            ),
            fingerprint=digest,
            glance=None,
            model_name="model",
            author="ada",
            package_version=None,
            git_commit=None,
            warnings=(),
            parents=self.parents,
        )

    async def run(
        self, repository="registry.example.com/team/model", *, project="demo", fingerprint=None
    ):
        """Pack once and return the result and the kinds of the jobs that follow."""
        args = PackArgs(
            project=project,
            path="/srv/demo",
            kitfile=None,
            repository=repository,
            tags=("latest",),
            push=True,
            compression=None,
            fingerprint=fingerprint,
        )
        await self.jobs.enqueue(PACK.request(args, project=project))
        (self.job,) = await self.jobs.claim({Lane.PACK: 1})
        done = await PACK.attempt(self, self.ports)
        await self.jobs.succeed(self.job, b"{}", done.effects, ())
        self.release()
        return done.result, [r.kind for fact in done.facts for r in requests_for(fact)]

    def report(self, progress):
        """Nobody looks."""

    def when_over(self, release):
        """Remember what ends with the attempt."""
        self.release = release


async def summarize(_manifest):
    return None


async def unreachable(repository):
    raise AssertionError(f"a pack does not talk to {repository}")


def nobody_waits(_repository):
    return nullcontext(lambda _layer: None)


@pytest.fixture
async def bench(tmp_path):
    store = BlobStore(tmp_path / "cache")
    store.create()
    async with Database(tmp_path / "ledger.sqlite3") as database:
        bench = Workbench(database, store)
        await bench.projects.add("demo", "{}")
        yield bench


async def test_a_new_content_is_a_new_kit_with_its_names(bench):
    first, following = await bench.run()
    assert (first.unchanged, first.tags, following) == (False, ("latest",), ["push"])
    bench.content = b"better weights"
    second, following = await bench.run()
    assert (second.unchanged, second.tags, following) == (False, ("latest",), ["push"])
    assert first.digest != second.digest


async def test_a_project_s_last_content_is_neither_made_nor_named_again(bench):
    first, _ = await bench.run()
    again, following = await bench.run()
    assert (again.digest, again.unchanged, again.tags) == (first.digest, True, ())
    assert following == []


async def test_a_person_s_equal_kit_is_named_though_it_is_not_made_again(bench):
    first, _ = await bench.run()
    again, following = await bench.run(project=None)
    assert (again.digest, again.unchanged, again.tags) == (first.digest, True, ("latest",))
    assert following == ["push"]


async def test_a_project_s_equal_content_is_published_in_another_repository(bench):
    await bench.run()
    moved, following = await bench.run("registry.example.com/team/renamed")
    assert (moved.tags, following) == (("latest",), ["push"])


async def test_a_project_s_equal_content_is_published_again_where_it_was_defined_anew(bench):
    await bench.run()
    await bench.projects.add("demo", '{"tags":"others"}')
    again, following = await bench.run()
    assert (again.unchanged, again.tags, following) == (True, ("latest",), ["push"])


async def test_an_equal_kit_that_nobody_looked_at_is_noted_with_its_parent(bench, tmp_path):
    """As it was recorded before kitd noted what kits build on."""
    bench.parents = ("team/base:v1",)
    first, _ = await bench.run()
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as ledger, ledger:
        ledger.execute("DELETE FROM kit_parents")
        ledger.execute("UPDATE manifests SET parent_noted = 0")
    again, _ = await bench.run()
    assert (again.unchanged, await bench.catalog.parent_unknown(after="", limit=9)) == (True, [])
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as ledger:
        rows = ledger.execute("SELECT manifest, name, identifier FROM kit_parents").fetchall()
    assert rows == [(first.digest, "team/base", "v1")]


async def test_a_kit_that_was_removed_is_made_and_named_again(bench):
    first, _ = await bench.run()
    repository = parse_repository("registry.example.com/team/model")
    await bench.catalog.remove(repository, first.digest)
    again, following = await bench.run()
    assert (again.unchanged, again.tags, following) == (False, ("latest",), ["push"])
    assert (await bench.catalog.resolve(repository, "latest")).digest == again.digest


async def test_the_state_that_settled_is_what_is_packed(bench):
    await bench.run(fingerprint="0123")
    await bench.run()
    assert bench.expected == ["0123", None]


@pytest.mark.parametrize(
    "moved",
    [
        pytest.param(InputChangedError("a changed"), id="found by the packer"),
        pytest.param(WorkerError(failed(InputChangedError("a changed"))), id="told by a worker"),
    ],
)
async def test_a_state_that_is_gone_is_left_to_the_project_s_watcher(bench, moved):
    bench.refusal = moved
    with pytest.raises(NotAtRestError, match="a changed") as caught:
        await bench.run(fingerprint="0123")
    error = caught.value
    assert (error.code, error.disposition) == ("not_at_rest", Disposition.STEP_ASIDE)
    assert error.hint


async def test_a_person_s_pack_of_what_moves_is_tried_again(bench):
    bench.refusal = InputChangedError("a changed")
    with pytest.raises(InputChangedError) as caught:
        await bench.run(project=None)
    assert caught.value.disposition is Disposition.SNOOZE


@pytest.mark.parametrize("error", [InputError("a is unreadable"), UnavailableError("away")])
async def test_any_other_error_of_a_settled_state_stays_what_it_is(bench, error):
    bench.refusal = error
    with pytest.raises(KitdError) as caught:
        await bench.run(fingerprint="0123")
    assert caught.value is error


async def test_a_blob_that_was_collected_meanwhile_is_no_reason_to_settle_anew(bench):
    """The project is as it was: the same job tries again."""
    bench.refusal = CollectedError("gone")
    with pytest.raises(CollectedError):
        await bench.run(fingerprint="settled")


async def test_an_equal_kit_that_goes_meanwhile_is_made_anew(bench):
    first, _ = await bench.run(project=None)
    repository = parse_repository("registry.example.com/team/model")
    with bench.leases.condemn([first.digest]):
        packing = asyncio.create_task(bench.run(project=None))
        async with asyncio.timeout(10):
            while bench.packs < 2:
                await asyncio.sleep(0.01)
        await bench.catalog.remove(repository, first.digest)
    second, _ = await packing
    assert not second.unchanged
    assert (await bench.catalog.resolve(repository, "latest")).digest == second.digest
