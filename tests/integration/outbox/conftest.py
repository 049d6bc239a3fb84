"""Endpoints on loopback that answer what a test wants, and a notifier on a real ledger."""

import asyncio
import json
from collections import deque
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from kitd.clock import SystemClock
from kitd.config.model import NotificationConfig
from kitd.ledger.database import Database
from kitd.ledger.event_ledger import EventLedger, emit
from kitd.ledger.outbox_ledger import OutboxLedger
from kitd.outbox.notifier import Notifier
from kitd.outbox.sender import Surroundings
from kitd.secret import Secrets

INSTANCE = "a" * 32


class ShiftedClock(SystemClock):
    """The machine's clock, that much ahead."""

    ahead_s = 0.0

    def now_us(self) -> int:
        return super().now_us() + int(self.ahead_s * 1_000_000)


@dataclass
class Endpoint:
    """Takes what it is sent. `answers` are the statuses, with headers, of the next requests."""

    url: str = ""
    answers: deque = field(default_factory=deque)
    requests: list = field(default_factory=list)
    """The headers and the body of each."""
    open: asyncio.Event = field(default_factory=asyncio.Event)
    """Until it is set, requests come in and get no answer."""
    _came: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append((dict(request.headers), await request.read()))
        async with self._came:
            self._came.notify_all()
        await self.open.wait()
        status, headers = self.answers.popleft() if self.answers else (204, {})
        return web.Response(status=status, headers=headers)

    async def events(self, count: int) -> list[dict]:
        """Return what it was sent, once that is so much."""
        async with self._came:
            await self._came.wait_for(lambda: len(self.requests) >= count)
        return [json.loads(body) for _, body in self.requests]

    async def types(self, count: int) -> list[str]:
        return [event["type"].removeprefix("dev.kitd.") for event in await self.events(count)]


class ToldLedger(OutboxLedger):
    """Tells when the notifier has looked at its endpoints, and when a cursor or a failure is in."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.kept: asyncio.Queue[Mapping[str, int]] = asyncio.Queue()

    async def keep(self, names: Collection[str]) -> Mapping[str, int]:
        cursors = await super().keep(names)
        self.kept.put_nowait(cursors)
        return cursors


@dataclass
class Life:
    """One life of a notifier: the ledger is open, and it runs."""

    database: Database
    events: EventLedger
    ledger: ToldLedger
    notifier: Notifier
    endpoints: dict[str, NotificationConfig]
    delays: list[float]
    """The waits that it asked for, none of which took any time."""
    secrets: Secrets
    clock: ShiftedClock

    async def emit(self, *types: str, at_us: int | None = None) -> None:
        """Let events happen, in one transaction."""
        at_us = self.clock.now_us() if at_us is None else at_us

        def transaction(connection) -> None:
            for kind in types:
                emit(connection, at_us, kind, "daemon", {"n": kind})

        await self.database.write(transaction)

    async def reload(self) -> Mapping[str, int]:
        """Have the endpoints looked at again; return the cursors."""
        self.notifier.reload()
        return await self.ledger.kept.get()

    async def row(self, name: str = "ci") -> dict:
        (row,) = await self.database.read("SELECT * FROM outbox WHERE name = ?", (name,))
        return dict(row)

    async def until(self, name: str = "ci", **wanted: object) -> dict:
        """Return an endpoint's row once it has these values."""
        moved = asyncio.Event()
        self.database.on_commit(moved.set)
        while True:
            moved.clear()
            row = await self.row(name)
            if wanted.items() <= row.items():
                return row
            await moved.wait()

    async def dropped(self) -> list[dict]:
        rows = await self.database.read(
            "SELECT data FROM events WHERE type = 'notification.dropped' ORDER BY seq"
        )
        return [json.loads(row["data"]) for row in rows]


@pytest.fixture
async def serve():
    """Start endpoints; all are closed after the test."""
    async with AsyncExitStack() as stack:

        async def serve(handler=None) -> Endpoint:
            endpoint = Endpoint()
            endpoint.open.set()
            application = web.Application()
            application.router.add_post("/hooks/{name}", handler or endpoint.handle)
            server = await stack.enter_async_context(TestServer(application))
            endpoint.url = str(server.make_url("/hooks/kitd"))
            stack.callback(endpoint.open.set)
            return endpoint

        yield serve


@pytest.fixture
async def endpoint(serve) -> Endpoint:
    return await serve()


@pytest.fixture
def live(tmp_path):
    """Begin a life with endpoints: `async with live(ci=config) as life`. All share one ledger."""

    @asynccontextmanager
    async def live(**endpoints: NotificationConfig):
        clock, secrets, delays = ShiftedClock(), Secrets(), []

        async def sleep(delay_s: float) -> None:
            delays.append(delay_s)
            await asyncio.sleep(0)

        async with Database(tmp_path / "ledger.sqlite3") as database:
            events = EventLedger(database)
            ledger = ToldLedger(database, events, clock)
            surroundings = Surroundings(
                ledger=ledger,
                instance=INSTANCE,
                clock=clock,
                secrets=secrets,
                proxy=lambda _url: None,
                draw=lambda: 0.0,
                sleep=sleep,
            )
            notifier = Notifier(lambda: dict(endpoints), ledger, surroundings)
            life = Life(database, events, ledger, notifier, endpoints, delays, secrets, clock)
            running = asyncio.create_task(notifier.run())
            await ledger.kept.get()
            try:
                async with asyncio.timeout(30):
                    yield life
            finally:
                running.cancel()
                await asyncio.wait([running])
            assert running.cancelled(), running.exception()

    return live
