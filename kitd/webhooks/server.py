"""The listener for deliveries: bodies within bounds, answers as HTTP.

A sender is a stranger until its secret was compared, and that takes its whole body. So bodies are
bounded one by one, in time and all together.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import structlog
from aiohttp import web

from kitd.config.address import TcpAddress
from kitd.listener import Bounds, listening
from kitd.webhooks import answer
from kitd.webhooks.answer import Answer
from kitd.webhooks.delivery import Delivery
from kitd.webhooks.format import MIB
from kitd.webhooks.receiver import Receiver

BOUNDS = Bounds(
    connections=64,
    keepalive_s=15.0,
    read_bytes=1 << 16,
    retry_after_s=answer.RETRY_AFTER_S,
    linger_s=1.0,
    drain_s=2.0,
    close_s=0.5,
)
_PATHS = ("/hooks/{source}", "/hooks/{source}/{secret:.+}")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyBounds:
    """How slow a body may come, and how many bytes of all of them are held at once."""

    idle_s: float = 10.0
    total_s: float = 30.0
    held_bytes: int = 64 * MIB


class _Refused(Exception):  # noqa: N818 - an answer, and no error
    def __init__(self, refusal: Answer) -> None:
        self.refusal = refusal


class WebhookServer:
    """Deliveries by HTTP, for one receiver. `answers` counts by class of status."""

    def __init__(
        self,
        receiver: Receiver,
        bodies: BodyBounds | None = None,
        answers: Counter[str] | None = None,
    ) -> None:
        self._receiver = receiver
        self._answers = answers
        self._bodies = bodies or BodyBounds()
        self._held_bytes = 0
        self.verdicts: Counter[tuple[str, str]] = Counter()
        """Of all requests since the start, by source; the source is empty where there is none."""

    @asynccontextmanager
    async def listen(self, place: TcpAddress | socket.socket) -> AsyncIterator[socket.socket]:
        """Answer until the context is left; gives a socket that listens. Raises `ListenError`."""
        application = web.Application()
        for path in _PATHS:
            application.router.add_post(path, self._answer)
            application.router.add_options(path, self._answer)
        async with listening(
            application, place, BOUNDS, option="webhooks.listen", answers=self._answers
        ) as server:
            yield server

    async def _answer(self, request: web.Request) -> web.Response:
        source = request.match_info["source"]
        try:
            given = await self._receive(request)
        except Exception:
            # The boundary: a defect must not end the server.
            log.exception("webhook.failed", source=source[:64])
            return _response(answer.BUSY)
        # Strangers must not make up names to be counted by.
        self.verdicts["" if given is answer.UNKNOWN else source, given.verdict] += 1
        return _response(given)

    async def _receive(self, request: web.Request) -> Answer:
        source = request.match_info["source"]
        with self._room() as take:
            try:
                body = await self._read(request, self._receiver.max_bytes(source), take)
            except _Refused as refused:
                return self._receiver.refuse_body(source, refused.refusal)
            delivery = Delivery(
                method=request.method,
                headers=_headers(request),
                body=body,
                received_us=self._receiver.now_us(),
                path_secret=request.match_info.get("secret"),
            )
            return await self._receiver.receive(source, delivery)

    @contextmanager
    def _room(self) -> Iterator[Callable[[int], None]]:
        """Give what takes room for bytes of a body, which is given back at the end."""
        taken_bytes = 0

        def take(count: int) -> None:
            nonlocal taken_bytes
            if self._held_bytes + count > self._bodies.held_bytes:
                raise _Refused(answer.CROWDED)
            self._held_bytes += count
            taken_bytes += count

        try:
            yield take
        finally:
            self._held_bytes -= taken_bytes

    async def _read(
        self, request: web.Request, max_bytes: int, take: Callable[[int], None]
    ) -> bytes:
        """Return the whole body, of which nothing was decompressed. Raises `_Refused`."""
        if (request.content_length or 0) > max_bytes:
            raise _Refused(answer.TOO_LARGE)
        pieces: list[bytes] = []
        left_bytes = max_bytes
        try:
            async with asyncio.timeout(self._bodies.total_s):
                while True:
                    async with asyncio.timeout(self._bodies.idle_s):
                        data = await request.content.readany()
                    if not data:
                        return b"".join(pieces)
                    if len(data) > left_bytes:
                        raise _Refused(answer.TOO_LARGE)
                    take(len(data))
                    pieces.append(data)
                    left_bytes -= len(data)
        except TimeoutError:
            raise _Refused(answer.TOO_SLOW) from None
        except (ConnectionError, web.RequestPayloadError):
            raise _Refused(answer.BROKEN_OFF) from None


def _headers(request: web.Request) -> dict[str, str]:
    """Return the headers by lower-case name; of one that comes twice the first."""
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers.setdefault(name.lower(), value)
    return headers


def _response(given: Answer) -> web.Response:
    response = web.Response(status=given.status, headers=given.headers, body=given.body)
    if given.closes:
        response.force_close()
    return response
