"""HTTP as imports need it: redirects by hand, bounds on what is waited for, attempts that are told.

Nothing that is shown to one server is shown to another that it redirects to, unless who asks says
so, and where the first is reached by TLS all are.
"""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple, Self, TypeVar

import aiohttp
from yarl import URL

from kitd import __version__
from kitd.errors import UnavailableError
from kitd.hub.error import HubDeniedError, HubError, HubNotFoundError, HubUnavailableError
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
        self._session: aiohttp.ClientSession | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def get(
        self, url: URL, headers_for: Callable[[URL], Mapping[str, str]], advice: Advice
    ) -> AsyncIterator[Answer]:
        """Ask for something, wherever it is; `headers_for` says what each server is shown.

        Raises `KitdError` of `kitd.hub.error`.
        """
        linked: dict[str, str] = {}
        first = url.origin()
        for _ in range(MAX_REDIRECTS + 1):
            async with await self._send("GET", url, headers_for(url)) as response:
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
        self, url: URL, headers: Mapping[str, str], body: bytes, advice: Advice
    ) -> AsyncIterator[Answer]:
        """Ask a question, which no other server is asked. Raises `KitdError` as `get` does."""
        async with await self._send("POST", url, headers, body) as response:
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

    async def _send(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | None = None
    ) -> aiohttp.ClientResponse:
        session = await self._open_session()
        try:
            proxy = self._proxy(url)
        except ValueError as error:
            raise HubUnavailableError(
                f"the proxy for {url.host} cannot be used",
                hint="write HTTPS_PROXY and HTTP_PROXY like http://proxy.example.com:3128",
            ) from error
        with _connection_errors(url):
            return await session.request(
                method, url, headers=headers, data=body, allow_redirects=False, proxy=proxy
            )

    async def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Not to be waited for when cancelled: it reads files, and leaves nothing behind.
            tls = await asyncio.to_thread(ssl.create_default_context)
            if self._session is None:
                self._session = await self._stack.enter_async_context(
                    aiohttp.ClientSession(
                        connector=aiohttp.TCPConnector(ssl=tls, limit=0),
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
        return self._session


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
        raise HubUnavailableError(
            f"{url.host} cannot be reached",
            hint="see whether it can be reached from here, and hub.endpoint where it is the hub",
        ) from error
    except (aiohttp.ClientError, OSError) as error:
        raise HubUnavailableError(f"the connection to {url.host} broke") from error
