"""`webhooks.*`: what registries told, and telling it again."""

import datetime as dt
from typing import Annotated

import msgspec

from kitd.clock import rfc3339
from kitd.errors import Disposition, KitdError
from kitd.ledger.delivery_ledger import DeliveryFilter, StoredDelivery
from kitd.rpc.error import InvalidParamsError
from kitd.rpc.fairness import Cost
from kitd.rpc.method import Context, Method, Params, method
from kitd.rpc.methods.idempotency import Idempotent
from kitd.rpc.methods.services import Services
from kitd.rpc.methods.wire import WireFailure
from kitd.rpc.peer import Role
from kitd.webhooks.judgement import DeliveryState

MAX_REPLAYS = 100
"""Deliveries that one call replays."""


_Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class DeliveryQuery(Params, frozen=True, kw_only=True):
    """Which deliveries; `before` is the id that a former page ended with."""

    source: str | None = None
    state: DeliveryState | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 50
    before: _Id | None = None


class ReplayParams(Idempotent, frozen=True, kw_only=True):
    """Either the ids of deliveries, or a time since which to replay them, RFC 3339.

    With `since` those of a `source` only, if one is named, oldest first; `after` is the id that a
    former page ended with.
    """

    ids: Annotated[tuple[_Id, ...], msgspec.Meta(max_length=MAX_REPLAYS)] = ()
    since: str | None = None
    source: str | None = None
    after: _Id = 0


class WireDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery as it was kept: `name` is the sender's for it, `jobs` what was asked for last.

    `state` is `accepted`, `ignored` or `malformed`; `reason` says why nothing followed, if nothing
    did. `bytes` is the size of its body, which is `kept` where it can be replayed.
    """

    id: int
    source: str
    name: str | None
    received: str
    state: str
    reason: str | None
    changes: int
    jobs: tuple[int, ...]
    replays: int
    bytes: int
    kept: bool


class WireSource(msgspec.Struct, frozen=True, kw_only=True):
    """A sender: how many of its deliveries are held, and were refused since kitd started.

    `mirrors` are those that read its registry: without any, nothing follows from its events.
    """

    name: str
    format: str
    registry: str
    mirrors: tuple[str, ...]
    accepted: int
    ignored: int
    malformed: int
    refused: int


class DeliveryPage(msgspec.Struct, frozen=True, kw_only=True):
    """Deliveries, newest first, and their senders; `strangers` were for sources that are none."""

    deliveries: tuple[WireDelivery, ...]
    sources: tuple[WireSource, ...]
    strangers: int


class WireReplay(msgspec.Struct, frozen=True, kw_only=True):
    """What replaying one delivery came to."""

    id: int
    delivery: WireDelivery | None
    error: WireFailure | None


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What was replayed; `last` is the id to go on after, None where there is no more."""

    replays: tuple[WireReplay, ...]
    last: int | None


def _wire(stored: StoredDelivery) -> WireDelivery:
    return WireDelivery(
        id=stored.id,
        source=stored.source,
        name=stored.name,
        received=rfc3339(stored.received_us),
        state=stored.state,
        reason=stored.reason,
        changes=stored.changes,
        jobs=stored.jobs,
        replays=stored.replays,
        bytes=stored.body_bytes,
        kept=stored.has_body,
    )


async def list_deliveries(context: Context[Services], params: DeliveryQuery) -> DeliveryPage:
    """List what registries told, newest first."""
    webhooks = context.services.webhooks
    wanted = DeliveryFilter(
        source=params.source, state=params.state, before=params.before, limit=params.limit
    )
    found = await webhooks.list(wanted)
    counts = await webhooks.counts()
    refused, rules = webhooks.refusals, context.services.mirrors.rules
    return DeliveryPage(
        deliveries=tuple(map(_wire, found)),
        sources=tuple(
            WireSource(
                name=source.name,
                format=source.form.name,
                registry=source.registry,
                mirrors=tuple(rule.name for rule in rules if rule.route.reads(source.registry)),
                refused=refused.by_source[source.name],
                **{state: counts.get(source.name, {}).get(state, 0) for state in DeliveryState},
            )
            for source in webhooks.sources()
        ),
        strangers=refused.unknown,
    )


async def replay(context: Context[Services], params: ReplayParams) -> Replayed:
    """Read deliveries again, and ask for the jobs that follow from them."""
    if bool(params.ids) == (params.since is not None):
        raise InvalidParamsError("webhooks.replay takes either ids or a time since which")
    if params.ids:
        replays = [await _replay(context.services, each) for each in dict.fromkeys(params.ids)]
        return Replayed(replays=tuple(replays), last=None)
    assert params.since is not None
    wanted = DeliveryFilter(
        source=params.source,
        after=params.after,
        since_us=_parse_time_us(params.since),
        limit=MAX_REPLAYS,
    )
    found = await context.services.webhooks.list(wanted)
    replays = [await _replay(context.services, each.id) for each in found if each.has_body]
    last = found[-1].id if len(found) == MAX_REPLAYS else None
    return Replayed(replays=tuple(replays), last=last)


async def _replay(services: Services, delivery: int) -> WireReplay:
    """Replay one; what is wrong with it keeps nobody from replaying the next."""
    try:
        stored = await services.webhooks.replay(delivery)
    except KitdError as error:
        if error.disposition is not Disposition.FAIL:
            raise
        failure = WireFailure(error.code, error.message, error.hint)
        return WireReplay(id=delivery, delivery=None, error=failure)
    return WireReplay(id=delivery, delivery=_wire(stored), error=None)


def _parse_time_us(text: str) -> int:
    """Return microseconds since the epoch. Raises `InvalidParamsError`."""
    try:
        at = dt.datetime.fromisoformat(text.upper())
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise InvalidParamsError(
            f"{text[:40]!r} is not a time", hint="write it like 2026-11-20T08:00:00Z"
        )
    return int(at.timestamp() * 1_000_000)


METHODS: tuple[Method[Services], ...] = (
    method(
        "webhooks.list", Role.READ, DeliveryQuery, DeliveryPage, list_deliveries, cost=Cost.LEDGER
    ),
    method("webhooks.replay", Role.ADMIN, ReplayParams, Replayed, replay, cost=Cost.LEDGER),
)
