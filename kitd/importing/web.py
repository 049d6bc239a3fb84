"""HTTP as imports need it: redirects by hand, bounds on what is waited for, attempts that are told.

Nothing that is shown to one server is shown to another that it redirects to, unless who asks says
so, and where the first is reached by TLS all are.
"""

import asyncio
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple, Self, TypeVar

import aiohttp
from yarl import URL

from kitd import __version__
from kitd.errors import UnavailableError
from kitd.hub.error import HubDeniedError, HubError, HubNotFoundError, HubUnavailableError
from kitd.hub.git_source import LOOPBACK
from kitd.hub.region import Region, region_of, regions_open_to
from kitd.retry_after import parse_retry_after

CHUNK_BYTES = 1 << 20
MAX_REDIRECTS = 5
ATTEMPTS = 5
"""Of one request, while nothing comes of it."""
MAX_PATIENCE_S = 60.0
"""For longer pauses that a server asks for the queue waits, and not the attempt."""
CONNECT_S = 15.0
SILENCE_S = 60.0

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})

T = TypeVar("T")
Proxy = Callable[[URL], URL | None]
"""Returns the proxy for a request, None for none. Raises `ValueError` for one that cannot be."""


@dataclass(frozen=True, slots=True)
class Confines:
    """How far requests go, wherever an answer or a redirect leads.

    The host itself is asked wherever it is; others in some regions, and without TLS on loopback
    only, where the host is there, too. What a proxy connects to, which it resolves, is its affair.
    """

    host: str
    regions: frozenset[Region]

    def of(self, url: URL) -> frozenset[Region] | None:
        """Return where a request may go; None for anywhere. Raises `HubError`."""
        is_near = self.host in LOOPBACK and url.host in LOOPBACK
        if url.scheme != "https" and not is_near:
            raise HubError(f"{self.host} leads to {url.host} without TLS")
        return None if url.host == self.host or is_near else self.regions


class Advice(NamedTuple):
    """What to do where a server refuses, or does not have what it is asked for."""

    denied: str
    missing: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an answer; `linked` are headers of the first server, before it redirected."""

    response: aiohttp.ClientResponse
    linked: Mapping[str, str]

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body, at most `CHUNK_BYTES` at a time. Raises `HubUnavailableError`."""
        with _connection_errors(self.response.url):
            async for chunk in self.response.content.iter_chunked(CHUNK_BYTES):
                yield chunk

    async def document(self, max_bytes: int) -> bytes:
        """Return the body of an answer to a question. Raises `HubError`, `HubUnavailableError`."""
        if self.response.status != 200:
            raise HubError(f"{self.response.url.host} answered {self.response.status}")
        content = bytearray()
        async for chunk in self.chunks():
            content += chunk
            if len(content) > max_bytes:
                host = self.response.url.host
                raise HubError(f"an answer of {host} has more than {max_bytes} bytes")
        return bytes(content)


class Web:
    """Sends requests. Use as a context manager."""

    def __init__(
        self,
        *,
        proxy: Proxy = lambda _url: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._proxy = proxy
        self._sleep = sleep
        self._silence_s = silence_s
        self._sessions: dict[frozenset[Region] | None, aiohttp.ClientSession] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def get(
        self,
        url: URL,
        headers_for: Callable[[URL], Mapping[str, str]],
        advice: Advice,
        confines: Confines | None = None,
    ) -> AsyncIterator[Answer]:
        """Ask for something, wherever it is; `headers_for` says what each server is shown.

        Raises `KitdError` of `kitd.hub.error`.
        """
        linked: dict[str, str] = {}
        first = url.origin()
        for _ in range(MAX_REDIRECTS + 1):
            async with await self._send("GET", url, headers_for(url), confines) as response:
                if url.origin() == first:
                    linked |= {
                        name.lower(): value
                        for name, value in response.headers.items()
                        if name.lower().startswith("x-")
                    }
                if response.status not in _REDIRECTS:
                    _require_success(response, url, advice)
                    yield Answer(response, linked)
                    return
                url = _target(first, url, response)
        raise HubError(f"{first.host} redirects more than {MAX_REDIRECTS} times")

    @asynccontextmanager
    async def post(
        self,
        url: URL,
        headers: Mapping[str, str],
        body: bytes,
        advice: Advice,
        confines: Confines | None = None,
    ) -> AsyncIterator[Answer]:
        """Ask a question, which no other server is asked. Raises `KitdError` as `get` does."""
        async with await self._send("POST", url, headers, confines, body) as response:
            _require_success(response, url, advice)
            yield Answer(response, {})

    async def patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what an attempt returns, trying again where a server may only be busy."""
        failures = 0
        while True:
            try:
                return await attempt()
            except UnavailableError as error:
                failures += 1
                await self.wait_after(error, failures)

    async def wait_after(self, error: UnavailableError, failures: int) -> None:
        """Wait before the next attempt, or raise the error where there is to be none."""
        pause_s = error.retry_after_s
        if failures >= ATTEMPTS or (pause_s is not None and pause_s > MAX_PATIENCE_S):
            raise error
        if pause_s is None:
            pause_s = random.SystemRandom().random() * 2.0 ** (failures - 1)
        await self._sleep(pause_s)

    async def regions_open_to(self, host: str) -> frozenset[Region]:
        """Return where a host may lead; a name that is none leads to the public only."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return regions_open_to(())
        return regions_open_to(str(address[0]) for *_, address in found)

    async def _send(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        confines: Confines | None,
        body: bytes | None = None,
    ) -> aiohttp.ClientResponse:
        try:
            proxy = self._proxy(url)
        except ValueError as error:
            raise HubUnavailableError(
                f"the proxy for {url.host} cannot be used",
                hint="write HTTPS_PROXY and HTTP_PROXY like http://proxy.example.com:3128",
            ) from error
        regions = None if confines is None else confines.of(url)
        if proxy is not None and regions is not None:
            _check_written(url, regions)
            regions = None
        session = await self._open_session(regions)
        with _connection_errors(url):
            return await session.request(
                method, url, headers=headers, data=body, allow_redirects=False, proxy=proxy
            )

    async def _open_session(self, regions: frozenset[Region] | None) -> aiohttp.ClientSession:
        """Return a session of its own for each reach: connections are used again."""
        if regions not in self._sessions:
            # Not to be waited for when cancelled: it reads files, and leaves nothing behind.
            tls = await asyncio.to_thread(ssl.create_default_context)
            if regions not in self._sessions:
                self._sessions[regions] = await self._stack.enter_async_context(
                    aiohttp.ClientSession(
                        connector=aiohttp.TCPConnector(
                            ssl=tls, limit=0, socket_factory=partial(_socket_for, regions)
                        ),
                        headers={
                            "User-Agent": f"kitd/{__version__}",
                            "Accept-Encoding": "identity",
                        },
                        auto_decompress=False,
                        cookie_jar=aiohttp.DummyCookieJar(),
                        timeout=aiohttp.ClientTimeout(
                            total=None, sock_connect=CONNECT_S, sock_read=self._silence_s
                        ),
                    )
                )
        return self._sessions[regions]


class _OutOfBoundsError(PermissionError):
    """An address is in a region that it may not be in."""


def _socket_for(regions: frozenset[Region] | None, address: aiohttp.AddrInfoType) -> socket.socket:
    """Return a socket for a connection to an address, which is the one that is connected to."""
    family, kind, protocol, _, place = address
    if regions is not None and region_of(str(place[0])) not in regions:
        raise _OutOfBoundsError("out of bounds")
    return socket.socket(family, kind, protocol)


def _check_written(url: URL, regions: frozenset[Region]) -> None:
    """Check an address that is written as one. Raises `HubError`.

    What a name stands for the proxy finds out, and kitd never.
    """
    host = url.host or ""
    is_address = ":" in host or host.rpartition(".")[2].isdecimal()
    if host in LOOPBACK or (is_address and region_of(host) not in regions):
        raise _out_of_bounds(url)


def _out_of_bounds(url: URL) -> HubError:
    return HubError(
        f"{url.host} is no place that this server may send kitd to: it is not public",
        hint="servers that are on this machine or its networks may lead to others there",
    )


def _target(first: URL, url: URL, response: aiohttp.ClientResponse) -> URL:
    """Return where a redirect leads. Raises `HubError`."""
    try:
        target = url.join(URL(response.headers.get("Location", ""), encoded=True))
        is_usable = target.scheme in ("http", "https") and bool(target.host)
    except ValueError:
        is_usable = False
        target = url
    if not is_usable or target.user is not None:
        raise HubError(f"{url.host} redirects to no place")
    if first.scheme == "https" and target.scheme != "https":
        raise HubError(f"{url.host} redirects to {target.host} without TLS")
    return target


def _require_success(response: aiohttp.ClientResponse, url: URL, advice: Advice) -> None:
    status, host = response.status, url.host
    if status in (200, 206, 416):
        return
    if status in (401, 403):
        raise HubDeniedError(
            f"{host} does not let kitd have it (HTTP {status})",
            hint=advice.denied,
        )
    if status == 404:
        raise HubNotFoundError(
            f"{host} knows no such repository, revision or file",
            hint=advice.missing,
        )
    if status in _TRANSIENT:
        error = HubUnavailableError(f"{host} has no time for kitd (HTTP {status})")
        after = response.headers.get("Retry-After")
        error.retry_after_s = (
            None if after is None else parse_retry_after(after, now=datetime.now(UTC))
        )
        raise error
    raise HubError(f"{host} answered {status}")


@contextmanager
def _connection_errors(url: URL) -> Iterator[None]:
    """Map what the HTTP library raises, whose own words may hold the URL."""
    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        raise HubError(
            f"the certificate of {url.host} is not trusted ({error.certificate_error})",
            hint="servers are trusted by the system's authorities: SSL_CERT_FILE names others",
        ) from error
    except TimeoutError as error:
        raise HubUnavailableError(f"{url.host} did not answer in time") from error
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, _OutOfBoundsError):
            raise _out_of_bounds(url) from error
        raise HubUnavailableError(
            f"{url.host} cannot be reached",
            hint="see whether it can be reached from here, and hub.endpoint where it is the hub",
        ) from error
    except (aiohttp.ClientError, OSError) as error:
        raise HubUnavailableError(f"the connection to {url.host} broke") from error
