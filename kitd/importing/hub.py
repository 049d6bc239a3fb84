"""Requests to a hub: what a revision is, what is in it, and the bytes of a file.

Redirects are followed by hand: the token goes to the hub itself and to nobody else, and where the
hub is reached by TLS nothing else is.
"""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Self, TypeVar
from urllib.parse import quote

import aiohttp
from yarl import URL

from kitd import __version__
from kitd.blocking import run_blocking
from kitd.errors import UnavailableError
from kitd.hub.error import (
    HubDeniedError,
    HubError,
    HubNotFoundError,
    HubUnavailableError,
    InvalidHubTreeError,
)
from kitd.hub.tree import (
    MAX_ENTRIES,
    MAX_FILES,
    HubFile,
    HubSource,
    RepositoryType,
    Snapshot,
    check_tree,
    parse_page,
    parse_revision,
)
from kitd.importing.settings import HubSettings
from kitd.retry_after import parse_retry_after
from kitd.secret import Secrets

CHUNK_BYTES = 1 << 20
MAX_REVISION_BYTES = 1 << 20
MAX_PAGE_BYTES = 4 << 20
"""A page is read at once: while that goes on, nothing else does."""
MAX_PAGES = 1000
MAX_LIST_BYTES = 64 << 20
"""Of all pages together."""
MAX_REDIRECTS = 5
ATTEMPTS = 5
"""Of one request, while nothing comes of it."""
MAX_PATIENCE_S = 60.0
"""For longer pauses that the hub asks for the queue waits, and not the attempt."""
CONNECT_S = 15.0
SILENCE_S = 60.0

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})

T = TypeVar("T")
Proxy = Callable[[URL], URL | None]
"""Returns the proxy for a request, None for none. Raises `ValueError` for one that cannot be."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an answer; `linked` are the headers of the hub itself, before any redirect."""

    response: aiohttp.ClientResponse
    linked: Mapping[str, str]

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body, at most `CHUNK_BYTES` at a time. Raises `HubUnavailableError`."""
        with _connection_errors(self.response.url):
            async for chunk in self.response.content.iter_chunked(CHUNK_BYTES):
                yield chunk


class HubClient:
    """Speaks to the hub of the configuration in force. Use as a context manager."""

    def __init__(
        self,
        settings: Callable[[], HubSettings],
        secrets: Secrets,
        *,
        proxy: Proxy = lambda _url: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._settings = settings
        self._secrets = secrets
        self._proxy = proxy
        self._sleep = sleep
        self._silence_s = silence_s
        self._session: aiohttp.ClientSession | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def snapshot(self, source: HubSource) -> Snapshot:
        """Return what a revision holds. Raises `KitdError` of `kitd.hub.error`."""
        settings = await self._current()
        api = f"api/{_plural(source.type)}/{source.repository}"
        revision = quote(source.revision, safe="")
        about = _below(settings.endpoint, f"{api}/revision/{revision}")
        content, _ = await self.patiently(partial(self._json, settings, about, MAX_REVISION_BYTES))
        commit, licence = await run_blocking(parse_revision, content)
        files: list[HubFile] = []
        entries = read_bytes = 0
        page = _below(settings.endpoint, f"{api}/tree/{commit}?recursive=true")
        for _ in range(MAX_PAGES):
            content, following = await self.patiently(
                partial(self._json, settings, page, MAX_PAGE_BYTES)
            )
            found = await run_blocking(parse_page, content)
            files += found.files
            entries += found.entries
            read_bytes += len(content)
            if len(files) > MAX_FILES:
                raise InvalidHubTreeError(f"{source} has more than {MAX_FILES} files")
            if entries > MAX_ENTRIES or read_bytes > MAX_LIST_BYTES:
                raise InvalidHubTreeError(
                    f"the list of files of {source} has more than {MAX_ENTRIES} entries,"
                    f" or {MAX_LIST_BYTES >> 20} MiB"
                )
            if following is None:
                await run_blocking(check_tree, files)
                return Snapshot(commit=commit, files=tuple(files), licence=licence)
            page = following
        raise InvalidHubTreeError(f"the list of files of {source} has more than {MAX_PAGES} pages")

    @asynccontextmanager
    async def open(
        self, source: HubSource, commit: str, file: HubFile, offset: int
    ) -> AsyncIterator[Answer]:
        """Ask for a file from a byte on; whether it begins there the answer tells.

        Raises `KitdError` of `kitd.hub.error`.
        """
        settings = await self._current()
        prefix = "" if source.type is RepositoryType.MODEL else "datasets/"
        path = quote(file.path, safe="/")
        url = _below(settings.endpoint, f"{prefix}{source.repository}/resolve/{commit}/{path}")
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        async with self._get(settings, url, headers) as answer:
            yield answer

    async def patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what an attempt returns, trying again where the hub may only be busy."""
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

    async def _current(self) -> HubSettings:
        settings = await run_blocking(self._settings)
        if settings.token is not None:
            self._secrets.learn(settings.token)
        return settings

    async def _json(
        self, settings: HubSettings, url: URL, max_bytes: int
    ) -> tuple[bytes, URL | None]:
        """Return a document, and where the next page is."""
        async with self._get(settings, url, {}) as answer:
            response = answer.response
            if response.status != 200:
                raise HubError(f"the hub answered {response.status} to a question")
            content = bytearray()
            async for chunk in answer.chunks():
                content += chunk
                if len(content) > max_bytes:
                    raise HubError(f"an answer of {url.host} has more than {max_bytes} bytes")
            return bytes(content), _next_page(settings, url, response)

    @asynccontextmanager
    async def _get(
        self, settings: HubSettings, url: URL, headers: Mapping[str, str]
    ) -> AsyncIterator[Answer]:
        linked: dict[str, str] = {}
        for _ in range(MAX_REDIRECTS + 1):
            own = url.origin() == settings.endpoint.origin()
            given = dict(headers)
            if own and settings.token is not None:
                given["Authorization"] = f"Bearer {settings.token}"
            with self._secrets.redacted():
                async with await self._send(url, given) as response:
                    if own:
                        linked |= {
                            name.lower(): value
                            for name, value in response.headers.items()
                            if name.lower().startswith("x-")
                        }
                    if response.status not in _REDIRECTS:
                        _require_success(response, url)
                        yield Answer(response, linked)
                        return
                    url = _target(settings, url, response)
        raise HubError(f"the hub redirects more than {MAX_REDIRECTS} times")

    async def _send(self, url: URL, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        session = await self._open_session()
        try:
            proxy = self._proxy(url)
        except ValueError as error:
            raise HubUnavailableError(
                f"the proxy for {url.host} cannot be used",
                hint="write HTTPS_PROXY and HTTP_PROXY like http://proxy.example.com:3128",
            ) from error
        with _connection_errors(url):
            return await session.get(url, headers=headers, allow_redirects=False, proxy=proxy)

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


def _plural(kind: RepositoryType) -> str:
    return f"{kind}s"


def _below(endpoint: URL, path: str) -> URL:
    return URL(f"{str(endpoint).rstrip('/')}/{path}", encoded=True)


def _next_page(settings: HubSettings, url: URL, response: aiohttp.ClientResponse) -> URL | None:
    """Return the address of the next page. Raises `HubError` if it is not the hub's."""
    try:
        link = response.links.get("next")
        found = None if link is None else link.get("url")
    except ValueError as error:
        raise HubError("the hub names no next page that can be read") from error
    if found is None:
        return None
    target = url.join(URL(str(found), encoded=True))
    if target.origin() != settings.endpoint.origin() or target == url:
        raise HubError(f"the next page of a list of the hub is said to be at {target.host}")
    return target


def _target(settings: HubSettings, url: URL, response: aiohttp.ClientResponse) -> URL:
    """Return where a redirect leads. Raises `HubError`."""
    try:
        target = url.join(URL(response.headers.get("Location", ""), encoded=True))
        is_usable = target.scheme in ("http", "https") and bool(target.host)
    except ValueError:
        is_usable = False
        target = url
    if not is_usable or target.user is not None:
        raise HubError(f"{url.host} redirects to no place")
    if settings.endpoint.scheme == "https" and target.scheme != "https":
        raise HubError(f"{url.host} redirects to {target.host} without TLS")
    return target


def _require_success(response: aiohttp.ClientResponse, url: URL) -> None:
    status, host = response.status, url.host
    if status in (200, 206, 416):
        return
    if status in (401, 403):
        raise HubDeniedError(
            f"{host} does not let kitd have it (HTTP {status})",
            hint="accept the terms at the hub, or give kitd a token: hub.token_file or HF_TOKEN",
        )
    if status == 404:
        raise HubNotFoundError(
            f"{host} knows no such repository, revision or file",
            hint="check the name and --ref; of private repositories a hub says that too",
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
            hint="hubs are trusted by the system's authorities: SSL_CERT_FILE names others",
        ) from error
    except TimeoutError as error:
        raise HubUnavailableError(f"{url.host} did not answer in time") from error
    except aiohttp.ClientConnectorError as error:
        raise HubUnavailableError(
            f"{url.host} cannot be reached",
            hint="check hub.endpoint, and that the hub can be reached from here",
        ) from error
    except (aiohttp.ClientError, OSError) as error:
        raise HubUnavailableError(f"the connection to {url.host} broke") from error
