"""Takes the readings of one daemon for a scrape. Nothing here waits for a disk.

What counts itself is read where it counts; the ledger gets two seconds; the rest was looked at
before (`sight`).
"""

import asyncio
import platform
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from kitd.clock import Clock
from kitd.config.model import Config
from kitd.errors import KitdError
from kitd.histogram import Histogram
from kitd.ledger.database import Database
from kitd.ledger.failure import LedgerError
from kitd.ledger.meter_ledger import LedgerReading, MeterLedger
from kitd.ledger.schema import SQLITE_VERSION
from kitd.metrics import catalogue
from kitd.metrics.exposition import Family
from kitd.metrics.health import Readiness
from kitd.metrics.lag import BOUNDS_S
from kitd.metrics.names import Names, named, names_in
from kitd.metrics.process import read_process
from kitd.metrics.sight import Sights
from kitd.metrics.snapshot import (
    cache_families,
    disk_families,
    file_families,
    health_families,
    labelled,
    ledger_families,
    mirror_families,
    one,
    registry_families,
    summed,
    webhook_families,
)
from kitd.metrics.work import WorkMeter
from kitd.queue.job import Lane
from kitd.registry.governor import Closure
from kitd.registry.traffic import Traffic

log = structlog.get_logger(__name__)

LEDGER_S = 2.0
"""What the ledger gets; Prometheus waits for ten seconds."""


@dataclass(frozen=True, slots=True)
class HttpAnswers:
    """What kitd's listeners have answered, by class of status."""

    registry: Counter[str] = field(default_factory=Counter)
    webhooks: Counter[str] = field(default_factory=Counter)
    metrics: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruments:
    """A running daemon: what counts itself, and functions that tell how things are now."""

    version: str
    epoch: int
    started_us: int
    clock: Clock
    config: Callable[[], Config]
    kinds: Sequence[str]
    database: Database
    meters: MeterLedger
    readiness: Readiness
    sights: Sights
    work: WorkMeter
    traffic: Traffic
    troubled: Callable[[], Mapping[str, Collection[Closure]]]
    """Registries that were closed, and have not proven well since."""
    verdicts: Mapping[tuple[str, str], int]
    """Of deliveries, by source, which is empty where there is none."""
    answers: HttpAnswers
    slots: Callable[[], Mapping[Lane, int]]
    is_paused: Callable[[], bool]
    is_over_limit: Callable[[], bool]
    connections: Callable[[], int]
    calls: Callable[[], Mapping[tuple[str, bool], int]]


class Gatherer:
    """Gathers the metrics of one daemon."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments
        self.lag_s = Histogram(BOUNDS_S)
        self._failures = 0
        self._unread: str | None = None
        """The code of what keeps the ledger from being read, and is in the log."""
        self._named: tuple[Config, Names] | None = None

    async def gather(self) -> Sequence[Family]:
        """Return all that can be told now."""
        is_ready = (await self._instruments.readiness.judge()).is_ready
        reading = await self._read_ledger()
        names = self._names()
        families = [
            one(catalogue.READY, float(is_ready)),
            *self._process(),
            *self._queue(),
            *self._traffic(names),
            *self._seen(names),
        ]
        if reading is not None:
            kinds, now_us = self._instruments.kinds, self._instruments.clock.now_us()
            families += ledger_families(reading, kinds, names, now_us)
        return families

    async def _read_ledger(self) -> LedgerReading | None:
        try:
            async with asyncio.timeout(LEDGER_S):
                reading = await self._instruments.meters.read()
        except KitdError as error:
            self._note_unread(error.code, error.message)
        except TimeoutError:
            self._note_unread(LedgerError.code, f"the ledger did not answer within {LEDGER_S:g} s")
        else:
            if self._unread is not None:
                self._unread = None
                log.warning("metrics.ledger_read_again")
            return reading
        return None

    def _note_unread(self, code: str, reason: str) -> None:
        self._failures += 1
        if code != self._unread:
            self._unread = code
            log.error("metrics.ledger_not_read", code=code, error=reason)

    def _names(self) -> Names:
        config = self._instruments.config()
        if self._named is None or self._named[0] is not config:
            self._named = (config, names_in(config))
        return self._named[1]

    def _process(self) -> Iterator[Family]:
        it, process = self._instruments, read_process()
        build = (it.version, platform.python_version(), SQLITE_VERSION)
        yield Family(catalogue.BUILD_INFO, {build: 1})
        yield one(catalogue.STARTS, it.epoch)
        yield one(catalogue.START_TIME, it.started_us / 1_000_000)
        yield one(catalogue.CPU, process.cpu_s)
        if process.resident_bytes is not None:
            yield one(catalogue.RSS, process.resident_bytes)
        if process.open_fds is not None:
            yield one(catalogue.OPEN_FDS, process.open_fds)
        yield one(catalogue.MAX_FDS, process.max_fds)
        yield one(catalogue.LOOP_LAG, self.lag_s.read())
        yield one(catalogue.SCRAPE_FAILURES, self._failures)
        yield one(catalogue.COMMITS, it.database.commits_s.read())
        yield one(catalogue.COMMIT_FAILURES, it.database.failed_commits)

    def _queue(self) -> Iterator[Family]:
        it = self._instruments
        slots = {(lane.value,): count for lane, count in it.slots().items()}
        yield labelled(catalogue.QUEUE_SLOTS, slots.items())
        yield one(catalogue.QUEUE_PAUSED, float(it.is_paused()))
        yield one(catalogue.CACHE_SHORTFALL, float(it.is_over_limit()))
        durations = {
            (named(kind, it.kinds), outcome): each.read()
            for (kind, outcome), each in it.work.durations_s.items()
        }
        yield labelled(catalogue.DURATION, durations.items())
        yield labelled(catalogue.TRANSFER_BYTES, it.work.moved_bytes.items())
        layers = {(how,): it.work.layers[how] for how in ("built", "reused")}
        yield labelled(catalogue.PACK_LAYERS, layers.items())

    def _traffic(self, names: Names) -> Iterator[Family]:
        it = self._instruments
        counts = {
            catalogue.REGISTRY_RETRIES: it.traffic.retries,
            catalogue.REGISTRY_SENT: it.traffic.sent_bytes,
            catalogue.REGISTRY_RECEIVED: it.traffic.received_bytes,
        }
        yield from registry_families(it.traffic.answers, counts, it.troubled(), names)
        yield from webhook_families(it.verdicts, names)
        listeners = {
            "registry": it.answers.registry,
            "webhooks": it.answers.webhooks,
            "metrics": it.answers.metrics,
        }
        yield summed(
            catalogue.HTTP_REQUESTS,
            (
                ((listener, answer), count)
                for listener, answers in listeners.items()
                for answer, count in answers.items()
            ),
        )
        yield one(catalogue.RPC_CONNECTIONS, it.connections())
        yield summed(
            catalogue.RPC_CALLS,
            (
                ((method, "ok" if is_well else "error"), count)
                for (method, is_well), count in it.calls().items()
            ),
        )

    def _seen(self, names: Names) -> Iterator[Family]:
        sights = self._instruments.sights
        at_s = {(look.name,): look.at_us / 1_000_000 for look in sights.all}
        yield labelled(catalogue.LOOK_TIME, at_s.items())
        if sights.health.seen is not None:
            yield from health_families(sights.health.seen, names)
        disks = {place: look.seen for place, look in sights.disks.items() if look.seen is not None}
        yield from disk_families(disks)
        if sights.files.seen is not None:
            yield from file_families(sights.files.seen)
        if sights.cache.seen is not None:
            yield from cache_families(sights.cache.seen)
        if sights.mirrors.seen is not None:
            yield from mirror_families(sights.mirrors.seen, names)
