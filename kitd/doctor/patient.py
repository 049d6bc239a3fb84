"""What the doctor is let look at."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kitd.clock import Clock
from kitd.config.load import Loaded
from kitd.config.model import Config
from kitd.doctor.disk import Looks
from kitd.ledger.catalog import Catalog
from kitd.ledger.outbox_ledger import OutboxLedger
from kitd.ledger.trouble import TroubleLedger
from kitd.queue.job import Failure, Lane
from kitd.registry.governor import Closed
from kitd.rpc.methods.wire import WireProject
from kitd.store.blob_store import BlobStore
from kitd.webhooks.refusal import Refusals


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """A running daemon: its parts, and functions that tell how they are now."""

    config: Callable[[], Config]
    """The configuration in force."""
    load: Callable[[], Loaded] | None
    """Reads the configuration file as it is now; None where there is none to read."""
    environ: Mapping[str, str]
    clock: Clock
    ledger: Path
    """The file."""
    not_written: Callable[[], Failure | None]
    """Why the ledger cannot be written."""
    trouble: TroubleLedger
    outbox: OutboxLedger
    catalog: Catalog
    store: BlobStore
    projects: Callable[[], Awaitable[Sequence[WireProject]]]
    slots: Callable[[], Mapping[Lane, int]]
    paused: Callable[[], Failure | None]
    """Why no job begins."""
    shortfall: Callable[[], str | None]
    """Why the cache is over its limits."""
    silent: Callable[[], Sequence[str]]
    """The parts that do not answer."""
    ping: Callable[[str], Awaitable[str | None]]
    """Asks a registry whether it takes the credentials; returns its `Date`."""
    closed: Callable[[], Mapping[str, Closed]]
    """The hosts that registries live on and that are asked for nothing now."""
    refusals: Callable[[], Refusals]
    """The deliveries of webhooks that were refused."""
    watchdog_s: float | None
    """After how long a silent kitd is restarted; None where nobody watches."""
    looks: Looks = field(default_factory=Looks)
