"""The daemon's life: starting, running, stopping.

Starting goes from the inside out (state directory, ledger, recovery, workers, watchers, and at last
the socket), stopping the other way round, so that nobody is ever answered by half a daemon. Each
phase of the stop has a deadline of its own, and together they take less than `STOP_S`.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass

import structlog

from kitd import __version__
from kitd.blocking import MAX_THREADS, run_blocking
from kitd.clock import SystemClock
from kitd.config.load import Loaded
from kitd.config.model import Config
from kitd.daemon.compose import (
    Ground,
    endpoint_of,
    native_hints,
    open_ledgers,
    open_metrics,
    open_registry,
    open_resources,
    parts_of,
    wire,
)
from kitd.daemon.crew import Crew
from kitd.daemon.disk_guard import DiskGuard
from kitd.daemon.in_force import InForce
from kitd.daemon.layout_keeper import write_layout
from kitd.daemon.log import Logs
from kitd.daemon.notify import ServiceManager
from kitd.daemon.state_dir import locked_cache_dir, locked_state_dir
from kitd.secret import Secrets
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent
from kitd.store.lease import LeaseBook
from kitd.watch.hints import Hints
from kitd.watch.project_watcher import Intervals

log = structlog.get_logger(__name__)

PARTS_S = 12.0
"""What running attempts, scans and watchers get to end. An attempt is given up after ten."""
LAYOUT_S = 1.0
"""What the last `index.json` may take."""
GRACE_S = 2.0
"""What calls in flight get to be answered."""
HANG_UP_S = 1.5
"""What it takes to be rid of clients, once the grace is over."""
REGISTRY_S = 6.5
"""What kitd's own registry gets, which gives requests under way five."""
METRICS_S = 0.4
"""What scrapes and probes get: they are answered nearly to the end."""
RESOURCES_S = 2.5
"""What connections, watches and processes get to be closed."""
LEDGER_S = 4.0
"""What the ledger gets for its last transaction and a checkpoint."""
DEFAULT_INTERVALS = Intervals()
ALONE = ServiceManager()


@dataclass(frozen=True, slots=True)
class Controls:
    """What steers a running daemon, for calls on its event loop. None of them waits."""

    stop: Callable[[], None]
    reload: Callable[[], None]


async def serve(
    config: Config,
    environ: Mapping[str, str],
    *,
    started: Callable[[Controls], None],
    service: ServiceManager = ALONE,
    logs: Logs | None = None,
    load: Callable[[], Loaded] | None = None,
    hints: Callable[[], AbstractAsyncContextManager[Hints]] = native_hints,
    intervals: Intervals = DEFAULT_INTERVALS,
) -> None:
    """Run the daemon until it is stopped. Once it answers, `started` is given what steers it.

    `logs` are told of secrets to keep back, and configured by a reload, for which `load` reads the
    configuration.
    `hints` and `intervals` are how projects are watched; results do not depend on either.
    Raises `KitdError` where it cannot start, and what a part of it died of.
    """
    # A thread that hangs in a file system that is gone must not be missed by all others.
    threads = ThreadPoolExecutor(MAX_THREADS, "kitd-blocking")
    asyncio.get_running_loop().set_default_executor(threads)
    clock = SystemClock()
    started_s = clock.monotonic_s()
    crew = Crew()
    async with AsyncExitStack() as stack:
        stack.enter_context(locked_state_dir(config.state_dir))
        stack.enter_context(locked_cache_dir(config.cache_dir))
        disk_guard = DiskGuard(config.state_dir, [config.cache_dir])
        await disk_guard.prepare()
        store = await _swept_store(config)
        leases = LeaseBook()
        ground = Ground(
            in_force=InForce(config),
            environ=environ,
            clock=clock,
            started_s=started_s,
            stop=asyncio.Event(),
            store=store,
            leases=leases,
            cache=CacheContent(store, leases),
            disk_guard=disk_guard,
            fatal=asyncio.get_running_loop().create_future(),
            service=service,
            logs=logs,
            secrets=Secrets() if logs is None else logs.secrets,
            load=load,
        )
        ledgers = await stack.enter_async_context(
            crew.host("ledger", open_ledgers(ground), close_s=LEDGER_S)
        )
        resources = await stack.enter_async_context(
            crew.host("resources", open_resources(ground, ledgers, hints), close_s=RESOURCES_S)
        )
        daemon = await wire(ground, ledgers, resources, intervals)
        metrics = await stack.enter_async_context(
            crew.host("metrics", open_metrics(daemon), close_s=METRICS_S)
        )
        endpoint = await run_blocking(endpoint_of, config.rpc, service.listener)
        stack.callback(endpoint.close)
        registry = await stack.enter_async_context(
            crew.host(
                "registry",
                open_registry(ground, ledgers, daemon.work.onward),
                close_s=REGISTRY_S,
            )
        )
        parts = parts_of(daemon)
        try:
            for name, run in parts.items():
                crew.start(name, run())
            await crew.until(daemon.work.board.started())
            await crew.until(daemon.webhooks.opened())
            crew.start("rpc", daemon.server.serve(endpoint))
            started(Controls(ground.stop.set, daemon.reloader.ask))
            daemon.watch.readiness.started = True
            service.notify("READY=1")
            log.info(
                "daemon.ready",
                version=__version__,
                socket=os.fsdecode(endpoint.listener.getsockname()),
                registry=registry,
                webhooks=await daemon.webhooks.opened(),
                metrics=None if metrics is None else str(metrics),
                projects=len(config.projects),
            )
            await crew.until(ground.stop.wait())
        finally:
            service.notify("STOPPING=1")
            log.info("daemon.stopping")
            await crew.stop(parts, within_s=PARTS_S)
            # What the last jobs changed, nobody was left to write.
            crew.start("last layout", write_layout(ground.store, ledgers.catalog))
            await crew.ended(["last layout"], within_s=LAYOUT_S)
            daemon.server.stop(GRACE_S)
            await crew.ended(["rpc"], within_s=GRACE_S + HANG_UP_S)
    log.info("daemon.stopped")


async def _swept_store(config: Config) -> BlobStore:
    """Return the blob cache, rid of what a daemon that is gone left behind."""
    store = BlobStore(config.cache_dir)
    await run_blocking(store.create)
    if freed := await run_blocking(store.sweep):
        log.info("cache.swept", freed_bytes=freed)
    return store
