"""A client under test, content to send, and peers that answer whatever a test wants."""

import subprocess
import time
from asyncio import StreamReader, StreamWriter, start_server
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from kitd.oci.descriptor import Descriptor, describe
from kitd.oci.reference import Repository
from kitd.registry.admission import Admissions
from kitd.registry.client import RegistryClient
from kitd.registry.repository import RemoteRepository
from kitd.registry.settings import RegistrySettings
from kitd.registry.transport import Surroundings
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent


@dataclass
class Cache(CacheContent):
    """A blob cache that content can be put into."""

    store: BlobStore

    def __post_init__(self) -> None:
        super().__init__(self.store)

    def put(self, content: bytes, media_type: str = "application/octet-stream") -> Descriptor:
        self.store.put(content)
        return describe(media_type, content)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    store = BlobStore(tmp_path / "cache")
    store.create()
    return Cache(store)


@dataclass
class Connector:
    """Makes clients; `delays` are the waits they asked for, none of which took any time."""

    stack: AsyncExitStack
    delays: list[float] = field(default_factory=list)
    admissions: Admissions = field(default_factory=Admissions)
    late_s: float = 0.0
    """How much later it is for tokens than it is."""

    async def client(
        self, settings: RegistrySettings, environment: Mapping[str, str] | None = None
    ) -> RegistryClient:
        async def sleep(delay_s: float) -> None:
            self.delays.append(delay_s)

        surroundings = Surroundings(
            environment=environment or {},
            admissions=self.admissions,
            clock=lambda: time.monotonic() + self.late_s,
            sleep=sleep,
        )
        client = RegistryClient(lambda _: settings, surroundings)
        return await self.stack.enter_async_context(client)

    async def __call__(
        self,
        host: str,
        name: str = "team/model",
        *,
        settings: RegistrySettings | None = None,
        environment: Mapping[str, str] | None = None,
        mount_from: tuple[str, ...] = (),
    ) -> RemoteRepository:
        client = await self.client(settings or RegistrySettings(), environment)
        return await client.repository(Repository(host, name), mount_from=mount_from)


@pytest.fixture
async def connect() -> AsyncIterator[Connector]:
    async with AsyncExitStack() as stack:
        yield Connector(stack)


@pytest.fixture(params=["docker_registry", "fault_registry"])
def registry(request: pytest.FixtureRequest) -> Any:
    """An empty registry that lets everybody in: Debian's, and the one that tests make faults in."""
    return request.getfixturevalue(request.param)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Serve a handler for every request on a loopback port and return `127.0.0.1:port`."""
    async with AsyncExitStack() as stack:

        async def start(handler: Handler, **options: object) -> str:
            application = web.Application(client_max_size=1 << 30)
            application.router.add_route("*", "/{path:.*}", handler)
            server = TestServer(application, host="127.0.0.1")
            await server.start_server(access_log=None, **options)
            stack.push_async_callback(server.close)
            return f"127.0.0.1:{server.port}"

        yield start


@pytest.fixture
async def talk() -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Serve a function of two raw streams on a loopback port and return `127.0.0.1:port`."""
    async with AsyncExitStack() as stack:

        async def start(talker: Callable[..., Awaitable[None]], **options: Any) -> str:
            async def converse(reader: StreamReader, writer: StreamWriter) -> None:
                await talker(reader, writer)
                writer.close()
                await writer.wait_closed()

            server = await start_server(converse, "127.0.0.1", 0, **options)
            await stack.enter_async_context(server)
            return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

        yield start


def _openssl(*arguments: str | Path, cwd: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=cwd, check=True, capture_output=True)


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, what it signed, an authority that nobody knows, and an expired certificate."""
    home = tmp_path_factory.mktemp("pki")
    (home / "names").write_text(
        "subjectAltName=IP:127.0.0.1,DNS:registry.example.com\n"
        "authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
    )
    new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for name in ("ca", "stranger"):
        subject = ["-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        # Python 3.13 and later refuse an authority that does not say what its key is for.
        use = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        _openssl(*new, "-x509", "-days", "2", *use, *subject, cwd=home)
    for name, authority, days in (
        ("registry", "ca", 2),
        ("expired", "ca", -1),
        ("client", "ca", 2),
        ("impostor", "stranger", 2),
    ):
        _openssl(
            *new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", "request", cwd=home
        )
        _openssl(
            *("x509", "-req", "-in", "request", "-extfile", "names", "-days", str(days)),
            *("-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial"),
            *("-out", f"{name}.pem"),
            cwd=home,
        )
    return home
