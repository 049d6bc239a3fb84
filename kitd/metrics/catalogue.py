"""All metrics, with what they mean: docs/metrics.md is made of this. Pure.

Labels have few values: words of kitd's own, and names of the configuration, of which there are at
most `kitd.metrics.names.MAX_NAMES` and `other`. Never digests, references, jobs or users.
"""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How a metric behaves, in Prometheus' words."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Source(StrEnum):
    """Where the numbers come from, which says what a restart does to them."""

    LEDGER = "ledger"
    """They go on after a restart."""
    PROCESS = "process"
    """They begin at zero with each start."""
    LOOK = "look"
    """As of the last look, a few minutes old at most: see `kitd_look_timestamp_seconds`."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One family. The name of a counter ends in `_total`."""

    name: str
    kind: Kind
    source: Source
    help: str
    labels: tuple[str, ...] = ()


_COUNTER, _GAUGE, _HISTOGRAM = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
_LEDGER, _PROCESS, _LOOK = Source.LEDGER, Source.PROCESS, Source.LOOK

BUILD_INFO = Metric(
    "kitd_build_info", _GAUGE, _PROCESS, "Always 1.", ("version", "python", "sqlite")
)
READY = Metric(
    "kitd_ready", _GAUGE, _PROCESS, "1 if /readyz answers with 200: kitd takes work, and keeps it."
)
DEGRADED = Metric(
    "kitd_degraded",
    _GAUGE,
    _LOOK,
    "Things that hinder kitd now, by code: what `kitctl status` tells. Nothing where all is well.",
    ("reason",),
)
STARTS = Metric("kitd_starts_total", _COUNTER, _LEDGER, "Starts of kitd on this ledger.")
LOOK_TIME = Metric(
    "kitd_look_timestamp_seconds",
    _GAUGE,
    _PROCESS,
    "When something was last looked at that scrapes do not wait for; 0 for never.",
    ("look",),
)
LOOP_LAG = Metric(
    "kitd_loop_lag_seconds",
    _HISTOGRAM,
    _PROCESS,
    "How much later than asked for the event loop came back, asked every two seconds.",
)
SCRAPE_FAILURES = Metric(
    "kitd_scrape_failures_total",
    _COUNTER,
    _PROCESS,
    "Scrapes that lack what comes from the ledger, because it did not answer.",
)

CPU = Metric(
    "process_cpu_seconds_total", _COUNTER, _PROCESS, "Processor time of kitd, without its workers."
)
RSS = Metric("process_resident_memory_bytes", _GAUGE, _PROCESS, "Memory, without the workers'.")
OPEN_FDS = Metric("process_open_fds", _GAUGE, _PROCESS, "Open file descriptors.")
MAX_FDS = Metric("process_max_fds", _GAUGE, _PROCESS, "How many there may be.")
START_TIME = Metric("process_start_time_seconds", _GAUGE, _PROCESS, "When the process started.")

JOBS = Metric(
    "kitd_jobs_total", _COUNTER, _LEDGER, "Jobs that have ended, by how.", ("kind", "state")
)
JOBS_ASKED = Metric(
    "kitd_jobs_asked_total", _COUNTER, _LEDGER, "Jobs that were asked for.", ("kind",)
)
ATTEMPTS = Metric(
    "kitd_job_attempts_total", _COUNTER, _LEDGER, "Attempts of jobs that were begun.", ("kind",)
)
RETRIES = Metric(
    "kitd_job_retries_total",
    _COUNTER,
    _LEDGER,
    "Attempts that failed and will be followed by another.",
    ("kind",),
)
DURATION = Metric(
    "kitd_job_duration_seconds",
    _HISTOGRAM,
    _PROCESS,
    "How long attempts took. `outcome` is `succeeded`, or `failed`, whether tried again or not.",
    ("kind", "outcome"),
)
QUEUE_JOBS = Metric(
    "kitd_queue_jobs",
    _GAUGE,
    _LEDGER,
    "Jobs that wait or run: `ready`, `scheduled` for a later time, `running`.",
    ("state", "lane"),
)
QUEUE_OLDEST = Metric(
    "kitd_queue_oldest_ready_seconds",
    _GAUGE,
    _LEDGER,
    "For how long the oldest job of a lane could have run that no other one keeps, by its lock; 0"
    " where none waits.",
    ("lane",),
)
QUEUE_SLOTS = Metric(
    "kitd_queue_slots", _GAUGE, _PROCESS, "Jobs of a lane that may run at once.", ("lane",)
)
QUEUE_PAUSED = Metric(
    "kitd_queue_paused", _GAUGE, _PROCESS, "1 while no job begins because a disk is full."
)
TRANSFER_BYTES = Metric(
    "kitd_transfer_bytes_total",
    _COUNTER,
    _PROCESS,
    "Bytes of jobs that ended well, counted at their ends: `sent` and `received`, and what"
    " needed neither, `mounted` from another repository, or `skipped` because it was there.",
    ("kind", "how"),
)
PACK_LAYERS = Metric(
    "kitd_pack_layers_total",
    _COUNTER,
    _PROCESS,
    "Layers of kits that were packed: `built`, or `reused` because an equal one was there.",
    ("how",),
)

PROJECTS = Metric("kitd_projects", _GAUGE, _LOOK, "Watched projects, by state.", ("state",))
PROJECT_BLOCKED = Metric(
    "kitd_project_blocked",
    _GAUGE,
    _LOOK,
    "1 for a project that cannot be packed or pushed; `other` counts those that were added by"
    " command.",
    ("project",),
)
PROJECT_PACKED = Metric(
    "kitd_project_last_packed_timestamp_seconds",
    _GAUGE,
    _LOOK,
    "When a project of the configuration was last packed.",
    ("project",),
)

CACHE_BYTES = Metric(
    "kitd_cache_bytes",
    _GAUGE,
    _LOOK,
    "What the cache takes: its `blobs`, and `other` that is on its way in or in quarantine.",
    ("part",),
)
CACHE_BLOBS = Metric("kitd_cache_blobs", _GAUGE, _LOOK, "Blobs in the cache.")
CACHE_EVICTABLE = Metric(
    "kitd_cache_evictable_bytes", _GAUGE, _LOOK, "What nothing speaks for but that there is room."
)
CACHE_SHORTFALL = Metric(
    "kitd_cache_over_limit",
    _GAUGE,
    _PROCESS,
    "1 if the last collection could not bring the cache within its limits.",
)
DISK_FREE = Metric(
    "kitd_disk_free_bytes", _GAUGE, _LOOK, "Free for kitd, on the disk of a directory.", ("place",)
)
DISK_SIZE = Metric(
    "kitd_disk_size_bytes", _GAUGE, _LOOK, "The size of the disk of a directory.", ("place",)
)
DISK_RESERVE = Metric(
    "kitd_disk_reserve_bytes",
    _GAUGE,
    _LOOK,
    "What is kept back for the ledger; 0 once it was given up to a full disk.",
)

COMMITS = Metric(
    "kitd_ledger_commit_seconds",
    _HISTOGRAM,
    _PROCESS,
    "How long a batch of transactions took until it was durable.",
)
COMMIT_FAILURES = Metric(
    "kitd_ledger_commit_failures_total",
    _COUNTER,
    _PROCESS,
    "Batches that the disk did not take, and that are tried again.",
)
LEDGER_BYTES = Metric("kitd_ledger_bytes", _GAUGE, _LOOK, "The size of the ledger's file.")
WAL_BYTES = Metric("kitd_ledger_wal_bytes", _GAUGE, _LOOK, "The size of its write-ahead log.")
EVENTS = Metric(
    "kitd_events_total", _COUNTER, _LEDGER, "Events: the number of the newest one is this one."
)

REGISTRY_REQUESTS = Metric(
    "kitd_registry_requests_total",
    _COUNTER,
    _PROCESS,
    "Requests to registries, and to where these redirect, by the class of the answer: `2xx` to"
    " `5xx`, or `none`. A 401 that asks for a login is one of `4xx`.",
    ("registry", "answer"),
)
REGISTRY_RETRIES = Metric(
    "kitd_registry_retries_total",
    _COUNTER,
    _PROCESS,
    "Requests that were sent once more within an attempt.",
    ("registry",),
)
REGISTRY_SENT = Metric(
    "kitd_registry_sent_bytes_total",
    _COUNTER,
    _PROCESS,
    "Bytes of bodies that were sent, as they leave.",
    ("registry",),
)
REGISTRY_RECEIVED = Metric(
    "kitd_registry_received_bytes_total",
    _COUNTER,
    _PROCESS,
    "Bytes of blobs that came, as they come.",
    ("registry",),
)
REGISTRY_CLOSED = Metric(
    "kitd_registry_closed",
    _GAUGE,
    _PROCESS,
    "Registries that were left alone because they are `failing`, again and again, or because that"
    " was `forbidden`, they said so: until a good answer, or an hour without a request. Hosts that"
    " a registry redirects to are among `other`.",
    ("registry", "why"),
)

MIRROR_EDGES = Metric(
    "kitd_mirror_edges_total",
    _COUNTER,
    _LEDGER,
    "What became of tags that are mirrored: `copied`, `failed`, `conflict`, `removed`; `other` is"
    " for what was asked for without a mirror.",
    ("mirror", "outcome"),
)
MIRROR_TAGS = Metric(
    "kitd_mirror_tags",
    _GAUGE,
    _LOOK,
    "Tags of a mirror that are known, `all` of them, and those that are `failed`, in `conflict`,"
    " or `gone` from the source.",
    ("mirror", "state"),
)
MIRROR_EQUAL = Metric(
    "kitd_mirror_last_equal_timestamp_seconds",
    _GAUGE,
    _LOOK,
    "When both ends of some tag of a mirror were last seen to be equal.",
    ("mirror",),
)

DELIVERIES = Metric(
    "kitd_webhook_deliveries_total",
    _COUNTER,
    _PROCESS,
    "Deliveries, by what they came to: `accepted`, `ignored`, `malformed`, `duplicate`,"
    " `handshake`, `refused` for a wrong secret, `unread` bodies, `busy` where kitd could not keep"
    " them, `unknown` sources, which are counted as `other`.",
    ("source", "verdict"),
)
NOTIFICATION_LAG = Metric(
    "kitd_notification_lag_events",
    _GAUGE,
    _LEDGER,
    "Events that an endpoint was not told of yet, wanted or not.",
    ("endpoint",),
)
NOTIFICATION_FAILURES = Metric(
    "kitd_notification_failures",
    _GAUGE,
    _LEDGER,
    "Failures of an endpoint in a row; 0 where it takes what it is told.",
    ("endpoint",),
)
NOTIFICATION_DROPPED = Metric(
    "kitd_notification_dropped_total",
    _COUNTER,
    _LEDGER,
    "Events that an endpoint will never be told of.",
    ("endpoint",),
)

HTTP_REQUESTS = Metric(
    "kitd_http_requests_total",
    _COUNTER,
    _PROCESS,
    "Requests that kitd answered as a `registry`, for `webhooks`, and for `metrics`, by the class"
    " of the answer.",
    ("listener", "answer"),
)
RPC_CONNECTIONS = Metric("kitd_rpc_connections", _GAUGE, _PROCESS, "Clients on the socket.")
RPC_CALLS = Metric(
    "kitd_rpc_calls_total",
    _COUNTER,
    _PROCESS,
    "Calls on the socket that have ended, `ok` or in an `error`.",
    ("method", "outcome"),
)

CATALOGUE: tuple[Metric, ...] = tuple(
    value for value in tuple(globals().values()) if isinstance(value, Metric)
)
