"""The composition root: every implementation is chosen here, but for the ground that `serve` lays.

From the inside out: the ledger (`open_ledgers`), what has to be closed again (`open_resources`),
the objects that work with both (`wire`), and what of them runs (`parts_of`). `serve` has the order
of starting and stopping.
"""

import asyncio
import contextlib
import os
import random
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import structlog
from yarl import URL

from kitd import __version__
from kitd.blocking import run_blocking
from kitd.clock import Clock
from kitd.config import model
from kitd.config.address import TcpAddress
from kitd.config.load import Loaded
from kitd.config.model import Config
from kitd.config.places import LEDGER
from kitd.config.show import show_config
from kitd.content.reach import Reach
from kitd.content.shared import SharedReads
from kitd.daemon.author_reach import AuthorReach
from kitd.daemon.cache_keeper import CacheKeeper
from kitd.daemon.collector import Collector
from kitd.daemon.delivery_desk import DeliveryDesk, Sources
from kitd.daemon.disk_guard import RESERVE, DiskGuard
from kitd.daemon.importer import Importer
from kitd.daemon.in_force import InForce
from kitd.daemon.layer_feed import LayerFeeds, layer_feeds
from kitd.daemon.layer_relay import LayerRelays
from kitd.daemon.layout_keeper import keep_layout
from kitd.daemon.ledger_keeper import keep_ledger
from kitd.daemon.log import Logs
from kitd.daemon.mirror_keeper import MirrorKeeper
from kitd.daemon.notify import ServiceManager
from kitd.daemon.own_registry import Onward, OwnRegistry
from kitd.daemon.packer import Packer
from kitd.daemon.parent_finder import ParentFinder
from kitd.daemon.parent_keeper import keep_parents
from kitd.daemon.project_board import ProjectBoard
from kitd.daemon.pulse import Pulse
from kitd.daemon.reload import Reloader, Targets
from kitd.daemon.transfer_keeper import keep_transfers
from kitd.daemon.transfer_memory import LedgerMemory
from kitd.daemon.translation import (
    access_rules,
    lane_slots,
    login_places,
    pack_settings,
    registry_settings,
)
from kitd.daemon.verifier import Verifier
from kitd.daemon.webhook_listener import WebhookListener
from kitd.doctor.examination import Doctor
from kitd.doctor.patient import Patient
from kitd.errors import KitdError
from kitd.gateway.naming import registry_names
from kitd.gateway.server import Gateway
from kitd.importing.git import GitClient
from kitd.importing.hub import HubClient
from kitd.importing.settings import endpoint_in_force, read_settings
from kitd.importing.web import Web
from kitd.jobs import KINDS
from kitd.jobs.ahead import UploadsAhead, uploads_ahead
from kitd.jobs.port import Ports
from kitd.jobs.pull import summarize
from kitd.ledger import life
from kitd.ledger.cache_ledger import CacheLedger
from kitd.ledger.catalog import Catalog
from kitd.ledger.database import Database
from kitd.ledger.delivery_ledger import DeliveryLedger
from kitd.ledger.event_ledger import EventLedger
from kitd.ledger.job_ledger import JobLedger
from kitd.ledger.meter_ledger import MeterLedger
from kitd.ledger.mirror_ledger import MirrorLedger
from kitd.ledger.outbox_ledger import OutboxLedger
from kitd.ledger.pack_memory import PackMemory
from kitd.ledger.project_ledger import ProjectLedger
from kitd.ledger.retention import Retention
from kitd.ledger.shelf import Shelf
from kitd.ledger.transfer_ledger import TransferLedger
from kitd.ledger.trouble import TroubleLedger
from kitd.metrics.gather import Gatherer, HttpAnswers, Instruments
from kitd.metrics.health import Readiness
from kitd.metrics.lag import keep_lag
from kitd.metrics.process import process_age_s
from kitd.metrics.sampler import keep_looking
from kitd.metrics.server import MetricsServer
from kitd.metrics.sight import Sights, sights_of
from kitd.metrics.sight import Sources as SightSources
from kitd.metrics.work import WorkMeter
from kitd.mirror.rule import rules_for
from kitd.modelkit.dialect import Dialect
from kitd.outbox.notifier import Notifier
from kitd.outbox.sender import Surroundings as OutboxSurroundings
from kitd.packing.pool import WorkerPool
from kitd.queue.executor import Executor
from kitd.queue.job import Job, JobState, Progress
from kitd.registry.client import RegistryClient
from kitd.registry.proxy import proxy_for
from kitd.registry.transport import Surroundings
from kitd.rpc import subscription
from kitd.rpc.endpoint import Endpoint, adopt_endpoint, bind_endpoint
from kitd.rpc.methods import METHODS
from kitd.rpc.methods.events import LedgerEvents
from kitd.rpc.methods.services import Services
from kitd.rpc.peer import AccessRule, find_nobody
from kitd.rpc.server import Server
from kitd.secret import Secrets
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent
from kitd.store.lease import LeaseBook
from kitd.watch.hints import Hints
from kitd.watch.inotify_hints import InotifyHints
from kitd.watch.project_watcher import ChangeSources, Intervals
from kitd.watch.root_monitor import RootMonitor
from kitd.webhooks.formats import FORMATS
from kitd.webhooks.receiver import Receiver
from kitd.webhooks.refusal import Refusals
from kitd.webhooks.server import WebhookServer

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What everything stands on: there before the rest, and needs no closing."""

    in_force: InForce
    environ: Mapping[str, str]
    clock: Clock
    started_s: float
    stop: asyncio.Event
    """Set once: kitd stops."""
    store: BlobStore
    leases: LeaseBook
    cache: CacheContent
    disk_guard: DiskGuard
    fatal: asyncio.Future[None]
    """Fails with what kitd must not go on after, wherever that was met."""
    service: ServiceManager
    secrets: Secrets
    logs: Logs | None
    """What a reload configures; None where somebody else sees to it."""
    load: Callable[[], Loaded] | None
    """Reads the configuration again; None where it came from nowhere."""
    answers: HttpAnswers = field(default_factory=HttpAnswers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledgers:
    """The open ledger, by noun, and which life of kitd this is."""

    database: Database
    jobs: JobLedger
    events: EventLedger
    catalog: Catalog
    cache: CacheLedger
    projects: ProjectLedger
    memory: PackMemory
    transfers: TransferLedger
    mirrors: MirrorLedger
    outbox: OutboxLedger
    retention: Retention
    trouble: TroubleLedger
    deliveries: DeliveryLedger
    meters: MeterLedger
    life: life.Life


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What has to be closed: connections, watches, processes."""

    registries: RegistryClient
    hints: Hints
    pool: WorkerPool
    ahead: UploadsAhead
    relays: LayerRelays
    hub: HubClient
    git: GitClient
    reach: Reach
    feeds: LayerFeeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What notices that there is something to do, and does it."""

    board: ProjectBoard
    root_monitor: RootMonitor
    executor: Executor[Ports]
    collector: Collector
    cache_keeper: CacheKeeper
    importer: Importer
    mirror_keeper: MirrorKeeper
    onward: Onward
    desk: DeliveryDesk
    meter: WorkMeter


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What those hear who watch over kitd."""

    readiness: Readiness
    sights: Sights
    gatherer: Gatherer
    server: MetricsServer
    started: Callable[[], Awaitable[object]]

    async def run(self) -> None:
        """Look at what scrapes do not wait for, until cancelled."""
        # Before that there is nothing to be seen.
        await self.started()
        async with asyncio.TaskGroup() as group:
            group.create_task(keep_lag(self.gatherer.lag_s), name="loop lag")
            group.create_task(keep_looking(self.sights.all), name="looks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """The objects that run."""

    ground: Ground
    ledgers: Ledgers
    work: Work
    server: Server[Services]
    registries: RegistryClient
    reloader: Reloader
    notifier: Notifier
    pulse: Pulse
    webhooks: WebhookListener
    watch: Watch


@asynccontextmanager
async def open_ledgers(ground: Ground) -> AsyncIterator[Ledgers]:
    """Open the ledger, begin a life in it and put back what the last one was at.

    Closing notes that the life ended in good order, unless an exception ends it.
    """
    clock = ground.clock
    async with Database(ground.in_force.config.state_dir / LEDGER) as database:
        if (upgrade := database.upgrade) is not None:
            log.info(
                "ledger.upgraded",
                from_schema=upgrade.from_version,
                to_schema=upgrade.to_version,
                backup=str(upgrade.backup),
            )
        begun = await life.begin(database, clock, pid=os.getpid(), version=__version__)
        jobs = JobLedger(database, clock, begun.epoch)
        if recovered := await jobs.recover():
            log.info("daemon.recovered", jobs=recovered)
        memory = PackMemory(database, clock)
        await memory.trim()
        cache = CacheLedger(database, clock)
        events = EventLedger(database)
        yield Ledgers(
            database=database,
            jobs=jobs,
            events=events,
            catalog=Catalog(database, clock, partial(summarize, ground.cache), used=cache.note_use),
            cache=cache,
            projects=ProjectLedger(database, clock),
            memory=memory,
            transfers=TransferLedger(database, clock),
            mirrors=MirrorLedger(database, clock),
            outbox=OutboxLedger(database, events, clock),
            retention=Retention(database, clock, lambda: ground.in_force.config.retention),
            trouble=TroubleLedger(database),
            deliveries=DeliveryLedger(database, clock, jobs),
            meters=MeterLedger(database, events),
            life=begun,
        )
        await life.end(database, clock, begun)


@asynccontextmanager
async def open_resources(
    ground: Ground, ledgers: Ledgers, hints: Callable[[], AbstractAsyncContextManager[Hints]]
) -> AsyncIterator[Resources]:
    """Open what the jobs and the watchers work with."""
    in_force = ground.in_force
    async with AsyncExitStack() as stack:
        registries = await stack.enter_async_context(
            RegistryClient(
                lambda host: registry_settings(
                    in_force.config.registries.get(host, model.RegistryConfig())
                ),
                # A copy, because every request looks into it, and the real one decodes each time.
                Surroundings(environment=dict(ground.environ), secrets=ground.secrets),
                LedgerMemory(ledgers.transfers),
            )
        )
        hinting = await stack.enter_async_context(hints())
        pool = await stack.enter_async_context(
            WorkerPool(in_force.config.cache_dir, inotify=hinting.descriptor)
        )
        ahead = await stack.enter_async_context(uploads_ahead(ground.cache, registries.repository))
        reach = Reach(ground.cache, ledgers.catalog.places, registries.repository)
        feeds = await stack.enter_async_context(layer_feeds())
        web = await stack.enter_async_context(Web(proxy=partial(_proxy, ground)))
        yield Resources(
            registries=registries,
            hints=hinting,
            pool=pool,
            ahead=ahead,
            relays=LayerRelays(
                registries.repository, lambda: in_force.config.cache.stream_over_bytes
            ),
            hub=HubClient(
                lambda: read_settings(in_force.config.hub, ground.environ), ground.secrets, web
            ),
            git=GitClient(web, ground.secrets, ground.environ),
            reach=reach,
            feeds=feeds,
        )


async def wire(
    ground: Ground, ledgers: Ledgers, resources: Resources, intervals: Intervals
) -> Daemon:
    """Make the objects that run; nothing runs yet. Raises `UnknownGroupError`."""
    server: Server[Services]

    def admit(rules: Sequence[AccessRule]) -> None:
        server.access = rules

    def report(job: Job, progress: Progress) -> None:
        server.report(_reported(job, progress))

    nobody = await run_blocking(find_nobody)
    author_reach = AuthorReach(lambda: server.access, daemon_uid=os.geteuid(), nobody=nobody)
    work = await _make_work(ground, ledgers, resources, intervals, author_reach, report=report)
    pulse = _make_pulse(ground, ledgers, resources, work)
    notifier = _make_notifier(ground, ledgers)
    reloader = _make_reloader(ground, ledgers, work, admit, notifier.reload)
    if nobody is not None:
        log.warning("rpc.users_hidden", hint="kitd is in a user namespace: see docs/security.md")
    services = _make_services(ground, ledgers, resources, work, pulse, reloader)
    server = Server(
        METHODS,
        services,
        LedgerEvents(ledgers.events),
        access=await run_blocking(access_rules, ground.in_force.config.rpc),
        daemon_uid=os.geteuid(),
        nobody=nobody,
    )
    receiver = Receiver(work.desk, ground.clock, ground.secrets)
    deliveries = WebhookServer(receiver, answers=ground.answers.webhooks)
    webhooks = WebhookListener(deliveries, ground.in_force.config.webhooks.listen)
    return Daemon(
        ground=ground,
        ledgers=ledgers,
        work=work,
        server=server,
        registries=resources.registries,
        reloader=reloader,
        notifier=notifier,
        pulse=pulse,
        webhooks=webhooks,
        watch=_make_watch(ground, ledgers, resources, work, services, server, deliveries),
    )


async def _make_work(
    ground: Ground,
    ledgers: Ledgers,
    resources: Resources,
    intervals: Intervals,
    author_reach: AuthorReach,
    *,
    report: Callable[[Job, Progress], None],
) -> Work:
    config, clock = ground.in_force.config, ground.clock
    settings = pack_settings(config.modelkit, ground.environ)
    root_monitor = RootMonitor()
    parents = ParentFinder(ledgers.catalog, ground.cache, resources.registries.repository)
    packer = Packer(
        resources.pool, ledgers.memory, ground.store, resources.relays, parents, author_reach
    )
    board = ProjectBoard(
        projects=ledgers.projects,
        jobs=ledgers.jobs,
        catalog=ledgers.catalog,
        packer=packer,
        sources=ChangeSources(resources.hints, root_monitor, intervals),
        settings=settings,
        clock=clock,
    )
    mirror_keeper = MirrorKeeper(
        lambda: ground.in_force.config,
        ledgers.mirrors,
        clock,
        ledgers.jobs.enqueue,
        ledgers.jobs.under_way,
    )
    onward = Onward(ledgers.jobs, mirror_keeper.follow_changes)
    remote = resources.registries.repository
    collector = Collector(
        store=ground.store,
        leases=ground.leases,
        ledger=ledgers.cache,
        remote=remote,
        limits=lambda: ground.in_force.config.cache,
        clock=clock,
    )
    importer = Importer(resources.hub, resources.git, ground.store, ledgers.jobs)

    def ended(job: Job) -> None:
        board.job_ended(job)
        importer.job_ended(job)

    meter = WorkMeter()
    executor: Executor[Ports] = Executor(
        ledgers.jobs,
        KINDS,
        Ports(
            cache=ground.cache,
            reach=resources.reach,
            catalog=ledgers.catalog,
            packer=packer,
            keeps=partial(_keeps, ground),
            remote=resources.ahead.repository,
            head_start=resources.ahead.head_start,
            mirrors=ledgers.mirrors,
            reads=SharedReads(ground.cache.hold, partial(_keeps, ground)),
            mirror_remote=resources.registries.origin,
            repositories=resources.registries.repositories,
            collector=collector,
            verifier=Verifier(
                ground.store, ground.cache, ledgers.cache, ledgers.catalog.places, remote
            ),
            importer=importer,
            clock=clock,
            settings=settings,
        ),
        lane_slots(config.workers),
        ground.disk_guard,
        follow=lambda fact: tuple(
            request
            for each in (fact, *onward.implied(fact))
            for request in mirror_keeper.follow(each)
        ),
        progress=report,
        finished=ended,
        observe=meter.note,
    )
    ledgers.database.on_commit(executor.wake)
    cache_keeper = CacheKeeper(
        collector,
        ledgers.cache,
        ledgers.events,
        ask=ledgers.jobs.enqueue,
        is_paused=lambda: executor.paused is not None,
        monotonic_s=clock.monotonic_s,
    )
    sources = Sources(lambda: ground.in_force.config.webhooks, FORMATS)
    return Work(
        board=board,
        root_monitor=root_monitor,
        executor=executor,
        collector=collector,
        cache_keeper=cache_keeper,
        importer=importer,
        mirror_keeper=mirror_keeper,
        onward=onward,
        desk=DeliveryDesk(
            ledgers.deliveries,
            sources,
            mirror_keeper.follow_changes,
            lambda registry, name: bool(rules_for(mirror_keeper.rules, registry, name)),
            Refusals(),
        ),
        meter=meter,
    )


def _keeps(ground: Ground, size: int) -> bool:
    """Whether the cache is given a blob of so many bytes that could stay in a registry."""
    over_bytes = ground.in_force.config.cache.stream_over_bytes
    return (over_bytes is None or size <= over_bytes) and ground.store.has_room_for(size)


def _make_pulse(ground: Ground, ledgers: Ledgers, resources: Resources, work: Work) -> Pulse:
    probes = {
        "ledger": ledgers.database.prove,
        "executor": work.executor.answer,
        "hints": resources.hints.answer,
        "projects": work.board.answer,
    }
    return Pulse(probes, lambda: _summary(ledgers.jobs, work.board), ground.service, ground.clock)


def _make_notifier(ground: Ground, ledgers: Ledgers) -> Notifier:
    surroundings = OutboxSurroundings(
        ledger=ledgers.outbox,
        instance=ledgers.life.instance,
        clock=ground.clock,
        secrets=ground.secrets,
        proxy=partial(_proxy, ground),
        draw=random.SystemRandom().random,
    )
    return Notifier(lambda: ground.in_force.config.notifications, ledgers.outbox, surroundings)


def _proxy(ground: Ground, url: URL) -> URL | None:
    """Return the environment's proxy for a URL. Raises `InvalidProxyError`."""
    found = proxy_for(url, ground.environ)
    if found is not None and found.password:
        ground.secrets.learn(found.password, username=found.user)
    return found


def _make_reloader(
    ground: Ground,
    ledgers: Ledgers,
    work: Work,
    admit: Callable[[Sequence[AccessRule]], None],
    renotify: Callable[[], None],
) -> Reloader:
    def prepare(new: Config) -> Callable[[], None]:
        rules, slots = access_rules(new.rpc), lane_slots(new.workers)

        def switch() -> None:
            admit(rules)
            work.executor.resize(slots)
            renotify()
            if ground.logs is not None:
                ground.logs.configure(new.log)

        return switch

    targets = Targets(
        prepare=prepare,
        redefine=work.board.redefine,
        emit=lambda event: ledgers.catalog.apply((event,)),
    )
    return Reloader(ground.load, ground.in_force, targets, ground.service)


def _make_services(
    ground: Ground,
    ledgers: Ledgers,
    resources: Resources,
    work: Work,
    pulse: Pulse,
    reloader: Reloader,
) -> Services:
    clock, in_force = ground.clock, ground.in_force
    patient = Patient(
        config=lambda: in_force.config,
        load=ground.load,
        environ=ground.environ,
        clock=clock,
        ledger=ledgers.database.path,
        not_written=lambda: ledgers.database.trouble,
        trouble=ledgers.trouble,
        outbox=ledgers.outbox,
        catalog=ledgers.catalog,
        store=ground.store,
        projects=work.board.list,
        slots=lambda: lane_slots(in_force.config.workers),
        paused=lambda: work.executor.paused,
        shortfall=lambda: work.collector.shortfall,
        silent=lambda: pulse.silent,
        ping=resources.registries.ping,
        closed=resources.registries.closed,
        refusals=lambda: work.desk.refusals,
        watchdog_s=ground.service.watchdog_s,
    )
    return Services(
        life=ledgers.life,
        started_s=ground.started_s,
        monotonic_s=clock.monotonic_s,
        jobs=ledgers.jobs,
        running=work.executor,
        events=ledgers.events,
        catalog=ledgers.catalog,
        projects=work.board,
        mirrors=work.mirror_keeper,
        mirror_ledger=ledgers.mirrors,
        store=ground.store,
        cache=ground.cache,
        cache_ledger=ledgers.cache,
        collector=work.collector,
        doctor=Doctor(patient),
        webhooks=work.desk,
        shelf=Shelf(ledgers.database, clock, work.onward.after),
        remote=resources.registries.repository,
        origin=resources.registries.origin,
        reach=resources.reach,
        feed=resources.feeds.open,
        logins=lambda registry: login_places(
            in_force.config.registries.get(registry, model.RegistryConfig()), ground.environ
        ),
        stopping=ground.stop.is_set,
        hub_endpoint=lambda: endpoint_in_force(in_force.config.hub, ground.environ),
        dialect=Dialect(in_force.config.modelkit.dialect),
        effective_config=lambda: show_config(in_force.config),
        reload=reloader.reload,
    )


def _make_watch(
    ground: Ground,
    ledgers: Ledgers,
    resources: Resources,
    work: Work,
    services: Services,
    server: Server[Services],
    deliveries: WebhookServer,
) -> Watch:
    in_force = ground.in_force
    sources = SightSources(
        projects=work.board.list,
        reasons=services.doctor.reasons,
        places={"state": in_force.config.state_dir, "cache": in_force.config.cache_dir},
        ledger=ledgers.database.path,
        reserve=in_force.config.state_dir / RESERVE,
        store=ground.store,
        evictable_bytes=lambda age_s: work.collector.evictable_bytes(max_age_s=age_s),
        mirrors=ledgers.mirrors.counts,
    )
    sights = sights_of(sources, ground.clock)
    readiness = Readiness(
        ledgers.database.prove,
        ground.stop.is_set,
        lambda: (
            [reason.code for reason in sights.health.seen.reasons] if sights.health.seen else ()
        ),
    )
    gatherer = Gatherer(
        Instruments(
            version=__version__,
            epoch=ledgers.life.epoch,
            started_us=ground.clock.now_us() - int(process_age_s() * 1_000_000),
            clock=ground.clock,
            config=lambda: in_force.config,
            kinds=tuple(KINDS),
            database=ledgers.database,
            meters=ledgers.meters,
            readiness=readiness,
            sights=sights,
            work=work.meter,
            traffic=resources.registries.traffic,
            troubled=resources.registries.troubled,
            verdicts=deliveries.verdicts,
            answers=ground.answers,
            slots=lambda: lane_slots(in_force.config.workers),
            is_paused=lambda: work.executor.paused is not None,
            is_over_limit=lambda: work.collector.shortfall is not None,
            connections=lambda: server.connections,
            calls=lambda: server.calls,
        )
    )
    return Watch(
        readiness=readiness,
        sights=sights,
        gatherer=gatherer,
        server=MetricsServer(gatherer.gather, readiness, ground.answers.metrics),
        started=work.board.started,
    )


def parts_of(daemon: Daemon) -> Mapping[str, Callable[[], Coroutine[Any, Any, None]]]:
    """Return what runs from the start until the stop, which cancels it.

    A part that ends by itself ends the daemon.
    """
    ground, ledgers, work = daemon.ground, daemon.ledgers, daemon.work
    watched = ground.in_force.config.metrics.listen is not None
    return {
        **({"metrics looks": daemon.watch.run} if watched else {}),
        "executor": work.executor.run,
        "projects": lambda: work.board.run(ground.in_force.config.projects),
        "root_monitor": work.root_monitor.run,
        "ledger_guard": ledgers.database.guard,
        "retention": lambda: keep_ledger(ledgers.retention),
        "parents": lambda: keep_parents(ledgers.catalog, ground.cache),
        "layout": lambda: keep_layout(ground.store, ledgers.catalog, ledgers.events),
        "cache": work.cache_keeper.run,
        "mirrors": work.mirror_keeper.run,
        "imports": work.importer.run,
        "transfers": lambda: keep_transfers(ledgers.transfers, daemon.registries),
        "notifications": daemon.notifier.run,
        "fatal": lambda: _fail_with(ground.fatal),
        "reload": daemon.reloader.run,
        "pulse": daemon.pulse.run,
        "webhooks": daemon.webhooks.run,
    }


@asynccontextmanager
async def open_registry(
    ground: Ground, ledgers: Ledgers, onward: Onward
) -> AsyncIterator[str | None]:
    """Open kitd's own registry, if one is configured; give its `host:port`."""
    config = ground.in_force.config.registry
    if config.listen is None:
        yield None
        return

    def fatal(error: KitdError) -> None:
        if not ground.fatal.done():
            ground.fatal.set_exception(error)

    catalog = OwnRegistry(ledgers.catalog, onward)
    gateway = Gateway(
        ground.store,
        catalog,
        ground.leases,
        writable=config.writable,
        fatal=fatal,
        answers=ground.answers.registry,
    )
    async with gateway.listen(config.listen.host, config.listen.port) as (host, port):
        onward.names = registry_names(replace(config.listen, port=port))
        yield f"{host}:{port}"


@asynccontextmanager
async def open_metrics(daemon: Daemon) -> AsyncIterator[TcpAddress | None]:
    """Answer scrapes and probes, if that is configured; give the address. Raises `ListenError`."""
    place = daemon.ground.in_force.config.metrics.listen
    if place is None:
        yield None
        return
    async with daemon.watch.server.listen(place) as address:
        yield address


def endpoint_of(config: model.RpcConfig, inherited: socket.socket | None) -> Endpoint:
    """Return where clients connect: the service manager's socket, else one made here.

    Blocks. Raises `EndpointError`.
    """
    if inherited is not None:
        return adopt_endpoint(inherited)
    return bind_endpoint(config.socket, mode=config.mode)


def native_hints() -> AbstractAsyncContextManager[Hints]:
    """Return the source of hints of this platform."""
    if sys.platform == "linux":
        return InotifyHints()
    else:  # noqa: RET505 - without it the type checker finds what follows unreachable
        # Here, because it takes longer to import than all the rest of kitd.watch.
        from kitd.watch.watchfiles_hints import WatchfilesHints  # noqa: PLC0415

        return contextlib.nullcontext(WatchfilesHints())


async def _fail_with(fatal: asyncio.Future[None]) -> None:
    await fatal


async def _summary(jobs: JobLedger, board: ProjectBoard) -> str:
    counts = await jobs.counts()
    states = {"running": counts.of(JobState.RUNNING), "ready": counts.of(JobState.READY)}
    states["blocked"] = sum(project.state == "blocked" for project in await board.list())
    return ", ".join(f"{number} {state}" for state, number in states.items())


def _reported(job: Job, progress: Progress) -> subscription.Progress:
    return subscription.Progress(
        job.id, job.project, progress.phase, progress.done_bytes, progress.total_bytes
    )
