"""Deliveries between their receiver and the ledger.

What follows from them is asked here, and what was kept is read again when somebody wants that.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from kitd.blocking import run_blocking, uninterrupted
from kitd.config.model import WebhooksConfig
from kitd.errors import NotFoundError
from kitd.ledger.delivery_ledger import (
    DeliveryFilter,
    DeliveryLedger,
    NewDelivery,
    NotReplayableError,
    Outcome,
    StoredDelivery,
    pack_body,
    unpack_body,
)
from kitd.queue.job import JobRequest
from kitd.webhooks.delivery import Change, Delivery, Handshake
from kitd.webhooks.format import Format
from kitd.webhooks.judgement import (
    DeliveryState,
    fingerprint_of,
    judge,
    kept_headers,
)
from kitd.webhooks.receiver import THREAD_OVER_BYTES, Known
from kitd.webhooks.refusal import Refusals
from kitd.webhooks.source import Source

Follow = Callable[[str, tuple[Change, ...]], Awaitable[Sequence[JobRequest]]]
"""Says which jobs follow from changes in the repositories of a registry."""
Reads = Callable[[str, str], bool]
"""Says whether any mirror reads a repository of a registry."""


class Sources:
    """The senders that the configuration in force names."""

    def __init__(self, config: Callable[[], WebhooksConfig], formats: Mapping[str, Format]) -> None:
        self._config = config
        self._formats = formats

    def find(self, name: str) -> Source | None:
        """Return a sender; None where there is none of this name."""
        found = self._config().sources.get(name)
        if found is None:
            return None
        return Source(
            name=name,
            form=self._formats[found.format],
            registry=found.registry,
            secret_file=found.secret_file,
        )

    def all(self) -> Sequence[Source]:
        """Return all of them, in the order of the file."""
        found = map(self.find, self._config().sources)
        return tuple(source for source in found if source is not None)


class DeliveryDesk:
    """Keeps deliveries, and replays them.

    Implements `kitd.webhooks.receiver.Desk` and `kitd.rpc.methods.services.Webhooks`.
    """

    def __init__(
        self,
        ledger: DeliveryLedger,
        sources: Sources,
        follow: Follow,
        reads: Reads,
        refusals: Refusals,
    ) -> None:
        self._ledger = ledger
        self._sources = sources
        self._follow = follow
        self._reads = reads
        self.refusals = refusals

    async def keep(self, known: Known) -> bool:
        """Keep a delivery and ask for its jobs, durably; return whether it was kept before.

        Raises `KitdError`.
        """
        delivery, verdict = known.delivery, known.verdict
        is_large = len(delivery.body) > THREAD_OVER_BYTES
        new = await run_blocking(_new, known) if is_large else _new(known)
        requests = await self._requests(known.source, verdict.changes)
        reason = verdict.reason or self._idle_reason(known.source, verdict.changes, requests)
        return await self._ledger.keep(replace(new, reason=reason), requests) is None

    async def tell_refused(self, source: str, count: int) -> None:
        """Tell that so many deliveries of a source were refused."""
        await self._ledger.tell_refused(source, count)

    def find(self, name: str) -> Source | None:
        """Return the sender of a name; None where there is none."""
        return self._sources.find(name)

    def sources(self) -> Sequence[Source]:
        """Return the senders that are configured."""
        return self._sources.all()

    async def list(self, wanted: DeliveryFilter) -> Sequence[StoredDelivery]:
        """Return deliveries."""
        return await self._ledger.list(wanted)

    async def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Return by source and state how many deliveries are held."""
        return await self._ledger.counts()

    async def replay(self, delivery: int) -> StoredDelivery:
        """Read a delivery again, with its source's format as it is now, and ask for its jobs.

        Raises `NotFoundError`, `NotReplayableError`.
        """
        return await uninterrupted(self._replay(delivery))

    async def _replay(self, number: int) -> StoredDelivery:
        stored = await self._ledger.get(number)
        source = self._sources.find(stored.source)
        if source is None:
            raise NotFoundError(
                f"the webhook source {stored.source} of delivery {number} is not configured",
                hint="add it to webhooks.sources, and reload",
            )
        letter = await self._ledger.letter(number)
        body = await run_blocking(unpack_body, letter.packed_body)
        delivery = Delivery(
            method="POST",
            headers=letter.headers,
            body=body,
            received_us=letter.received_us,
        )
        found = await run_blocking(judge, source.form, delivery)
        if isinstance(found, Handshake):
            raise NotReplayableError(f"delivery {number} is a handshake by now")
        requests = await self._requests(source, found.changes)
        reason = found.reason or self._idle_reason(source, found.changes, requests)
        outcome = Outcome(found.state, reason, len(found.changes))
        return await self._ledger.replayed(number, outcome, requests)

    async def _requests(self, source: Source, changes: tuple[Change, ...]) -> Sequence[JobRequest]:
        return await self._follow(source.registry, changes) if changes else ()

    def _idle_reason(
        self, source: Source, changes: tuple[Change, ...], requests: Sequence[JobRequest]
    ) -> str | None:
        """Return why nothing follows from changes; None where something does."""
        if requests:
            return None
        if not changes:
            return "it tells of no change"
        if any(self._reads(source.registry, change.repository) for change in changes):
            return "both ends of the mirror have it already, or it names no tag"
        more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
        return f"no mirror reads {source.registry}/{changes[0].repository}{more}"


def _new(known: Known) -> NewDelivery:
    source, delivery, verdict = known.source, known.delivery, known.verdict
    # What there is nothing to act on is not read again.
    is_kept = verdict.state is not DeliveryState.IGNORED
    return NewDelivery(
        source=source.name,
        name=known.name,
        fingerprint=fingerprint_of(source.name, delivery.body),
        received_us=delivery.received_us,
        state=verdict.state,
        reason=verdict.reason,
        changes=len(verdict.changes),
        headers=kept_headers(delivery.headers),
        body_bytes=len(delivery.body),
        body=pack_body(source.form.kept_body(delivery.body)) if is_kept else None,
    )
