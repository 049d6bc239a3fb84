"""From a delivery to its answer: whose it is, whether it is his, and what it says.

The order is that of the costs: nothing is believed, parsed or kept before the secret was compared,
and nothing is answered with 2xx that is not in the ledger.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

import structlog

from kitd.blocking import run_blocking
from kitd.clock import Clock
from kitd.errors import KitdError
from kitd.secret import Secrets
from kitd.webhooks import answer
from kitd.webhooks.answer import Answer
from kitd.webhooks.delivery import Delivery, Handshake
from kitd.webhooks.format import MIB, Format
from kitd.webhooks.judgement import DeliveryState, Verdict, judge, name_of
from kitd.webhooks.refusal import TELL_EVERY_S, Refusals
from kitd.webhooks.secret_file import SecretFiles, WebhookSecretError
from kitd.webhooks.source import Source

THREAD_OVER_BYTES = 64 << 10
"""Larger bodies are hashed and read in a thread."""
UNKNOWN_MAX_BYTES = MIB
"""What is read of a body that is for nobody: as much as most senders may send."""
KEEP_S = 0.8
"""What the ledger gets to keep a delivery. The least patient senders wait for a second."""

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Known:
    """An authentic delivery: whose it is, what he calls it and what it comes to."""

    source: Source
    name: str | None
    delivery: Delivery
    verdict: Verdict


class Desk(Protocol):
    """Who the senders are, where deliveries are kept: see `kitd.daemon.delivery_desk`."""

    @property
    def refusals(self) -> Refusals:
        """Where refused deliveries are counted."""
        ...

    def find(self, name: str) -> Source | None:
        """Return the sender of a name; None where there is none."""
        ...

    async def keep(self, known: Known) -> bool:
        """Keep a delivery and ask for its jobs, durably; return whether it was kept before.

        Raises `KitdError` where it is not known to be kept.
        """
        ...

    async def tell_refused(self, source: str, count: int) -> None:
        """Tell that so many deliveries were refused."""
        ...


class Receiver:
    """Answers deliveries. Belongs to one event loop."""

    def __init__(
        self,
        desk: Desk,
        clock: Clock,
        learned: Secrets,
    ) -> None:
        self._find = desk.find
        self._desk = desk
        self._clock = clock
        self._learned = learned
        self._files = SecretFiles()
        self._complained_s: dict[tuple[str, str], float] = {}

    def max_bytes(self, name: str) -> int:
        """Return the largest body that a source of this name may send, there or not."""
        source = self._find(name)
        return UNKNOWN_MAX_BYTES if source is None else source.form.max_bytes

    def now_us(self) -> int:
        """Return what a delivery that comes now is dated."""
        return self._clock.now_us()

    def refuse_body(self, name: str, refusal: Answer) -> Answer:
        """Return the answer to a body that was not read to its end.

        It is in the log now and then: a sender that goes on with it would otherwise just be silent.
        """
        if self._find(name) is None:
            self._desk.refusals.unknown += 1
            return answer.UNKNOWN
        self._complain("webhook.body_refused", name, f"answered with HTTP {refusal.status}")
        return refusal

    async def receive(self, name: str, delivery: Delivery) -> Answer:
        """Return the answer to a delivery for the source of this name. Raises nothing."""
        source = self._find(name)
        if source is None:
            self._desk.refusals.unknown += 1
            return answer.UNKNOWN
        try:
            secret = await self._files.read(source.secret_file)
        except WebhookSecretError as error:
            self._complain("webhook.secret_unusable", name, error.message)
            return answer.BUSY
        self._learned.learn(secret.decode("utf-8", "replace"))
        if not await self._is_authentic(source, delivery, secret):
            await self._note_refusal(name)
            return answer.REFUSED
        return await self._take(source, delivery)

    async def _is_authentic(self, source: Source, delivery: Delivery, secret: bytes) -> bool:
        try:
            return await _run(delivery, source.form.is_authentic, delivery, secret)
        except Exception:
            # The boundary: a defect must let nobody in.
            log.exception("webhook.format_failed", source=source.name)
            return False

    async def _take(self, source: Source, delivery: Delivery) -> Answer:
        try:
            found, name = await _run(delivery, _read, source.form, delivery)
        except Exception:
            # The boundary: a sender could send it again for ever.
            log.exception("webhook.format_failed", source=source.name)
            reason = "kitd failed to read it; its log says why"
            found, name = Verdict(DeliveryState.MALFORMED, reason=reason), None
        if isinstance(found, Handshake):
            return answer.answer_handshake(found)
        if delivery.method == "OPTIONS":
            return answer.NO_HANDSHAKE
        known = Known(source, name, delivery, found)
        try:
            async with asyncio.timeout(KEEP_S):
                is_duplicate = await self._desk.keep(known)
        except TimeoutError:
            # Where it is written all the same, the sender's next try is the duplicate.
            self._complain("webhook.not_kept", source.name, "the ledger takes too long")
            return answer.BUSY
        except KitdError as error:
            self._complain("webhook.not_kept", source.name, error.message)
            return answer.BUSY
        return answer.DUPLICATE if is_duplicate else answer.answer_taken(found.state)

    def _complain(self, event: str, source: str, reason: str) -> None:
        """Log what goes wrong now and then: senders must not fill a disk with it."""
        now_s, key = self._clock.monotonic_s(), (event, source)
        if now_s - self._complained_s.get(key, -TELL_EVERY_S) >= TELL_EVERY_S:
            self._complained_s[key] = now_s
            log.warning(event, source=source, reason=reason)

    async def _note_refusal(self, name: str) -> None:
        count = self._desk.refusals.note(name, self._clock.monotonic_s())
        if count is None:
            return
        log.warning("webhook.refused", source=name, count=count)
        try:
            async with asyncio.timeout(KEEP_S):
                await self._desk.tell_refused(name, count)
        except (TimeoutError, KitdError) as error:
            log.warning("webhook.refusal_not_noted", source=name, reason=str(error))


def _read(form: Format, delivery: Delivery) -> tuple[Verdict | Handshake, str | None]:
    return judge(form, delivery), name_of(form, delivery)


async def _run(
    delivery: Delivery, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Return what a function makes of a delivery: in a thread where that takes a while."""
    if len(delivery.body) > THREAD_OVER_BYTES:
        return await run_blocking(function, *args, **kwargs)
    return function(*args, **kwargs)
