"""What the methods work with. Wired in `kitd.daemon.compose`, once for the life of the daemon."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from kitd.jobs.port import Remote
from kitd.ledger.catalog import Catalog
from kitd.ledger.event_ledger import EventLedger
from kitd.ledger.job_ledger import JobLedger
from kitd.ledger.life import Life
from kitd.oci.reference import Repository
from kitd.queue.job import Job, Progress
from kitd.rpc.methods.wire import WireProject
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent


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
    ) -> WireProject:
        """Watch a project from now on."""
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


class Running(Protocol):
    """The running attempts: see `kitd.queue.executor.Executor`."""

    def progress_of(self, job_id: int) -> Progress | None:
        """Return how far a running job is."""
        ...

    def cancel(self, job_id: int) -> None:
        """Stop a running attempt."""
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
    store: BlobStore
    cache: CacheContent
    remote: Callable[[Repository], Awaitable[Remote]]
    stopping: Callable[[], bool]
    effective_config: Callable[[], object]
