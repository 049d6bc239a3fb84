"""A small daemon's worth of methods behind a real socket, and a client that speaks raw lines."""

import asyncio
import json
import os
import socket
from array import array
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import pytest

from kitd.errors import KitdError, NotFoundError
from kitd.ledger.event_ledger import EventFilter
from kitd.rpc.endpoint import bind_endpoint
from kitd.rpc.fairness import Cost
from kitd.rpc.limit import Limits
from kitd.rpc.method import Context, Params, Reply, method
from kitd.rpc.peer import Role
from kitd.rpc.server import Server
from kitd.rpc.subscription import Event

DEADLINE_S = 10


class TruncatedError(KitdError):
    code = "cursor_truncated"


class FutureError(KitdError):
    code = "cursor_future"


class MemoryEvents:
    """An event source that keeps its events in a list."""

    def __init__(self) -> None:
        self.held: list[Event] = []
        self.floor = 0
        self.moved = asyncio.Event()
        self.reads = 0

    def append(self, subject: str = "daemon", kind: str = "test.happened", text: str = "") -> None:
        seq = self.floor + len(self.held) + 1
        self.held.append(Event(seq, "2024-01-01T00:00:00.000Z", kind, subject, {"text": text}))
        self.moved.set()
        self.moved = asyncio.Event()

    def forget(self, count: int) -> None:
        del self.held[:count]
        self.floor += count

    async def head_seq(self) -> int:
        return self.floor + len(self.held)

    async def read(self, after_seq: int, limit: int, wanted: EventFilter):
        self.reads += 1
        if after_seq < self.floor:
            raise TruncatedError("events were removed")
        if after_seq > self.floor + len(self.held):
            raise FutureError("this has not happened")
        page = self.held[after_seq - self.floor :]
        return [e for e in page if not wanted.types or e.type in wanted.types][:limit]

    async def wait(self, after_seq: int) -> None:
        while self.floor + len(self.held) <= after_seq:
            await self.moved.wait()


@dataclass
class Services:
    path: os.PathLike[str]
    started: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: int = 0
    done: int = 0


class Empty(Params, frozen=True):
    pass


class Text(Params, frozen=True):
    text: str


class Size(Params, frozen=True):
    size: int


class Open(Params, frozen=True):
    count: int = 1
    unspeakable: bool = False


class Subscribe(Params, frozen=True):
    from_seq: int | None = None
    types: frozenset[str] = frozenset()
    job: int | None = None


class Unsubscribe(Params, frozen=True):
    subscription: int


class Nothing(msgspec.Struct, frozen=True):
    pass


class Said(msgspec.Struct, frozen=True):
    text: str


class Subscribed(msgspec.Struct, frozen=True):
    subscription: int
    head_seq: int


async def ping(context: Context[Services], params: Empty) -> Nothing:
    """Answer."""
    return Nothing()


async def echo(context: Context[Services], params: Text) -> Said:
    """Say it again."""
    context.services.done += 1
    return Said(params.text)


async def wait(context: Context[Services], params: Empty) -> Said:
    """Wait for the test."""
    context.services.started.set()
    try:
        await context.services.release.wait()
    except asyncio.CancelledError:
        context.services.cancelled += 1
        raise
    return Said("released")


async def fill(context: Context[Services], params: Size) -> Said:
    """Answer at length."""
    return Said("x" * params.size)


async def lose(context: Context[Services], params: Empty) -> Said:
    """Find nothing."""
    raise NotFoundError("there is no such thing", hint="look elsewhere")


async def crash(context: Context[Services], params: Empty) -> Said:
    """Have a defect."""
    raise ZeroDivisionError("secret detail")


async def open_files(context: Context[Services], params: Open) -> Reply[Said | object]:
    """Attach files."""
    handles = tuple(os.open(context.services.path, os.O_RDONLY) for _ in range(params.count))
    return Reply({1: object()} if params.unspeakable else Said("here"), handles)


async def show(context: Context[Services], params: Text) -> Said:
    """Tell what came along."""
    if context.descriptor is None:
        return Said("nothing")
    status = os.fstat(context.descriptor)
    context.services.done += 1
    if params.text == "wait":
        context.services.started.set()
        await context.services.release.wait()
    return Said(f"{params.text} {status.st_ino}")


async def subscribe(context: Context[Services], params: Subscribe) -> Reply[Subscribed]:
    """Follow the events."""
    wanted = EventFilter(params.types, job=params.job)
    subscription = await context.subscriptions.open(wanted, params.from_seq)
    result = Subscribed(subscription.number, subscription.head_seq)
    return Reply(result, after=subscription.start)


async def unsubscribe(context: Context[Services], params: Unsubscribe) -> Nothing:
    """Stop following."""
    context.subscriptions.close(params.subscription)
    return Nothing()


METHODS = (
    method("test.ping", Role.READ, Empty, Nothing, ping),
    method("test.echo", Role.SUBMIT, Text, Said, echo),
    method("test.wait", Role.READ, Empty, Said, wait),
    method("test.look", Role.READ, Empty, Said, wait, cost=Cost.OUTSIDE),
    method("test.list", Role.READ, Empty, Nothing, ping, cost=Cost.LEDGER),
    method("test.fill", Role.READ, Size, Said, fill),
    method("test.lose", Role.READ, Empty, Said, lose),
    method("test.crash", Role.READ, Empty, Said, crash),
    method("test.show", Role.READ, Text, Said, show, takes_descriptor=True),
    method("test.open", Role.READ, Open, object, open_files, alone=True),
    method("events.subscribe", Role.READ, Subscribe, Subscribed, subscribe, alone=True),
    method("events.unsubscribe", Role.READ, Unsubscribe, Nothing, unsubscribe),
)


class Client:
    """A raw socket that knows lines and nothing else of the protocol."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""
        self.descriptors: list[int] = []

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def call(self, name: str, params: object = None, request_id: object = 1) -> None:
        document = {"jsonrpc": "2.0", "id": request_id, "method": name, "params": params or {}}
        await self.send(json.dumps(document).encode() + b"\n")

    def send_with(self, data: bytes, descriptors) -> None:
        """Send so little that it goes in one piece, with descriptors."""
        assert socket.send_fds(self.sock, [data], descriptors) == len(data)

    async def notify(self, name: str, params: object) -> None:
        document = {"jsonrpc": "2.0", "method": name, "params": params}
        await self.send(json.dumps(document).encode() + b"\n")

    async def receive(self):
        """The next message, or None at the end of the stream."""
        async with asyncio.timeout(DEADLINE_S):
            while b"\n" not in self.buffer:
                if not await self._more():
                    assert self.buffer == b""
                    return None
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    async def _more(self) -> bytes:
        loop = asyncio.get_running_loop()
        size = socket.CMSG_SPACE(64 * 4)
        while True:
            try:
                data, ancillary, _, _ = self.sock.recvmsg(1 << 20, size)
                break
            except BlockingIOError:
                ready = asyncio.Event()
                loop.add_reader(self.sock, ready.set)
                try:
                    await ready.wait()
                finally:
                    loop.remove_reader(self.sock)
        for _, _, rights in ancillary:
            self.descriptors += array("i", rights)
        self.buffer += data
        return data

    def close(self) -> None:
        self.sock.close()


class Harness:
    """A running server and what tests reach into."""

    def __init__(self, stack, path, server, services, events, serving) -> None:
        self.stack = stack
        self.path = path
        self.server = server
        self.services = services
        self.events = events
        self.serving = serving

    def connect(self, *, receive_bytes: int | None = None) -> Client:
        sock = socket.socket(socket.AF_UNIX)
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.connect(str(self.path))
        sock.setblocking(False)
        client = Client(sock)
        self.stack.callback(client.close)
        return client


@pytest.fixture
async def running(tmp_path):
    """Starts servers: `await running(limits=…, access=…, daemon_uid=…)`."""
    kit = tmp_path / "blob"
    kit.write_bytes(b"the content of a layer")

    @asynccontextmanager
    async def served(limits: Limits, access, daemon_uid):
        services, events = Services(kit), MemoryEvents()
        path = tmp_path / "run" / "kitd.sock"
        server = Server(
            METHODS, services, events, access=access, daemon_uid=daemon_uid, limits=limits
        )
        async with asyncio.TaskGroup() as group, AsyncExitStack() as clients:
            serving = group.create_task(server.serve(bind_endpoint(path, mode=0o600)))
            yield Harness(clients, path, server, services, events, serving)
            server.stop(0)
        assert not path.exists()

    async with AsyncExitStack() as stack:

        async def start(limits: Limits | None = None, access=(), daemon_uid: int | None = None):
            uid = os.getuid() if daemon_uid is None else daemon_uid
            return await stack.enter_async_context(served(limits or Limits(), access, uid))

        yield start


@pytest.fixture
async def eventually():
    """Waits until a condition holds: `await eventually(lambda: …)`."""

    async def poll(condition) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await asyncio.sleep(0.005)

    return poll
