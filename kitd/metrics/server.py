"""The listener for those who watch over kitd: `/metrics`, `/healthz` and `/readyz`."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from kitd.config.address import TcpAddress
from kitd.listener import Bounds, listening
from kitd.metrics.exposition import Family, Format, expose
from kitd.metrics.health import Readiness
from kitd.metrics.negotiation import format_for, wants_json

BOUNDS = Bounds(
    connections=32,
    # Longer than the minute between two scrapes.
    keepalive_s=75.0,
    read_bytes=1 << 14,
    unread_s=10.0,
    linger_s=1.0,
    drain_s=0.2,
    close_s=0.1,
    # Whoever opens connections and says nothing must not keep a probe away.
    idle_s=0.5,
)
FRESH_S = 1.0
"""Scrapes that are not further apart share their numbers."""
_BODIES_BYTES = 1 << 10
"""Nobody has anything to send here."""

Gather = Callable[[], Awaitable[Sequence[Family]]]


@dataclass(slots=True)
class _Page:
    """What was gathered, and how it reads in the formats that were asked for."""

    families: asyncio.Task[Sequence[Family]]
    asked_s: float
    texts: dict[Format, bytes]


class MetricsServer:
    """Answers scrapes and probes. `answers` counts by class of status."""

    def __init__(
        self, gather: Gather, readiness: Readiness, answers: Counter[str] | None = None
    ) -> None:
        self._gather = gather
        self._readiness = readiness
        self._answers = answers
        self._page: _Page | None = None

    @asynccontextmanager
    async def listen(self, place: TcpAddress) -> AsyncIterator[TcpAddress]:
        """Answer until the context is left; gives the address, with the port that 0 became.

        Raises `ListenError`.
        """
        application = web.Application(client_max_size=_BODIES_BYTES)
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/healthz", self._alive)
        application.router.add_get("/readyz", self._ready)
        try:
            async with listening(
                application, place, BOUNDS, option="metrics.listen", answers=self._answers
            ) as listener:
                host, port = listener.getsockname()[:2]
                yield TcpAddress(host, port)
        finally:
            if self._page is not None:
                self._page.families.cancel()

    async def _metrics(self, request: web.Request) -> web.Response:
        form = format_for(_accept(request))
        text = await self._text(form)
        return web.Response(body=text, headers={"Content-Type": form.value})

    async def _text(self, form: Format) -> bytes:
        now_s = asyncio.get_running_loop().time()
        page = self._page
        if page is None or (page.families.done() and now_s - page.asked_s >= FRESH_S):
            gathering = asyncio.create_task(self._gathered(), name="gather metrics")
            page = self._page = _Page(gathering, now_s, {})
        # Whoever hangs up takes nobody else's numbers away.
        families = await asyncio.shield(page.families)
        if form not in page.texts:
            page.texts[form] = expose(families, form)
        return page.texts[form]

    async def _gathered(self) -> Sequence[Family]:
        return await self._gather()

    async def _alive(self, request: web.Request) -> web.Response:
        # That this is answered is the answer.
        return _said(request, 200, "ok", {})

    async def _ready(self, request: web.Request) -> web.Response:
        verdict = await self._readiness.judge()
        return _said(
            request,
            200 if verdict.is_ready else 503,
            verdict.state,
            dict(sorted(verdict.reasons.items())),
        )


def _accept(request: web.Request) -> str:
    # Several lines are one list (RFC 9110, section 5.3).
    return ",".join(request.headers.getall("Accept", ()))


def _said(request: web.Request, status: int, state: str, reasons: dict[str, int]) -> web.Response:
    headers = {"Cache-Control": "no-store"}
    if wants_json(_accept(request)):
        text = json.dumps({"state": state, "reasons": reasons})
        return web.Response(
            status=status, text=f"{text}\n", content_type="application/json", headers=headers
        )
    lines = [state, *(f"{code} {count}" for code, count in reasons.items())]
    return web.Response(status=status, text="".join(f"{line}\n" for line in lines), headers=headers)
