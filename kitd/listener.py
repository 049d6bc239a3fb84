"""An HTTP listener: from a socket that answers to a stop that breaks off no request."""

import asyncio
import logging
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from kitd.config.address import TcpAddress
from kitd.errors import KitdError

TCP_USER_TIMEOUT = 18
"""From <linux/tcp.h>; `socket` has it under this name on Linux only."""
MAX_TURNED_AWAY = 32
TURNED_AWAY_S = 1.0
"""How long one that there is no place for gets to take its answer."""


class ListenError(KitdError):
    """An address cannot be listened on."""

    code = "cannot_listen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What clients may take, and how long."""

    connections: int
    """At once. Each takes a descriptor, which all of kitd has to share."""
    keepalive_s: float
    """How long a connection may be there without a whole request head."""
    read_bytes: int
    """Received bytes that wait for their handler, per connection."""
    retry_after_s: int = 5
    """When those are told to come again that there is no place for."""
    unread_s: float = 30.0
    """Who reads no answers for so long loses his connection, and leaves his place to others."""
    linger_s: float = 10.0
    """How long the rest of a body is read and dropped after its answer, so that it arrives."""
    drain_s: float = 5.0
    """What requests under way get to end by themselves at a stop."""
    close_s: float = 1.0
    """What is left of them gets to notice that it is over."""
    idle_s: float | None = None
    """Where all places are taken, the connection that has been idle for longest, and for this time,
    leaves its own to who comes next; with None it stays."""


class _OwnFaults(logging.Filter):
    """Keeps out of the log what is wrong with a request: its client is told, others need not be."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record of aiohttp's tells of more than bytes that are not HTTP."""
        return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


_aiohttp_log = logging.getLogger("aiohttp.server")
_aiohttp_log.addFilter(_OwnFaults())


class _Traffic:
    """Counts the requests under way, so that a stop can wait for them.

    aiohttp waits as well, but drops what still arrives meanwhile, and with it every upload.
    """

    def __init__(self, answers: Counter[str]) -> None:
        self._answers = answers
        self.busy: set[web.RequestHandler] = set()
        """The connections whose requests are under way."""
        self.rests: Callable[[web.RequestHandler], object] = lambda _: None
        """Is told which connection has nothing under way any more."""
        self._under_way = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    @web.middleware
    async def count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Handle a request, counted."""
        self._under_way += 1
        self._quiet.clear()
        self.busy.add(request.protocol)
        try:
            response = await handler(request)
        except web.HTTPException as refused:
            self._answers[_class_of(refused.status)] += 1
            raise
        except ConnectionError:
            # Nobody is there any more, and what he was sent until then was right.
            raise
        except Exception:
            # A defect, which is answered with a 500.
            self._answers["5xx"] += 1
            raise
        else:
            self._answers[_class_of(response.status)] += 1
            return response
        finally:
            self.busy.discard(request.protocol)
            self.rests(request.protocol)
            self._under_way -= 1
            if self._under_way == 0:
                self._quiet.set()

    async def drain(self, timeout_s: float) -> None:
        """Wait until no request is under way, or `timeout_s` have passed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._quiet.wait()


def _class_of(status: int) -> str:
    return f"{status // 100}xx"


class _Door:
    """Lets in as many connections as there are places, and tells others to come again.

    Of those, too, there are so many at once and no more; what is beyond them just ends.
    """

    def __init__(
        self, requests: web.Server, bounds: Bounds, answers: Counter[str], traffic: _Traffic
    ) -> None:
        self._requests = requests
        self._answers = answers
        self._traffic = traffic
        self._places = bounds.connections
        self._entering = 0
        self._idle_s = bounds.idle_s
        self._idle: dict[web.RequestHandler, float] = {}
        """Since when connections have no request under way, the longest first."""
        self._leaving: set[web.RequestHandler] = set()
        traffic.rests = self._rest
        self._crowded = (
            "HTTP/1.1 503 Service Unavailable\r\nServer: kitd\r\nConnection: close\r\n"
            f"Retry-After: {bounds.retry_after_s}\r\nContent-Length: 0\r\n\r\n"
        ).encode()
        self._unread_s = bounds.unread_s
        self._unread_bytes: dict[web.RequestHandler, int] = {}
        self._look: asyncio.TimerHandle | None = None
        self.turned_away: set[asyncio.Transport] = set()

    def admit(self) -> asyncio.Protocol:
        """Return what a new connection talks to."""
        if self._is_full() and not self._drop_idle():
            self._answers["5xx"] += 1
            return _TurnedAway(self.turned_away, self._crowded)
        # Up to a hundred are accepted before the first of them is in `connections`; each is by the
        # next turn of the loop.
        self._entering += 1
        asyncio.get_running_loop().call_soon(self._entered)
        handler = self._requests()
        self._rest(handler)
        return handler

    def _entered(self) -> None:
        self._entering -= 1

    def _is_full(self) -> bool:
        self._leaving.intersection_update(self._requests.connections)
        there = len(self._requests.connections) - len(self._leaving) + self._entering
        return there >= self._places

    def _rest(self, handler: web.RequestHandler) -> None:
        if self._idle_s is None:
            return
        now_s = asyncio.get_running_loop().time()
        if len(self._idle) > 2 * self._places:
            there = set(self._requests.connections)
            # Who has just come is there in a moment.
            young_s = now_s - self._idle_s
            self._idle = {
                each: at_s for each, at_s in self._idle.items() if each in there or at_s > young_s
            }
        self._idle.pop(handler, None)
        self._idle[handler] = now_s

    def _drop_idle(self) -> bool:
        """End the connection that has been idle for longest; return whether there was one."""
        if self._idle_s is None:
            return False
        there = self._requests.connections
        before_s = asyncio.get_running_loop().time() - self._idle_s
        # Who has just come or been answered is about to say something.
        idle = [each for each, at_s in self._idle.items() if at_s <= before_s]
        for handler in idle:
            transport = handler.transport
            if handler not in there or handler in self._leaving or transport is None:
                continue
            # Who has not read all of his answer is not idle.
            if handler not in self._traffic.busy and not transport.get_write_buffer_size():
                self._leaving.add(handler)
                handler.force_close()
                return True
        return False

    def watch(self) -> None:
        """End connections whose other end takes no bytes, from now on: where no kernel does."""
        waiting = {}
        for handler in self._requests.connections:
            transport = handler.transport
            if transport is None or not (size_bytes := transport.get_write_buffer_size()):
                continue
            if self._unread_bytes.get(handler) == size_bytes:
                transport.abort()
            waiting[handler] = size_bytes
        self._unread_bytes = waiting
        self._look = asyncio.get_running_loop().call_later(self._unread_s, self.watch)

    def close(self) -> None:
        """End what is left of those that were turned away, and look no more."""
        if self._look is not None:
            self._look.cancel()
        for transport in tuple(self.turned_away):
            transport.abort()


class _TurnedAway(asyncio.Protocol):
    """A connection there is no place for: it gets an answer, and what it sends is dropped.

    To close at once would take the answer away from whoever is still sending (RFC 9112, section
    9.6).
    """

    def __init__(self, crowd: set[asyncio.Transport], answer: bytes) -> None:
        self._crowd = crowd
        self._answer = answer
        self._end: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if len(self._crowd) >= MAX_TURNED_AWAY:
            transport.abort()
            return
        self._crowd.add(transport)
        self._end = asyncio.get_running_loop().call_later(TURNED_AWAY_S, transport.abort)
        transport.write(self._answer)
        transport.write_eof()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - the protocol's
        self._crowd.discard(self._transport)
        if self._end is not None:
            self._end.cancel()


@asynccontextmanager
async def listening(
    application: web.Application,
    place: TcpAddress | socket.socket,
    bounds: Bounds,
    *,
    option: str,
    answers: Counter[str] | None = None,
) -> AsyncIterator[socket.socket]:
    """Serve an application until the context is left; gives a socket that listens.

    A socket that is handed in listens already and stays its owner's. `option` is the key of the
    configuration that named the place, `answers` counts by class of status, `2xx` to `5xx`. Leaving
    stops gracefully: no new connections, then time for the requests under way. Raises
    `ListenError`.
    """
    answers = Counter() if answers is None else answers
    traffic = _Traffic(answers)
    application.middlewares.insert(0, traffic.count)
    application.on_response_prepare.append(_name_server)
    runner = web.AppRunner(
        application,
        access_log=None,
        logger=_aiohttp_log,
        # Digests and signatures are of the bytes on the wire, whatever Content-Encoding says.
        auto_decompress=False,
        keepalive_timeout=bounds.keepalive_s,
        read_bufsize=bounds.read_bytes,
        lingering_time=bounds.linger_s,
        shutdown_timeout=bounds.close_s,
    )
    await runner.setup()
    assert runner.server is not None
    door = _Door(runner.server, bounds, answers, traffic)
    try:
        server = await _start(door, place, option)
        watched = [_is_watched_by_kernel(each, bounds.unread_s) for each in server.sockets]
        if not all(watched):
            door.watch()
        try:
            yield server.sockets[0]
        finally:
            server.close()
            await traffic.drain(bounds.drain_s)
    finally:
        door.close()
        await runner.cleanup()


async def _name_server(_request: web.Request, response: web.StreamResponse) -> None:
    # Which versions of what answer is nobody's business.
    response.headers["Server"] = "kitd"


def _is_watched_by_kernel(listener: socket.socket, unread_s: float) -> bool:
    """Have the kernel end connections whose other end takes no bytes for so long, if it can.

    It can for TCP on Linux (tcp(7)); those that are accepted have the options of their listener.
    """
    if sys.platform != "linux" or listener.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    listener.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, int(unread_s * 1000))
    return True


async def _start(door: _Door, place: TcpAddress | socket.socket, option: str) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    if isinstance(place, socket.socket):
        # A copy, because the server closes what it was given.
        return await loop.create_server(door.admit, sock=place.dup())
    try:
        return await loop.create_server(door.admit, place.host, place.port)
    except OSError as error:
        raise ListenError(
            f"cannot listen on {place}: {error.strerror or error}",
            hint=f"choose another address for {option}",
        ) from error
