"""The projects that are watched: one watcher each, started, stopped and asked by name.

A watcher says when its project is at rest in a new state; the board states that as a fact and
enqueues what follows. What a project is doing is the watcher's state, unless a job of it says more.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import structlog

from kitd.blocking import run_blocking, uninterrupted
from kitd.caller import Caller
from kitd.clock import Clock, rfc3339
from kitd.config.model import KITFILE, ProjectConfig
from kitd.daemon.packer import Packer
from kitd.errors import KitdError
from kitd.hold import Hold
from kitd.jobs.assembly import NotAtRestError, PackArgs
from kitd.jobs.pack import PACK
from kitd.jobs.port import PackSettings
from kitd.ledger.catalog import Catalog
from kitd.ledger.job_ledger import JobLedger
from kitd.ledger.project_ledger import (
    ProjectConflictError,
    ProjectLedger,
    ProjectRecord,
    unknown_project,
)
from kitd.oci.reference import Reference, Repository, parse_repository
from kitd.packing.order import Project, Watched, WatchedPart
from kitd.queue.effect import Emit
from kitd.queue.fact import PackAsked, PackSource, ProjectSettled
from kitd.queue.job import WAITING, Job, JobState
from kitd.rpc.methods.wire import WireHold, WireProject
from kitd.triggers import requests_for
from kitd.watch.identity import Identity
from kitd.watch.project_watcher import ChangeSources, Ports, ProjectWatcher, WatchMode
from kitd.watch.settle import Broken, Observation, SettleConfig, Snapshot, State, WatchState

log = structlog.get_logger(__name__)

_VIEWS_AT_ONCE = 50
"""Of a thousand projects the others need not wait for all."""
RESTART_MIN_S = 1.0
RESTART_MAX_S = 60.0


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """A project as the ledger keeps it, whether it is configured or was added."""

    path: str
    kitfile: str | None
    repository: str
    tags: tuple[str, ...]
    push: bool
    watch: str = "auto"
    quiet_s: float = 2.0
    max_wait_s: float = 900.0
    min_interval_s: float = 0.0
    reader: Caller | msgspec.UnsetType = msgspec.UNSET
    """Who added it, where nothing is to be read that he could not read. Not written where there is
    nobody: a definition whose text changes is packed and named anew."""

    def source(self, name: str) -> PackSource:
        """Return what a pack of this project packs."""
        return PackSource(
            project=name,
            path=self.path,
            kitfile=self.kitfile,
            repository=parse_repository(self.repository),
            tags=self.tags,
            push=self.push,
            reader=self.reader or None,
        )

    def project(self, settings: PackSettings) -> Project:
        """Return how this project is packed, and scanned before."""
        return settings.project(self.path, self.kitfile, self.reader or None)


def define(config: ProjectConfig) -> Definition:
    """Return the definition of a configured project."""
    return Definition(
        path=str(config.path),
        # The default name has two more spellings, which a scan looks for.
        kitfile=None if config.kitfile == KITFILE else str(config.kitfile),
        repository=str(config.reference),
        tags=tuple(map(str, config.tags)),
        push=config.push,
        watch=config.watch,
        quiet_s=config.settle.quiet_s,
        max_wait_s=config.settle.max_wait_s,
        min_interval_s=config.settle.min_interval_s,
    )


@dataclass(slots=True)
class _Watched:
    """A project in this process."""

    definition: Definition
    watcher: ProjectWatcher
    task: asyncio.Task[None] | None = None
    blocked: bool = False
    warnings: tuple[str, ...] = ()
    """What its last scan found odd and went past."""


class ProjectBoard:
    """All projects. `run` until cancelled; the other methods are for the same event loop."""

    def __init__(
        self,
        *,
        projects: ProjectLedger,
        jobs: JobLedger,
        catalog: Catalog,
        packer: Packer,
        sources: ChangeSources,
        settings: PackSettings,
        clock: Clock,
    ) -> None:
        self._projects = projects
        self._jobs = jobs
        self._catalog = catalog
        self._packer = packer
        self._sources = sources
        self._settings = settings
        self._clock = clock
        self._watched: dict[str, _Watched] = {}
        self._group: asyncio.TaskGroup | None = None
        # One change at a time: between the ledger's row and the watcher nobody may slip in, nor may
        # a caller who goes away then part them.
        self._changing = asyncio.Lock()
        self._notes: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self._started = asyncio.Event()

    async def run(self, configured: Mapping[str, ProjectConfig]) -> None:
        """Watch what is configured and what was added, until cancelled."""
        records = await self._projects.configured(_definitions(configured))
        async with asyncio.TaskGroup() as group:
            self._group = group
            for record in records:
                self._watch(record)
            self._started.set()
            # The group outlives its first tasks: projects are added while it runs.
            while True:
                await self._take_note(await self._notes.get())

    async def redefine(self, configured: Mapping[str, ProjectConfig]) -> None:
        """Make the configured projects these, as a restart would; those that were added stay.

        Raises `LedgerError` before anything is changed; waits for nothing after the ledger.
        """
        async with self._changing:
            records = await self._projects.configured(_definitions(configured))
            for name in self._watched.keys() - {record.name for record in records}:
                self._retire(name)
            for record in records:
                watched = self._watched.get(record.name)
                if watched is None or watched.definition != _defined(record):
                    self._watch(record, after=self._retire(record.name))

    async def answer(self) -> None:
        """Return once the board has come to its next note: it is alive."""
        noted = asyncio.Event()

        async def note() -> None:
            noted.set()

        self._notes.put_nowait(note)
        await noted.wait()

    async def started(self) -> None:
        """Return once every project has its watcher: from then on projects can be changed."""
        await self._started.wait()

    def job_ended(self, job: Job) -> None:
        """Take note that an attempt of a project's job ended, one way or the other."""
        if job.project in self._watched and job.kind == PACK.name:
            self._notes.put_nowait(partial(self._pack_ended, job.id, job.project))

    async def list(self) -> Sequence[WireProject]:
        """Return every project and what it is doing."""
        return await self._views(await self._projects.all())

    async def get(self, name: str) -> WireProject:
        """Return one project. Raises `NotFoundError`."""
        (view,) = await self._views([await self._projects.project(name)])
        return view

    async def add(
        self,
        name: str,
        *,
        path: str,
        kitfile: str | None,
        repository: Repository,
        tags: tuple[str, ...],
        push: bool,
        reader: Caller | None = None,
    ) -> WireProject:
        """Watch a project from now on, also after a restart.

        A project of this name is defined anew; with a `reader` only if it is his. Raises
        `ProjectConflictError`.
        """
        definition = Definition(
            path=path,
            kitfile=kitfile,
            repository=str(repository),
            tags=tags,
            push=push,
            reader=reader or msgspec.UNSET,
        )
        async with self._changing:
            if reader is not None and name in self._watched:
                owner = await self.owner_of(name)
                if owner != reader.uid:
                    raise ProjectConflictError(
                        f"the project {name} is that of user {owner}", hint="choose another name"
                    )
            await _end_of(await uninterrupted(self._add(name, definition)))
        return await self.get(name)

    async def _add(self, name: str, definition: Definition) -> asyncio.Task[None] | None:
        await self._projects.add(name, msgspec.json.encode(definition).decode())
        record = await self._projects.project(name)
        retired = self._retire(name)
        self._watch(record, after=retired)
        return retired

    async def owner_of(self, name: str) -> int | None:
        """Return whose project it is: who added it for himself, else who owns its directory.

        None where there is no such directory now. Raises `NotFoundError`.
        """
        definition = self._find(name).definition
        if definition.reader:
            return definition.reader.uid
        try:
            return (await run_blocking(os.stat, definition.path)).st_uid
        except OSError:
            return None

    async def is_as_it_was(self, name: str, at_us: int) -> bool:
        """Return whether a project was defined at that time as it is now. Raises `NotFoundError`.

        What had its name before may have been another's.
        """
        return (await self._projects.project(name)).defined_us <= at_us

    async def remove(self, name: str) -> None:
        """Stop watching a project; its kits stay. Raises `NotFoundError`, a conflict."""
        async with self._changing:
            await _end_of(await uninterrupted(self._remove(name)))

    async def _remove(self, name: str) -> asyncio.Task[None] | None:
        await self._projects.remove(name)
        return self._retire(name)

    def rescan(self, name: str) -> None:
        """Look at a project now. Raises `NotFoundError`."""
        self._find(name).watcher.rescan()

    async def hold(self, name: str) -> WireProject:
        """Keep kitd's hands off a project, also after a restart. Raises `NotFoundError`."""
        async with self._changing:
            self._find(name).watcher.hold()
            await self._projects.hold(name, held=True)
        return await self.get(name)

    async def release(self, name: str) -> WireProject:
        """End a hold. Raises `NotFoundError`."""
        async with self._changing:
            await uninterrupted(self._release(name))
        return await self.get(name)

    async def _release(self, name: str) -> None:
        await self._projects.hold(name, held=False)
        self._find(name).watcher.release()

    def _find(self, name: str) -> _Watched:
        watched = self._watched.get(name)
        if watched is None:
            raise unknown_project(name)
        return watched

    def _watch(self, record: ProjectRecord, *, after: asyncio.Task[None] | None = None) -> None:
        assert self._group is not None
        definition = _defined(record)
        watched = _Watched(definition, self._watcher(record, definition))
        self._watched[record.name] = watched
        watched.task = self._group.create_task(
            self._supervise(record.name, watched, after), name=f"watch-{record.name}"
        )

    def _watcher(self, record: ProjectRecord, definition: Definition) -> ProjectWatcher:
        name = record.name
        project = definition.project(self._settings)

        mode = WatchMode(definition.watch)

        # The watches that the scan under way has told of.
        placed: list[int] = []

        def watched(notice: Watched | WatchedPart) -> None:
            placed.extend(notice.descriptors)
            if isinstance(notice, WatchedPart):
                self._sources.hints.watched(
                    name, notice.descriptors, complete=False, refused=None, remote=None
                )
                return
            self._sources.hints.watched(
                name,
                placed,
                complete=notice.complete,
                refused=notice.refused,
                remote=notice.remote,
            )

        async def scan(began: Callable[[Identity], None]) -> Observation:
            placed.clear()
            try:
                seen = await self._packer.scan(
                    project,
                    patience_s=definition.max_wait_s,
                    opened=lambda root: began((root.device, root.inode)),
                    scanning=self._sources.hints.scanning,
                    watched=watched if mode.is_hinted else None,
                )
            except KitdError as error:
                return Broken(error)
            self._warn(name, seen.warnings)
            return Snapshot(seen.fingerprint, seen.holds, racy=seen.is_racy)

        async def settled(fingerprint: str) -> None:
            for request in requests_for(ProjectSettled(definition.source(name), fingerprint)):
                await self._jobs.enqueue(request)

        watcher = ProjectWatcher(
            name,
            Path(definition.path),
            mode,
            SettleConfig(definition.quiet_s, definition.max_wait_s, definition.min_interval_s),
            Ports(
                scan=scan,
                on_settled=settled,
                on_state=lambda state: self._changed(name, state),
            ),
            self._sources,
            clock=self._clock.monotonic_s,
        )
        if record.fingerprint is not None:
            watcher.packed(record.fingerprint)
        if record.packed_us is not None:
            ago_s = (self._clock.now_us() - record.packed_us) / 1_000_000
            watcher.last_turn(self._clock.monotonic_s() - max(0.0, ago_s))
        if record.held:
            watcher.hold()
        return watcher

    async def _supervise(
        self, name: str, watched: _Watched, after: asyncio.Task[None] | None
    ) -> None:
        """Keep one watcher running; one that breaks does not take the others with it.

        It begins when the one before it, `after`, has ended.
        """
        if after is not None:
            await asyncio.wait([after])
        delay_s = RESTART_MIN_S
        broken = False
        while True:
            try:
                if broken:
                    # What the old one believes to have told may not have arrived.
                    async with self._changing:
                        record = await self._projects.project(name)
                        watched.watcher = self._watcher(record, watched.definition)
                await watched.watcher.run()
            except Exception as error:  # the boundary between one project and all others
                log.exception("watch.broken", project=name, error=str(error))
            broken = True
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RESTART_MAX_S)

    def _retire(self, name: str) -> asyncio.Task[None] | None:
        """Have a project's watcher end; return its task, which may take its time."""
        watched = self._watched.pop(name, None)
        if watched is None or watched.task is None:
            return None
        watched.task.cancel()
        self._packer.forget(watched.definition.project(self._settings))
        return watched.task

    def _changed(self, name: str, state: WatchState) -> None:
        watched = self._watched.get(name)
        if watched is None:
            return
        blocked = state.state is State.BLOCKED
        if blocked == watched.blocked:
            return
        watched.blocked = blocked
        kind = "project.blocked" if blocked else "project.unblocked"
        data = {"reason": state.reason} if blocked else {}
        emit = Emit(kind, f"project:{name}", data)
        log.info(kind, project=name, reason=state.reason if blocked else None)
        self._notes.put_nowait(partial(self._catalog.apply, (emit,)))

    def _warn(self, name: str, warnings: tuple[str, ...]) -> None:
        watched = self._watched.get(name)
        if watched is None:
            return
        for warning in warnings:
            if warning not in watched.warnings:
                log.warning("project.warning", project=name, warning=warning)
        watched.warnings = warnings

    async def _take_note(self, note: Callable[[], Awaitable[None]]) -> None:
        """Do what nobody waits for; should it fail, the next look makes up for it."""
        try:
            await note()
        except KitdError as error:
            log.warning("project.not_noted", code=error.code, error=error.message)

    async def _pack_ended(self, job_id: int, name: str) -> None:
        job = await self._jobs.job(job_id)
        watched = self._watched.get(name)
        if watched is None:
            return
        args = msgspec.json.decode(job.args, type=PackArgs)
        if args.fingerprint is not None and job.state is not JobState.SUCCEEDED:
            if job.state is JobState.FAILED:
                watched.watcher.failed(args.fingerprint)
            elif job.state is JobState.CANCELLED:
                watched.watcher.cancelled(args.fingerprint)
            elif job.error is not None and job.error.code == NotAtRestError.code:
                watched.watcher.moved(args.fingerprint)
        elif job.state is JobState.SUCCEEDED:
            (wish,) = requests_for(PackAsked(watched.definition.source(name)))
            wanted = msgspec.json.decode(wish.args, type=PackArgs)
            if msgspec.structs.replace(args, fingerprint=None) != wanted:
                # It packed what the project was before it was defined anew.
                return
            record = await self._projects.project(name)
            if record.fingerprint is not None:
                watched.watcher.packed(record.fingerprint)

    async def _views(self, records: Sequence[ProjectRecord]) -> Sequence[WireProject]:
        latest = await self._jobs.latest_of([record.name for record in records])
        views = []
        for number, record in enumerate(records):
            if number % _VIEWS_AT_ONCE == 0:
                await asyncio.sleep(0)
            views.append(self._view(record, latest[record.name]))
        return views

    def _view(self, record: ProjectRecord, latest: Sequence[Job]) -> WireProject:
        definition = _defined(record)
        watched = self._watched.get(record.name)
        watch_state = watched.watcher.state if watched is not None else None
        state, reason = project_state(watch_state, latest, self._clock.monotonic_s())
        return WireProject(
            name=record.name,
            path=definition.path,
            reference=str(Reference(parse_repository(definition.repository))),
            tags=definition.tags,
            push=definition.push,
            state=state,
            reason=reason,
            holds=() if watch_state is None else tuple(map(_wire_hold, watch_state.holds)),
            warnings=() if watched is None else watched.warnings,
            last_digest=record.digest,
            last_packed=None if record.packed_us is None else rfc3339(record.packed_us),
            last_job=record.packed_by,
            source=record.source,
        )


async def _end_of(retired: asyncio.Task[None] | None) -> None:
    if retired is not None:
        await asyncio.wait([retired])


def _definitions(configured: Mapping[str, ProjectConfig]) -> Mapping[str, str]:
    """Return the definitions of configured projects as the ledger keeps them."""
    return {
        name: msgspec.json.encode(define(config)).decode() for name, config in configured.items()
    }


def _defined(record: ProjectRecord) -> Definition:
    return msgspec.json.decode(record.definition, type=Definition)


def _wire_hold(hold: Hold) -> WireHold:
    return WireHold(gate=hold.gate, path=hold.path, detail=hold.detail)


def project_state(
    watch: WatchState | None, latest: Sequence[Job], now_s: float
) -> tuple[str, str | None]:
    """Return a project's state in the contract's words, and why.

    `latest` are its newest jobs, newest first.
    """
    for job in latest:
        if job.state is JobState.RUNNING:
            return ("packing" if job.kind == "pack" else "pushing"), f"job {job.id} is running"
    if watch is None:
        return "dirty", "its watcher is starting"
    if watch.state is State.IDLE and latest:
        job = latest[0]
        if job.error is not None and job.state in (JobState.FAILED, JobState.SCHEDULED):
            what = "failed" if job.state is JobState.FAILED else "will be tried again"
            return "blocked", f"job {job.id} {what}: {job.error.message}"
        if job.state in WAITING:
            return "dirty", f"job {job.id} waits for its turn"
    return watch.state, watch.describe(now_s) or None
