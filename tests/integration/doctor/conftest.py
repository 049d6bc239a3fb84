"""A patient: a real ledger and a real cache; what else there is to know, a test says."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from kitd.clock import SystemClock
from kitd.config.model import Config, RpcConfig
from kitd.doctor.patient import Patient
from kitd.ledger.catalog import Catalog
from kitd.ledger.database import Database
from kitd.ledger.event_ledger import EventLedger
from kitd.ledger.job_ledger import JobLedger
from kitd.ledger.outbox_ledger import OutboxLedger
from kitd.ledger.trouble import TroubleLedger
from kitd.queue.job import JobRequest, Lane
from kitd.store.blob_store import BlobStore
from kitd.webhooks.refusal import Refusals


class ShiftedClock(SystemClock):
    """The machine's clock, that much ahead."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now_us(self) -> int:
        return super().now_us() + int(self.ahead_s * 1_000_000)


@pytest.fixture
def clock() -> ShiftedClock:
    return ShiftedClock()


@pytest.fixture
async def database(tmp_path):
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    async with Database(state / "ledger.sqlite3") as database:
        yield database


@pytest.fixture
def jobs(database, clock) -> JobLedger:
    return JobLedger(database, clock, epoch=1)


@pytest.fixture
def wish() -> Callable[..., JobRequest]:
    """Make a wish; what is not named is plain."""

    def wish(key: str = "a", **fields) -> JobRequest:
        plain = {"kind": "pack", "lane": Lane.PACK, "key": key, "lock": key, "args": b"{}"}
        return JobRequest(**{**plain, "max_attempts": 3, **fields})

    return wish


async def nothing(*_arguments) -> tuple:
    return ()


async def no_kit(_manifest) -> None:
    return None


async def no_date(_host: str) -> None:
    return None


@pytest.fixture
def patient(database, clock, tmp_path) -> Patient:
    """A daemon with which nothing is wrong."""
    state = database.path.parent
    config = Config(state_dir=state, rpc=RpcConfig(socket=tmp_path / "kitd.sock"))
    store = BlobStore(config.cache_dir)
    store.create()
    return Patient(
        config=lambda: config,
        load=None,
        environ={},
        clock=clock,
        ledger=database.path,
        not_written=lambda: database.trouble,
        trouble=TroubleLedger(database),
        outbox=OutboxLedger(database, EventLedger(database), clock),
        catalog=Catalog(database, clock, no_kit),
        store=store,
        projects=nothing,
        slots=lambda: dict.fromkeys(Lane, 1),
        paused=lambda: None,
        shortfall=lambda: None,
        silent=lambda: (),
        ping=no_date,
        closed=dict,
        refusals=Refusals,
        watchdog_s=None,
    )


@pytest.fixture
def but(patient) -> Callable[..., Patient]:
    """Return the patient with something else the matter."""

    def but(**fields) -> Patient:
        return replace(patient, **fields)

    return but
