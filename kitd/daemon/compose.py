"""The composition root: every implementation is named here, and only here.

Starting goes from the inside out (state directory, ledger, recovery, workers, watchers, and at last
the socket), stopping the other way round, so that nobody is ever answered by half a daemon.
"""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import structlog

from kitd import __version__
from kitd.blocking import run_blocking
from kitd.clock import SystemClock
from kitd.config import model
from kitd.config.model import Config
from kitd.config.show import show_config
from kitd.daemon.layout_keeper import keep_layout
from kitd.daemon.packer import Packer
from kitd.daemon.project_board import ProjectBoard
from kitd.daemon.state_dir import locked_state_dir
from kitd.gateway.server import Gateway
from kitd.jobs import KINDS
from kitd.jobs.ahead import uploads_ahead
from kitd.jobs.port import PackSettings, Ports
from kitd.jobs.pull import summarize
from kitd.ledger import life
from kitd.ledger.catalog import Catalog
from kitd.ledger.database import Database
from kitd.ledger.event_ledger import EventLedger
from kitd.ledger.job_ledger import JobLedger
from kitd.ledger.pack_memory import PackMemory
from kitd.ledger.project_ledger import ProjectLedger
from kitd.modelkit.dialect import Dialect
from kitd.packing.pool import WorkerPool
from kitd.queue.executor import Executor
from kitd.queue.job import Job, Lane, Progress
from kitd.registry import settings as registry
from kitd.registry.client import RegistryClient
from kitd.registry.transport import Surroundings
from kitd.rpc import subscription
from kitd.rpc.endpoint import Endpoint, adopt_endpoint, bind_endpoint
from kitd.rpc.methods import METHODS
from kitd.rpc.methods.events import LedgerEvents
from kitd.rpc.methods.services import Services
from kitd.rpc.peer import AccessRule, Role
from kitd.rpc.server import Server
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent
from kitd.triggers import requests_for
from kitd.watch.hints import Hints
from kitd.watch.inotify_hints import InotifyHints
from kitd.watch.project_watcher import ChangeSources, Intervals
from kitd.watch.root_monitor import RootMonitor

log = structlog.get_logger(__name__)

RPC_GRACE_S = 2.0
"""What calls in flight get to be answered when kitd stops."""
LEDGER = "ledger.sqlite3"
DEFAULT_INTERVALS = Intervals()


def registry_settings(config: model.RegistryConfig) -> registry.RegistrySettings:
    """Return a registry's configuration in the words of the registry client."""
    credentials: registry.CredentialSource
    match config.credentials:
        case model.BuiltinCredentials.ANONYMOUS:
            credentials = registry.Anonymous()
        case model.PasswordFile(username=username, password_file=password_file):
            credentials = registry.PasswordFile(username, password_file)
        case model.TokenFile(token_file=token_file):
            credentials = registry.TokenFile(token_file)
        case _:
            credentials = registry.DockerCredentials()
    return registry.RegistrySettings(
        plain_http=config.plain_http,
        ca_file=config.ca_file,
        client_cert=config.client_cert,
        client_key=config.client_key,
        proxy=config.proxy,
        credentials=credentials,
        upload_mode=registry.UploadMode(config.upload.mode),
        chunk_bytes=config.upload.chunk_bytes,
    )


def pack_settings(config: model.ModelkitConfig, environ: Mapping[str, str]) -> PackSettings:
    """Return how kits are packed; `SOURCE_DATE_EPOCH` is honoured where it is a number."""
    epoch = environ.get("SOURCE_DATE_EPOCH", "")
    return PackSettings(
        dialect=Dialect(config.dialect),
        cli_version=config.cli_version,
        compression=config.compression,
        layer_format=config.layer_format,
        source_date_epoch=int(epoch) if epoch.isdecimal() and len(epoch) < 12 else None,
    )


def access_rules(config: model.RpcConfig) -> tuple[AccessRule, ...]:
    """Return who may call what. Raises `UnknownGroupError`."""
    return tuple(
        AccessRule.for_group(rule.group, Role[rule.role.upper()])
        if rule.group is not None
        else AccessRule(uid=rule.uid, role=Role[rule.role.upper()])
        for rule in config.access
    )


@dataclass(frozen=True, slots=True)
class _Ledgers:
    database: Database
    jobs: JobLedger
    events: EventLedger
    catalog: Catalog
    projects: ProjectLedger
    memory: PackMemory
    life: life.Life


@asynccontextmanager
async def _open_ledgers(
    config: Config, clock: SystemClock, cache: CacheContent
) -> AsyncIterator[_Ledgers]:
    async with Database(config.state_dir / LEDGER) as database:
        begun = await life.begin(database, clock, pid=os.getpid(), version=__version__)
        jobs = JobLedger(database, clock, begun.epoch)
        if recovered := await jobs.recover():
            log.info("daemon.recovered", jobs=recovered)
        memory = PackMemory(database, clock)
        await memory.trim()
        yield _Ledgers(
            database=database,
            jobs=jobs,
            events=EventLedger(database),
            catalog=Catalog(database, clock, partial(summarize, cache)),
            projects=ProjectLedger(database, clock),
            memory=memory,
            life=begun,
        )
        await life.end(database, clock, begun)


def native_hints() -> AbstractAsyncContextManager[Hints]:
    """Return the source of hints of this platform."""
    if sys.platform == "linux":
        return InotifyHints()
    else:  # noqa: RET505 - without it the type checker finds what follows unreachable
        # Here, because it takes longer to import than all the rest of kitd.watch.
        from kitd.watch.watchfiles_hints import WatchfilesHints  # noqa: PLC0415

        return contextlib.nullcontext(WatchfilesHints())


async def serve(
    config: Config,
    environ: Mapping[str, str],
    *,
    inherited: socket.socket | None,
    started: Callable[[Callable[[], None]], None],
    hints: Callable[[], AbstractAsyncContextManager[Hints]] = native_hints,
    intervals: Intervals = DEFAULT_INTERVALS,
) -> None:
    """Run the daemon until it is stopped. Once it answers, `started` is given what stops it.

    `hints` and `intervals` are how projects are watched; results do not depend on either.
    Raises `KitdError` where it cannot start, and what a part of it died of.
    """
    clock = SystemClock()
    started_s = clock.monotonic_s()
    settings = pack_settings(config.modelkit, environ)
    access = await run_blocking(access_rules, config.rpc)
    stop = asyncio.Event()
    for section in _idle_sections(config):
        log.warning("config.not_acted_upon", section=section, hint="this version does not have it")
    async with AsyncExitStack() as stack:
        stack.enter_context(locked_state_dir(config.state_dir))
        store = BlobStore(config.cache_dir)
        cache = CacheContent(store)
        await run_blocking(store.create)
        if freed := await run_blocking(store.sweep):
            log.info("cache.swept", freed_bytes=freed)
        ledgers = await stack.enter_async_context(_open_ledgers(config, clock, cache))
        registries = await stack.enter_async_context(
            RegistryClient(
                lambda host: registry_settings(config.registries.get(host, model.RegistryConfig())),
                Surroundings(environment=environ),
            )
        )
        hinting = await stack.enter_async_context(hints())
        root_monitor = RootMonitor()
        pool = await stack.enter_async_context(
            WorkerPool(config.cache_dir, inotify=hinting.descriptor)
        )
        ahead = await stack.enter_async_context(uploads_ahead(cache, registries.repository))
        packer = Packer(pool, ledgers.memory, store)
        board = ProjectBoard(
            projects=ledgers.projects,
            jobs=ledgers.jobs,
            catalog=ledgers.catalog,
            packer=packer,
            sources=ChangeSources(hinting, root_monitor, intervals),
            settings=settings,
            clock=clock,
        )
        server: Server[Services]
        executor: Executor[Ports] = Executor(
            ledgers.jobs,
            KINDS,
            Ports(
                cache=cache,
                catalog=ledgers.catalog,
                packer=packer,
                remote=ahead.repository,
                head_start=ahead.head_start,
                clock=clock,
                settings=settings,
            ),
            {
                Lane.PACK: config.workers.pack,
                Lane.PUSH: config.workers.push,
                Lane.PULL: config.workers.pull,
            },
            clock,
            follow=requests_for,
            progress=lambda job, progress: server.report(_reported(job, progress)),
            finished=board.job_ended,
        )
        ledgers.database.on_commit(executor.wake)
        services = Services(
            life=ledgers.life,
            started_s=started_s,
            monotonic_s=clock.monotonic_s,
            jobs=ledgers.jobs,
            running=executor,
            events=ledgers.events,
            catalog=ledgers.catalog,
            projects=board,
            store=store,
            cache=cache,
            remote=registries.repository,
            stopping=stop.is_set,
            effective_config=lambda: show_config(config),
        )
        server = Server(
            METHODS,
            services,
            LedgerEvents(ledgers.events),
            access=access,
            daemon_uid=os.geteuid(),
        )
        endpoint = await run_blocking(_endpoint, config, inherited)
        stack.callback(endpoint.close)
        address = None
        if config.registry.listen is not None:
            gateway = Gateway(store, ledgers.catalog, writable=config.registry.writable)
            listen = config.registry.listen
            address = await stack.enter_async_context(gateway.listen(listen.host, listen.port))
        async with asyncio.TaskGroup() as group:
            workers = [
                group.create_task(executor.run(), name="executor"),
                group.create_task(board.run(config.projects), name="projects"),
                group.create_task(root_monitor.run(), name="root_monitor"),
                group.create_task(
                    keep_layout(store, ledgers.catalog, ledgers.events), name="layout"
                ),
            ]
            await board.started()
            serving = group.create_task(server.serve(endpoint), name="rpc")
            started(stop.set)
            log.info(
                "daemon.ready",
                version=__version__,
                socket=os.fsdecode(endpoint.listener.getsockname()),
                registry=None if address is None else f"{address[0]}:{address[1]}",
                projects=len(config.projects),
            )
            await stop.wait()
            log.info("daemon.stopping")
            for worker in workers:
                worker.cancel()
            await asyncio.wait(workers)
            server.stop(RPC_GRACE_S)
            await serving
    log.info("daemon.stopped")


def _idle_sections(config: Config) -> tuple[str, ...]:
    """Return what is configured and not there yet; nobody should have to find out."""
    configured = {
        "mirrors": bool(config.mirrors),
        "webhooks": config.webhooks.listen is not None,
        "metrics": config.metrics.listen is not None,
        "modelkit.compression: zstd": config.modelkit.compression is model.Compression.ZSTD,
        "cache.stream_over": config.cache.stream_over_bytes is not None,
    }
    return tuple(section for section, present in configured.items() if present)


def _reported(job: Job, progress: Progress) -> subscription.Progress:
    return subscription.Progress(
        job.id, job.project, progress.phase, progress.done_bytes, progress.total_bytes
    )


def _endpoint(config: Config, inherited: socket.socket | None) -> Endpoint:
    if inherited is not None:
        return adopt_endpoint(inherited)
    return bind_endpoint(config.rpc.socket, mode=config.rpc.mode)
