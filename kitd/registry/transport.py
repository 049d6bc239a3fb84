"""Sending requests to one registry: connections, credentials, redirects, patience, clear errors.

Knows HTTP and nothing of repositories. Patience here is for the hiccup inside one attempt; who
comes back in a minute is the queue's business.
"""

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import aiohttp
from yarl import URL

from kitd import __version__
from kitd.blocking import run_blocking
from kitd.content.store import CHUNK_BYTES, ByteStream, Chunk
from kitd.oci.registry_error import MAX_ERROR_BYTES, parse_error_body
from kitd.registry.auth.authenticator import Authenticator
from kitd.registry.auth.bearer import MAX_ANSWER_BYTES
from kitd.registry.auth.scheme import Site
from kitd.registry.credentials import Credential, Password, find_credential, warn_if_exposed
from kitd.registry.errors import (
    RegistryProtocolError,
    RegistryTlsError,
    RegistryUnreachableError,
    html_error,
    http_errors,
    parse_retry_after,
    response_error,
)
from kitd.registry.location import InvalidLocationError, resolve_location, same_origin
from kitd.registry.request import Request
from kitd.registry.settings import RegistrySettings, origin_of
from kitd.secret import Secrets

CONNECT_S = 10.0
DOCUMENT_S = 300.0
"""How long a document of a few megabytes may take; it bounds a peer that sends byte by byte."""
MAX_REDIRECTS = 5
TRIES = 3
FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 3.0

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEPING_METHOD = frozenset({307, 308})
_PASSING = frozenset({502, 503, 504})
_SAFE = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the daemon gives to every transport; tests give something faster."""

    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Where the docker credentials of the user are found, and the helpers on the PATH."""
    secrets: Secrets = field(default_factory=Secrets)
    """Is told what is sent as a proof of who kitd is, and keeps it out of errors."""
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Transport:
    """The connections to one registry under one set of settings."""

    def __init__(
        self,
        registry: str,
        settings: RegistrySettings,
        surroundings: Surroundings,
        session: aiohttp.ClientSession,
    ) -> None:
        self.registry = registry
        self.settings = settings
        self.origin = origin_of(registry, settings)
        self._surroundings = surroundings
        self._session = session
        self._random = random.SystemRandom()
        self._authenticator = Authenticator(
            Site(
                host=registry,
                origin=self.origin,
                credential=self._credential,
                fetch=self._fetch,
                clock=surroundings.clock,
            )
        )

    @classmethod
    async def open(
        cls, registry: str, settings: RegistrySettings, surroundings: Surroundings
    ) -> "Transport":
        """Prepare the connections; nothing is sent. Raises `RegistryTlsError` for bad files."""
        tls = await run_blocking(tls_context, registry, settings)
        session = aiohttp.ClientSession(
            # How many transfers run at once is their callers' decision. A limit here could make
            # an upload wait for the very download that feeds it.
            connector=aiohttp.TCPConnector(ssl=tls, limit=0),
            # A digest is that of the bytes on the wire: nothing may compress them on the way.
            headers={"User-Agent": f"kitd/{__version__}", "Accept-Encoding": "identity"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=CHUNK_BYTES,
        )
        return cls(registry, settings, surroundings, session)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    def url(self, path: str) -> URL:
        """Return the URL of a path below `/v2/`, made of names and digests that were checked."""
        return URL(f"{self.origin}/v2/{path}", encoded=True)

    @asynccontextmanager
    async def send(self, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and open the answer: a 2xx or one of `request.accept`.

        Raises `RegistryError` for every other answer and for none, and what the request's body
        raised.
        """
        # A registry may quote in its answer what it was sent.
        with self._surroundings.secrets.redacted():
            async with AsyncExitStack() as stack:
                authorization = await self._authenticator.authorization(request.scopes)
                response = await self._patiently(stack, request, authorization)
                if response.status == 401 and same_origin(response.url, self.origin):
                    challenges = response.headers.getall("WWW-Authenticate", ())
                    answer = await self._authenticator.answer(
                        challenges, request.scopes, authorization
                    )
                    if answer is not None:
                        await stack.aclose()
                        response = await self._patiently(stack, request, answer)
                await self._check(request, response)
                yield response

    async def read(
        self, response: aiohttp.ClientResponse, *, operation: str, max_bytes: int
    ) -> bytes:
        """Return the body of an answer that is a document.

        Raises `RegistryProtocolError` for one that is larger.
        """
        body = await self._read_at_most(response, operation, max_bytes + 1)
        if len(body) > max_bytes:
            raise RegistryProtocolError(
                f"the answer has more than {max_bytes} bytes",
                host=self.registry,
                operation=operation,
            )
        return body

    async def _read_at_most(
        self, response: aiohttp.ClientResponse, operation: str, count: int
    ) -> bytes:
        body = b""
        with http_errors(self.registry, operation):
            async with asyncio.timeout(DOCUMENT_S):
                while chunk := await response.content.read(count - len(body)):
                    body += chunk
        return body

    async def _credential(self, repository: str | None) -> Credential | None:
        credential = await find_credential(
            self.settings.credentials, self.registry, repository, self._surroundings.environment
        )
        if credential is not None:
            username = credential.username if isinstance(credential, Password) else None
            self._surroundings.secrets.learn(credential.secret, username=username)
        return credential

    async def _fetch(self, request: Request, authorization: str | None) -> bytes:
        """Send a request that is not for the registry itself, such as one for a token."""
        async with AsyncExitStack() as stack:
            response = await self._patiently(stack, request, authorization, home=request.url)
            await self._check(request, response)
            return await self.read(
                response, operation=request.operation, max_bytes=MAX_ANSWER_BYTES
            )

    async def _patiently(
        self,
        stack: AsyncExitStack,
        request: Request,
        authorization: str | None,
        home: URL | None = None,
    ) -> aiohttp.ClientResponse:
        """Open the answer on `stack`; try again what is safe to repeat and fails in passing."""
        if authorization is not None:
            self._surroundings.secrets.learn(authorization.partition(" ")[2])
        tries = TRIES if request.method in _SAFE else 1
        for attempt in range(1, tries + 1):
            try:
                response = await stack.enter_async_context(
                    self._follow(request, authorization, home or self.origin)
                )
            except RegistryUnreachableError:
                if attempt == tries:
                    raise
            else:
                if response.status not in _PASSING or attempt == tries:
                    return response
                await stack.aclose()
            longest_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** (attempt - 1))
            await self._surroundings.sleep(self._random.uniform(0, longest_s))
        raise AssertionError("the last try returns or raises")

    @asynccontextmanager
    async def _follow(
        self, request: Request, authorization: str | None, home: URL
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open the answer at the end of the redirects.

        The Authorization header goes to the origin of `home` and nowhere else: storage services
        refuse it, and strangers must not see it.
        """
        url = request.url
        for _ in range(MAX_REDIRECTS + 1):
            trusted = authorization if same_origin(url, home) else None
            async with self._exchange(request, url, trusted) as response:
                target = self._redirect(request, response)
                if target is None:
                    yield response
                    return
                url = target
        raise RegistryProtocolError(
            f"it redirected more than {MAX_REDIRECTS} times",
            host=self.registry,
            operation=request.operation,
        )

    def _redirect(self, request: Request, response: aiohttp.ClientResponse) -> URL | None:
        """Return where the answer sends the request, None where it is not to be followed."""
        location = response.headers.get("Location")
        if response.status not in _REDIRECTS or location is None or not request.follows_redirects:
            return None
        if response.status not in _KEEPING_METHOD and request.method not in _SAFE:
            return None
        try:
            return resolve_location(response.url, location)
        except InvalidLocationError as error:
            raise RegistryProtocolError(
                str(error), host=self.registry, operation=request.operation
            ) from error

    @asynccontextmanager
    async def _exchange(
        self, request: Request, url: URL, authorization: str | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send the request to `url` once and open the answer, whatever it is."""
        headers = dict(request.headers)
        if authorization is not None:
            headers["Authorization"] = authorization
        async with AsyncExitStack() as stack:
            with http_errors(self.registry, request.operation):
                async with asyncio.timeout(CONNECT_S + request.idle_s) as deadline:
                    body: bytes | _Outgoing | None
                    if callable(request.content):
                        stream = await stack.enter_async_context(request.content())
                        body = _Outgoing(stream, deadline, request.idle_s)
                        stack.push_async_callback(body.close)
                    else:
                        body = request.content
                    response = await stack.enter_async_context(
                        self._session.request(
                            request.method,
                            url,
                            headers=headers,
                            data=body,
                            allow_redirects=False,
                            proxy=self.settings.proxy,
                            timeout=aiohttp.ClientTimeout(
                                total=None, connect=CONNECT_S, sock_read=request.idle_s
                            ),
                        )
                    )
            yield response

    async def _check(self, request: Request, response: aiohttp.ClientResponse) -> None:
        """Raise the error that the answer stands for, if it is one."""
        content_type = response.headers.get("Content-Type", "")
        good = 200 <= response.status < 300
        if response.status in request.accept and not good:
            return
        # A blob's storage may call it what it likes; a registry's own answers are never HTML.
        web_page = "text/html" in content_type.lower() and same_origin(response.url, self.origin)
        if good and not web_page:
            return
        body = await self._read_at_most(response, request.operation, MAX_ERROR_BYTES)
        if good:
            page = "; ".join(map(str, parse_error_body(body, content_type)))
            raise html_error(page, host=self.registry, operation=request.operation)
        raise response_error(
            response.status,
            body,
            content_type=content_type,
            retry_after_s=parse_retry_after(
                response.headers.get("Retry-After"), now=datetime.now(UTC)
            ),
            host=self.registry,
            operation=request.operation,
        )


class _Outgoing:
    """The body of a request on its way out, which moves the deadline with every chunk.

    The HTTP library reads it in a task of its own, and leaves that task to its fate when the
    request ends early; `close` waits until it no longer reads, so that the source can be closed.
    """

    def __init__(self, stream: ByteStream, deadline: asyncio.Timeout, idle_s: float) -> None:
        self._stream = stream
        self._deadline = deadline
        self._idle_s = idle_s
        self._reading = asyncio.Lock()
        self._closed = False

    def __aiter__(self) -> "_Outgoing":
        return self

    async def __anext__(self) -> Chunk:
        async with self._reading:
            if self._closed:
                # Ending here would make a short body look complete, and its connection reusable.
                raise ConnectionAbortedError("the request has ended")
            self._postpone()
            chunk = await anext(self._stream)
            self._postpone()
            return chunk

    async def close(self) -> None:
        """Give nothing more; returns when nothing is being read."""
        async with self._reading:
            self._closed = True

    def _postpone(self) -> None:
        # A deadline that is over cannot be moved: the answer came before the whole body was sent.
        with suppress(RuntimeError):
            self._deadline.reschedule(asyncio.get_running_loop().time() + self._idle_s)


def tls_context(registry: str, settings: RegistrySettings) -> ssl.SSLContext:
    """Return the TLS settings; reads files. Raises `RegistryTlsError`, which names the file."""
    context = ssl.create_default_context()
    path = settings.ca_file
    try:
        if settings.ca_file is not None:
            context.load_verify_locations(settings.ca_file)
        path = settings.client_cert
        if settings.client_cert is not None:
            # Without a password here OpenSSL would ask for one on the daemon's terminal.
            key = settings.client_key or settings.client_cert
            warn_if_exposed(key, key.stat().st_mode)
            context.load_cert_chain(settings.client_cert, settings.client_key, password="")
    except OSError as error:
        raise RegistryTlsError(
            f"{path} cannot be used: {error.strerror or error}",
            host=registry,
            operation="prepare TLS",
            hint="ca_file and client_cert are PEM files; a client_key must have no password",
        ) from error
    return context
