"""`events.*`: what happened, read by cursor or followed live."""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from kitd.clock import rfc3339
from kitd.ledger import event_ledger
from kitd.ledger.event_ledger import EventFilter, EventLedger
from kitd.rpc.fairness import Cost
from kitd.rpc.method import Context, Method, Params, Reply, method
from kitd.rpc.methods.services import Services
from kitd.rpc.methods.wire import Empty
from kitd.rpc.peer import Role
from kitd.rpc.subscription import Event


class Wanted(Params, frozen=True, kw_only=True):
    """Which events; `from_seq` is the newest that the caller has."""

    from_seq: Annotated[int, msgspec.Meta(ge=0)] | None = None
    types: tuple[str, ...] = ()
    project: str | None = None
    job: int | None = None


class Page(Wanted, frozen=True, kw_only=True):
    """Which events, and how many at most."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 500


class EventPage(msgspec.Struct, frozen=True):
    """Events, oldest first; those up to `floor_seq` are no longer held."""

    events: tuple[Event, ...]
    head_seq: int
    floor_seq: int


class Subscribed(msgspec.Struct, frozen=True):
    """The number that notifications of this subscription carry."""

    subscription: int
    head_seq: int


class SubscriptionId(Params, frozen=True):
    """One subscription of this connection."""

    subscription: int


def wire_event(event: event_ledger.Event) -> Event:
    """Return an event as it is sent."""
    return Event(event.seq, rfc3339(event.at_us), event.type, event.subject, event.data)


class LedgerEvents:
    """The ledger's stream as `kitd.rpc.subscription.EventSource`."""

    def __init__(self, ledger: EventLedger) -> None:
        self._ledger = ledger

    async def head_seq(self) -> int:
        """Return the number of the newest event."""
        return await self._ledger.head_seq()

    async def read(self, after_seq: int, limit: int, wanted: EventFilter) -> Sequence[Event]:
        """Return the wanted events after a cursor."""
        return [wire_event(event) for event in await self._ledger.read(after_seq, limit, wanted)]

    async def wait(self, after_seq: int) -> None:
        """Return once there is a later event."""
        await self._ledger.wait(after_seq)


def _filter(params: Wanted) -> EventFilter:
    return EventFilter(frozenset(params.types), params.project, params.job)


async def read(context: Context[Services], params: Page) -> EventPage:
    """Read events after a cursor."""
    events = context.services.events
    floor_seq = await events.floor_seq()
    after_seq = floor_seq if params.from_seq is None else params.from_seq
    found = await LedgerEvents(events).read(after_seq, params.limit, _filter(params))
    return EventPage(tuple(found), await events.head_seq(), floor_seq)


async def subscribe(context: Context[Services], params: Wanted) -> Reply[Subscribed]:
    """Follow events: those after the cursor, then each as it happens, without a gap."""
    subscription = await context.subscriptions.open(_filter(params), params.from_seq)
    subscribed = Subscribed(subscription.number, subscription.head_seq)
    return Reply(subscribed, after=subscription.start)


async def unsubscribe(context: Context[Services], params: SubscriptionId) -> Empty:
    """End a subscription."""
    context.subscriptions.close(params.subscription)
    return Empty()


METHODS: tuple[Method[Services], ...] = (
    method("events.read", Role.READ, Page, EventPage, read, cost=Cost.LEDGER),
    method("events.subscribe", Role.READ, Wanted, Subscribed, subscribe, alone=True),
    method("events.unsubscribe", Role.READ, SubscriptionId, Empty, unsubscribe),
)
