"""Sending requests to one registry: connections, credentials, redirects, patience, clear errors.

Knows HTTP and nothing of repositories. Patience here is for the hiccup inside one attempt; who
comes back in minutes is the queue's business. Every request waits until its host admits it.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

import aiohttp
from yarl import URL

from kitd import __version__
from kitd.content.store import CHUNK_BYTES
from kitd.oci.registry_error import MAX_ERROR_BYTES, parse_error_body
from kitd.registry.admission import Admissions, Settle
from kitd.registry.auth.authenticator import Authenticator
from kitd.registry.auth.bearer import MAX_ANSWER_BYTES
from kitd.registry.auth.scheme import Site
from kitd.registry.auth.scope import Scope
from kitd.registry.credentials import Credential, RegistryToken, find_credential
from kitd.registry.errors import (
    RegistryError,
    RegistryProtocolError,
    RegistryProxyError,
    RegistryTimeoutError,
    RegistryUnreachableError,
    closed_error,
    html_error,
    http_errors,
    response_error,
)
from kitd.registry.governor import Closed, Lane, Outcome
from kitd.registry.location import InvalidLocationError, resolve_location, same_origin
from kitd.registry.outgoing import Outgoing, Unrepeated
from kitd.registry.proxy import InvalidProxyError, proxy_for
from kitd.registry.quota import Quota, read_quota
from kitd.registry.request import Request
from kitd.registry.retry import NO_ANSWER, SILENCE, TRIES, delay_s, is_passing, outcome_of
from kitd.registry.settings import RegistrySettings, origin_of
from kitd.registry.tls import tls_context
from kitd.registry.traffic import Traffic
from kitd.retry_after import parse_retry_after
from kitd.secret import Secrets

CONNECT_S = 10.0
DOCUMENT_S = 300.0
"""How long a document of a few megabytes may take; it bounds a peer that sends byte by byte."""
MAX_REDIRECTS = 5

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEPING_METHOD = frozenset({307, 308})
_SAFE = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the daemon gives to every transport; tests give something faster."""

    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Where the docker credentials of the user are found, and the helpers on the PATH."""
    secrets: Secrets = field(default_factory=Secrets)
    """Is told what is sent as a proof of who kitd is, and keeps it out of errors."""
    admissions: Admissions = field(default_factory=Admissions)
    """The budgets of the hosts: all transports share them."""
    traffic: Traffic = field(default_factory=Traffic)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class _NoAnswerError(Exception):
    """`url` gave no answer; `error` is what is raised if the request is not sent again."""

    def __init__(self, error: RegistryError, url: URL) -> None:
        super().__init__(str(error))
        self.error = error
        self.url = url


class _ForbiddenError(Exception):
    """The host wants no requests any more, since it admitted this one, which was not sent."""


class _Prepared:
    """A login that is nothing but one header, as a token server wants it."""

    def __init__(self, header: str | None) -> None:
        self._header = header

    async def authorization(self, _scopes: tuple[Scope, ...], /) -> str | None:
        return self._header

    async def answer(
        self, _headers: Iterable[str], _scopes: tuple[Scope, ...], _authorization: str | None, /
    ) -> str | None:
        return None


@dataclass(frozen=True, slots=True)
class _Errand:
    """A request and how it is to be sent."""

    request: Request
    lane: Lane
    login: Authenticator | _Prepared
    home: URL
    """Only this origin is told who kitd is: storage services refuse to be, strangers must not."""


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
        self._quota: tuple[Quota, float] | None = None
        self.original: str | None = None
        """The registry whose content is asked for, where that is another one: a mirror's is."""
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
        # Not to be waited for when cancelled: it may hang, and leaves nothing behind.
        tls = await asyncio.to_thread(tls_context, registry, settings, surroundings.environment)
        session = aiohttp.ClientSession(
            # How many requests run at once is the governors' decision. A limit here could make a
            # download wait for the very upload that it feeds.
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

    def note_received(self, count: int) -> None:
        """Count bytes of a blob that came."""
        self._surroundings.traffic.received(self.registry, count)

    async def pause(self, delay_s: float) -> None:
        """Wait between two requests of which the second depends on what became of the first."""
        await self._surroundings.sleep(delay_s)

    def asking_for(self, registry: str) -> "Transport":
        """Return the same transport, to ask a mirror for what another registry has.

        Every request says which one, as mirrors of several registries want it.
        """
        twin = copy(self)
        twin.original = registry
        return twin

    def quota(self) -> Quota | None:
        """Return what the registry last said of its quota of pulls, if it is still about now."""
        if self._quota is None:
            return None
        quota, heard_s = self._quota
        return quota if self._surroundings.clock() - heard_s < quota.window_s else None

    def _note_quota(self, response: aiohttp.ClientResponse) -> None:
        quota = read_quota(response.headers)
        if quota is not None:
            self._quota = (quota, self._surroundings.clock())

    def url(self, path: str) -> URL:
        """Return the URL of a path below `/v2/`, made of names and digests that were checked."""
        url = URL(f"{self.origin}/v2/{path}", encoded=True)
        return url if self.original is None else url.update_query(ns=self.original)

    @asynccontextmanager
    async def send(self, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and open the answer: a 2xx or one of `request.accept`.

        Raises `RegistryError` for every other answer and for none, and what the request's body
        raised.
        """
        if self.original is not None:
            # There is somebody else to ask.
            request = replace(request, patient=False)
        errand = _Errand(request, request.lane, self._authenticator, self.origin)
        # A registry may quote in its answer what it was sent.
        with self._surroundings.secrets.redacted():
            async with AsyncExitStack() as stack:
                response = await self._patiently(stack, errand)
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
            username = None if isinstance(credential, RegistryToken) else credential.username
            self._surroundings.secrets.learn(credential.secret, username=username)
        return credential

    async def _fetch(self, request: Request, authorization: str | None) -> bytes | None:
        """Send a request for a token; return None for a status that it accepts beside 2xx."""
        errand = _Errand(request, Lane.TOKEN, _Prepared(authorization), request.url)
        async with AsyncExitStack() as stack:
            response = await self._patiently(stack, errand)
            await self._check(request, response)
            if response.status in request.accept:
                return None
            return await self.read(
                response, operation=request.operation, max_bytes=MAX_ANSWER_BYTES
            )

    async def _patiently(self, stack: AsyncExitStack, errand: _Errand) -> aiohttp.ClientResponse:
        """Open the answer on `stack`; send again what may be and may get a better one."""
        request, tries = errand.request, 0
        most = TRIES if request.patient else 1
        while True:
            tries += 1
            try:
                response = await stack.enter_async_context(self._follow(errand))
            except _NoAnswerError as lost:
                if tries == most or not self._is_passing(request, None, lost.url):
                    raise lost.error from lost.error.__cause__
            else:
                if tries == most or not self._is_passing(request, response.status, response.url):
                    return response
                await stack.aclose()
            self._surroundings.traffic.retried(self.registry)
            await self._surroundings.sleep(delay_s(tries, self._random.random()))

    def _is_passing(self, request: Request, status: int | None, url: URL) -> bool:
        closed = self._surroundings.admissions.closed_at(url.origin())
        return is_passing(status, closed, repeatable=request.repeatable)

    @asynccontextmanager
    async def _follow(self, errand: _Errand) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open the answer at the end of the redirects."""
        url = errand.request.url
        for _ in range(MAX_REDIRECTS + 1):
            async with self._visit(errand, url) as response:
                target = self._redirect(errand.request, response)
                if target is None:
                    yield response
                    return
                url = target
        raise RegistryProtocolError(
            f"it redirected more than {MAX_REDIRECTS} times",
            host=self.registry,
            operation=errand.request.operation,
        )

    @asynccontextmanager
    async def _visit(self, errand: _Errand, url: URL) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send the request to one host, once that admits it, and open the answer, whatever it is.

        The place at the host is held until the answer is closed, and while a login is renewed.
        """
        async with AsyncExitStack() as place:
            response, settle = await self._admitted(place, errand, url)
            try:
                yield response
            except (RegistryTimeoutError, RegistryUnreachableError) as error:
                # What is read from here may go on to another host, whose troubles are its own.
                if error.host == self.registry:
                    settle(_silence(error))
                raise

    async def _admitted(
        self, place: AsyncExitStack, errand: _Errand, url: URL
    ) -> tuple[aiohttp.ClientResponse, Settle]:
        """Open a place at the host on `place`, and there the answer."""
        request = errand.request

        def refusal(closed: Closed) -> RegistryError:
            site = url.authority
            return closed_error(closed, site, host=self.registry, operation=request.operation)

        while True:
            settle = await place.enter_async_context(
                self._surroundings.admissions.slot(
                    url.origin(), errand.lane, refusal=refusal, patient=request.patient
                )
            )
            stack = await place.enter_async_context(AsyncExitStack())
            try:
                return await self._answer(stack, errand, url, settle), settle
            except _ForbiddenError:
                # Back to the end of the line.
                await place.aclose()

    async def _answer(
        self, stack: AsyncExitStack, errand: _Errand, url: URL, settle: Settle
    ) -> aiohttp.ClientResponse:
        """Send the request, once more if that asks for a login, and open the answer on `stack`.

        Raises what `_exchange` does.
        """
        request = errand.request
        login = errand.login if same_origin(url, errand.home) else _Prepared(None)
        # Not before: a wait may be longer than the life of a token.
        authorization = await login.authorization(request.scopes)
        response = await self._exchange(stack, request, url, authorization, settle)
        if response.status == 401:
            challenges = response.headers.getall("WWW-Authenticate", ())
            answer = await login.answer(challenges, request.scopes, authorization)
            if answer is not None:
                await stack.aclose()
                response = await self._exchange(stack, request, url, answer, settle)
        settle(outcome_of(response.status, _retry_after_s(response)))
        if same_origin(url, errand.home):
            self._note_quota(response)
        return response

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

    async def _exchange(
        self,
        stack: AsyncExitStack,
        request: Request,
        url: URL,
        authorization: str | None,
        settle: Settle,
    ) -> aiohttp.ClientResponse:
        """Send the request to `url` once and open the answer on `stack`, whatever it is.

        Raises `_NoAnswerError` where there is none, `_ForbiddenError`, and what the request's body
        raises.
        """
        headers = dict(request.headers)
        if authorization is not None:
            self._surroundings.secrets.learn(authorization.partition(" ")[2])
            headers["Authorization"] = authorization
        body: bytes | Unrepeated | Outgoing | None
        traffic = self._surroundings.traffic
        if callable(request.content):
            # Before the deadline begins, because it may have to wait for its turn.
            stream = await stack.enter_async_context(request.content())
            body = Outgoing(stream, request.idle_s, partial(traffic.sent, self.registry))
            stack.push_async_callback(body.finish)
        elif isinstance(request.content, bytes) and not request.repeatable:
            body = Unrepeated(request.content)
        else:
            body = request.content
        # A token and the source of a body may have taken long since the host admitted the request.
        if self._surroundings.admissions.is_forbidden(url.origin()):
            raise _ForbiddenError
        try:
            with http_errors(self.registry, request.operation):
                async with asyncio.timeout(CONNECT_S + request.idle_s) as deadline:
                    if isinstance(body, Outgoing):
                        body.deadline = deadline
                    response = await stack.enter_async_context(
                        self._session.request(
                            request.method,
                            url,
                            headers=headers,
                            data=body,
                            allow_redirects=False,
                            proxy=self._proxy(request, url),
                            timeout=aiohttp.ClientTimeout(
                                total=None, connect=CONNECT_S, sock_read=request.idle_s
                            ),
                        )
                    )
        except (RegistryTimeoutError, RegistryUnreachableError) as error:
            if isinstance(body, Outgoing) and body.caused(error):
                raise
            traffic.answered(self.registry, None)
            settle(_silence(error))
            raise _NoAnswerError(error, url) from error
        traffic.answered(self.registry, response.status)
        if isinstance(request.content, bytes):
            traffic.sent(self.registry, len(request.content))
        return response

    def _proxy(self, request: Request, url: URL) -> URL | None:
        """Return what a request to `url` goes through: as configured, else as the environment says.

        Raises `RegistryProxyError`.
        """
        if self.settings.proxy is not None:
            return URL(self.settings.proxy)
        try:
            proxy = proxy_for(url, self._surroundings.environment)
        except InvalidProxyError as error:
            raise RegistryProxyError(
                str(error),
                host=self.registry,
                operation=request.operation,
                hint="write it like http://proxy.example.com:3128, or except the host in NO_PROXY",
            ) from error
        if proxy is not None and proxy.password:
            self._surroundings.secrets.learn(proxy.password, username=proxy.user)
        return proxy

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
            if not body and request.method != "HEAD":
                # Web frameworks call nothing a page, too.
                return
            page = "; ".join(map(str, parse_error_body(body, content_type)))
            raise html_error(page, host=self.registry, operation=request.operation)
        raise response_error(
            response.status,
            body,
            content_type=content_type,
            retry_after_s=_retry_after_s(response),
            host=self.registry,
            operation=request.operation,
        )


def _silence(error: RegistryError) -> Outcome:
    """Return what it says of a host that it gave no answer, or broke off in the middle of one."""
    return SILENCE if isinstance(error, RegistryTimeoutError) else NO_ANSWER


def _retry_after_s(response: aiohttp.ClientResponse) -> float | None:
    value = response.headers.get("Retry-After")
    return None if value is None else parse_retry_after(value, now=datetime.now(UTC))
