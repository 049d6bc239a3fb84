"""What the methods work with. Wired in `kitd.daemon.compose`, once for the life of the daemon."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from kitd.caller import Caller
from kitd.content.reach import Reach
from kitd.content.store import Fetcher
from kitd.jobs.port import MirrorRemote, Remote
from kitd.ledger.cache_ledger import CacheLedger
from kitd.ledger.catalog import Catalog
from kitd.ledger.delivery_ledger import DeliveryFilter, StoredDelivery
from kitd.ledger.event_ledger import EventLedger
from kitd.ledger.job_ledger import JobLedger
from kitd.ledger.life import Life
from kitd.ledger.mirror_ledger import MirrorLedger
from kitd.ledger.shelf import Shelf
from kitd.mirror.rule import Rule
from kitd.modelkit.dialect import Dialect
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.reference import Repository
from kitd.queue.fact import Fact
from kitd.queue.job import Job, JobRequest, Progress
from kitd.rpc.methods.wire import Reloaded, WireCheck, WireLogins, WireProject, WireReason
from kitd.store.blob_store import BlobStore
from kitd.store.collection import Forecast
from kitd.store.content import CacheContent
from kitd.webhooks.refusal import Refusals
from kitd.webhooks.source import Source


class Projects(Protocol):
    """The watched projects: see `kitd.daemon.project_board.ProjectBoard`."""

    def job_ended(self, job: Job) -> None:
        """Take note that a project's job ended."""
        ...

    async def list(self) -> Sequence[WireProject]:
        """Return every project."""
        ...

    async def get(self, name: str) -> WireProject:
        """Return one project."""
        ...

    async def add(
        self,
        name: str,
        *,
        path: str,
        kitfile: str | None,
        repository: Repository,
        tags: tuple[str, ...],
        push: bool,
        reader: Caller | None,
    ) -> WireProject:
        """Watch a project from now on; with a `reader` on his behalf, and as his."""
        ...

    async def owner_of(self, name: str) -> int | None:
        """Return whose project it is, None where that cannot be told."""
        ...

    async def is_as_it_was(self, name: str, at_us: int) -> bool:
        """Return whether a project was defined at that time as it is now."""
        ...

    async def remove(self, name: str) -> None:
        """Stop watching a project."""
        ...

    def rescan(self, name: str) -> None:
        """Look at a project now."""
        ...

    async def hold(self, name: str) -> WireProject:
        """Keep kitd's hands off a project."""
        ...

    async def release(self, name: str) -> WireProject:
        """End a hold."""
        ...


@dataclass(frozen=True, slots=True)
class StartTimes:
    """When a schedule has started a mirror, and when it will (microseconds)."""

    last_us: int | None = None
    next_us: int | None = None


class Mirrors(Protocol):
    """The mirrors of the configuration: see `kitd.daemon.mirror_keeper.MirrorKeeper`."""

    @property
    def rules(self) -> Sequence[Rule]:
        """All there are, in the order of the configuration."""
        ...

    def follow(self, fact: Fact) -> Sequence[JobRequest]:
        """Return the jobs that a fact asks for."""
        ...

    async def start_times(self) -> Mapping[str, StartTimes]:
        """Return when each mirror was started and will be, by name."""
        ...


class Collector(Protocol):
    """What makes room in the cache: see `kitd.daemon.collector.Collector`."""

    async def forecast(self) -> Forecast:
        """Tell what a collection would do now."""
        ...

    async def evictable_bytes(self, *, max_age_s: float = 0.0) -> int:
        """Return how many bytes nothing speaks for, or did at most so long ago."""
        ...


class Doctor(Protocol):
    """What knows what is wrong: see `kitd.doctor.examination.Doctor`."""

    async def reasons(self, projects: Sequence[WireProject]) -> Sequence[WireReason]:
        """Return what hinders the daemon now, given how its projects are."""
        ...

    async def examine(self, *, audit: bool) -> Sequence[WireCheck]:
        """Look at the daemon and all that it needs, and with `audit` at its history."""
        ...


class Webhooks(Protocol):
    """The deliveries of webhooks: see `kitd.daemon.delivery_desk.DeliveryDesk`."""

    @property
    def refusals(self) -> Refusals:
        """What was refused since the start."""
        ...

    def sources(self) -> Sequence[Source]:
        """Return the senders that are configured."""
        ...

    async def list(self, wanted: DeliveryFilter) -> Sequence[StoredDelivery]:
        """Return deliveries."""
        ...

    async def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Return by source and state how many deliveries are held."""
        ...

    async def replay(self, delivery: int) -> StoredDelivery:
        """Read a delivery again, and ask for its jobs."""
        ...


class Running(Protocol):
    """The running attempts: see `kitd.queue.executor.Executor`."""

    def progress_of(self, job_id: int) -> Progress | None:
        """Return how far a running job is."""
        ...

    def cancel(self, job_id: int) -> None:
        """Stop a running attempt."""
        ...


class Origin(MirrorRemote, Protocol):
    """A repository in its registry, whatever is read in its place otherwise."""

    async def delete_manifest(self, digest: Digest) -> bool:
        """Delete a manifest with all its tags, whatever needs it; whether it was there."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The daemon, as its methods see it."""

    life: Life
    started_s: float
    monotonic_s: Callable[[], float]
    jobs: JobLedger
    running: Running
    events: EventLedger
    catalog: Catalog
    projects: Projects
    mirrors: Mirrors
    mirror_ledger: MirrorLedger
    store: BlobStore
    cache: CacheContent
    cache_ledger: CacheLedger
    collector: Collector
    doctor: Doctor
    webhooks: Webhooks
    shelf: Shelf
    remote: Callable[[Repository], Awaitable[Remote]]
    origin: Callable[[Repository], Awaitable[Origin]]
    reach: Reach
    feed: Callable[[Descriptor, Fetcher, int], Awaitable[int]]
    """Opens a layer that is not in the cache for a user: `kitd.daemon.layer_feed.LayerFeeds`."""
    logins: Callable[[str], WireLogins]
    """Says where the credentials of a registry are looked for."""
    stopping: Callable[[], bool]
    effective_config: Callable[[], object]
    hub_endpoint: Callable[[], str]
    """The address of the hub in force."""
    dialect: Dialect
    """What kits are packed in."""
    reload: Callable[[], Awaitable[Reloaded]]
    """Applies the configuration as it is now, or nothing of it."""
