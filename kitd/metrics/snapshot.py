"""From readings to metrics: what is a label, what is summed up, what is left out. Pure."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from kitd.histogram import Distribution
from kitd.ledger.meter_ledger import LedgerReading
from kitd.ledger.mirror_ledger import RuleCounts
from kitd.ledger.tally import Tallied
from kitd.metrics import catalogue
from kitd.metrics.catalogue import Metric
from kitd.metrics.exposition import Family
from kitd.metrics.names import OTHER, Names, named
from kitd.metrics.sight import Cache, Disk, Files, Health
from kitd.queue.job import TERMINAL, JobState, Lane
from kitd.registry.governor import Closure
from kitd.rpc.methods.wire import WireProject

_QUEUED = (JobState.READY, JobState.SCHEDULED, JobState.RUNNING)
_PROJECT_STATES = (
    "idle",
    "dirty",
    "settling",
    "packing",
    "pushing",
    "blocked",
    "held",
    "degraded",
)
_OUTCOMES = ("copied", "failed", "conflict", "removed")
_VERDICTS = ("accepted", "malformed", "refused", "busy", "unread")
"""Those that are watched, which are there from the start."""
_NAMELESS = ""
"""Counts what belongs to nothing that has a name."""
_WORDS: Mapping[Metric, str] = {
    catalogue.JOBS_ASKED: "created",
    catalogue.ATTEMPTS: "started",
    catalogue.RETRIES: "retrying",
}
"""Counters of jobs, and the outcome that each tallies."""


def one(metric: Metric, value: float | Distribution) -> Family:
    """Return a metric without labels."""
    return Family(metric, {(): value})


def labelled(
    metric: Metric, values: Iterable[tuple[tuple[str, ...], float | Distribution]]
) -> Family:
    """Return a metric whose labels are each there once."""
    return Family(metric, dict(values))


def summed(metric: Metric, values: Iterable[tuple[tuple[str, ...], float]]) -> Family:
    """Return a metric whose values are summed up where their labels are equal."""
    sums: Counter[tuple[str, ...]] = Counter()
    for labels, value in values:
        sums[labels] += value  # type: ignore[assignment]  # it counts what can be added
    return Family(metric, dict(sums))


def ledger_families(
    reading: LedgerReading, kinds: Sequence[str], names: Names, now_us: int
) -> Iterator[Family]:
    """Return what comes from the ledger."""
    jobs = reading.tallies[Tallied.JOB]
    yield one(catalogue.EVENTS, reading.head_seq)
    # All that there can be from the start: a rate needs a value before the first.
    yield summed(
        catalogue.JOBS,
        [
            *(((kind, state), 0) for kind in kinds for state in sorted(TERMINAL)),
            *(
                ((named(kind, kinds), word), count)
                for (kind, word), count in jobs.items()
                if word in TERMINAL
            ),
        ],
    )
    for metric, wanted in _WORDS.items():
        counts = (
            ((named(kind, kinds),), count) for (kind, word), count in jobs.items() if word == wanted
        )
        yield summed(metric, [*(((kind,), 0) for kind in kinds), *counts])
    yield summed(
        catalogue.QUEUE_JOBS,
        [
            ((state, lane), reading.queue.get((state, lane), 0))
            for state in _QUEUED
            for lane in Lane
        ],
    )
    yield summed(
        catalogue.QUEUE_OLDEST,
        [
            ((lane,), max(0, now_us - reading.oldest_us.get(lane, now_us)) / 1_000_000)
            for lane in Lane
        ],
    )
    yield summed(
        catalogue.MIRROR_EDGES,
        [
            *(((mirror, outcome), 0) for mirror in names.mirrors for outcome in _OUTCOMES),
            *_kept(reading.tallies[Tallied.MIRROR_EDGE], names.mirrors),
        ],
    )
    told = {name: each for name, each in reading.cursors.items() if name in names.endpoints}
    lag = {(name,): max(0, reading.head_seq - each.seq) for name, each in told.items()}
    yield labelled(catalogue.NOTIFICATION_LAG, lag.items())
    failures = {(name,): each.failures for name, each in told.items()}
    yield labelled(catalogue.NOTIFICATION_FAILURES, failures.items())
    yield summed(
        catalogue.NOTIFICATION_DROPPED,
        [
            *(((name,), 0) for name in names.endpoints),
            *(
                ((name,), count)
                for (name, _), count in _kept(
                    reading.tallies[Tallied.NOTIFICATION], names.endpoints
                )
            ),
        ],
    )


def _kept(
    counts: Mapping[tuple[str, str], int], names: Collection[str]
) -> Iterator[tuple[tuple[str, str], int]]:
    """Yield the counts of these names, and as `other` those that have none.

    What was counted of names that a reload took out does not move to `other`: there it would look
    as if all of it had just happened.
    """
    for (name, word), count in counts.items():
        if name in names:
            yield (name, word), count
        elif name == _NAMELESS:
            yield (OTHER, word), count


def health_families(health: Health, names: Names) -> Iterator[Family]:
    """Return how the projects are, and what hinders kitd."""
    yield summed(catalogue.DEGRADED, (((reason.code,), 1) for reason in health.reasons))
    yield summed(
        catalogue.PROJECTS,
        [
            *(((state,), 0) for state in _PROJECT_STATES),
            *(((project.state,), 1) for project in health.projects),
        ],
    )
    yield summed(
        catalogue.PROJECT_BLOCKED,
        (
            ((_project(project, names),), float(project.state == "blocked"))
            for project in health.projects
        ),
    )
    packed = {
        (project.name,): datetime.fromisoformat(project.last_packed).timestamp()
        for project in health.projects
        if project.last_packed is not None and _project(project, names) != OTHER
    }
    yield labelled(catalogue.PROJECT_PACKED, packed.items())


def _project(project: WireProject, names: Names) -> str:
    return named(project.name, names.projects) if project.source == "config" else OTHER


def disk_families(disks: Mapping[str, Disk]) -> Iterator[Family]:
    """Return how full the disks are."""
    free = {(place,): disk.free_bytes for place, disk in disks.items()}
    yield labelled(catalogue.DISK_FREE, free.items())
    size = {(place,): disk.size_bytes for place, disk in disks.items()}
    yield labelled(catalogue.DISK_SIZE, size.items())


def file_families(files: Files) -> Iterator[Family]:
    """Return what the ledger's files take."""
    yield one(catalogue.DISK_RESERVE, files.reserve_bytes)
    yield one(catalogue.LEDGER_BYTES, files.ledger_bytes)
    yield one(catalogue.WAL_BYTES, files.wal_bytes)


def cache_families(cache: Cache) -> Iterator[Family]:
    """Return what the cache holds."""
    usage = cache.usage
    yield Family(
        catalogue.CACHE_BYTES, {("blobs",): usage.size_bytes, ("other",): usage.other_bytes}
    )
    yield one(catalogue.CACHE_BLOBS, usage.blobs)
    yield one(catalogue.CACHE_EVICTABLE, cache.evictable_bytes)


def mirror_families(counts: Mapping[str, RuleCounts], names: Names) -> Iterator[Family]:
    """Return how the tags of mirrors stand."""
    known = {name: each for name, each in counts.items() if name in names.mirrors}
    yield summed(
        catalogue.MIRROR_TAGS,
        (
            ((name, state), count)
            for name, each in known.items()
            for state, count in (
                ("all", each.edges),
                ("failed", each.failed),
                ("conflict", each.conflicts),
                ("gone", each.gone),
            )
        ),
    )
    equal = {(name,): each.equal_us / 1_000_000 for name, each in known.items() if each.equal_us}
    yield labelled(catalogue.MIRROR_EQUAL, equal.items())


def registry_families(
    answers: Mapping[tuple[str, str], int],
    counts: Mapping[Metric, Mapping[str, int]],
    troubled: Mapping[str, Collection[Closure]],
    names: Names,
) -> Iterator[Family]:
    """Return what was asked of registries, and which of them are in trouble."""
    yield summed(
        catalogue.REGISTRY_REQUESTS,
        (
            ((named(host, names.registries), answer), count)
            for (host, answer), count in answers.items()
        ),
    )
    for metric, by_host in counts.items():
        yield summed(
            metric, (((named(host, names.registries),), count) for host, count in by_host.items())
        )
    yield summed(
        catalogue.REGISTRY_CLOSED,
        [
            *(
                ((host, closure.name.lower()), 0)
                for host in (*names.registries, OTHER)
                for closure in Closure
            ),
            *(
                ((named(host, names.registries), closure.name.lower()), 1)
                for host, closures in troubled.items()
                for closure in closures
            ),
        ],
    )


def webhook_families(verdicts: Mapping[tuple[str, str], int], names: Names) -> Iterator[Family]:
    """Return what deliveries came to."""
    yield summed(
        catalogue.DELIVERIES,
        [
            *(((source, verdict), 0) for source in names.sources for verdict in _VERDICTS),
            *_kept(verdicts, names.sources),
        ],
    )
