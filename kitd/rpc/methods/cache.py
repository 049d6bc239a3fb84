"""`cache.*`: the shared blob cache, what is collected of it and what is kept."""

import msgspec

from kitd.blocking import run_blocking
from kitd.oci.reference import parse_reference
from kitd.queue.fact import CollectAsked, VerifyAsked
from kitd.rpc.fairness import Cost
from kitd.rpc.method import Context, Method, method
from kitd.rpc.methods.ask import ask
from kitd.rpc.methods.idempotency import Idempotent
from kitd.rpc.methods.services import Services
from kitd.rpc.methods.wire import Nothing, Queued, WireCache
from kitd.rpc.peer import Role

MAX_DECISIONS = 2000
"""Kits and blobs that one answer lists; what would be removed comes first."""


class VerifyParams(Idempotent, frozen=True, kw_only=True):
    """Whether to fetch anew what is damaged."""

    repair: bool = False


class PinParams(Idempotent, frozen=True, kw_only=True):
    """A kit of the cache."""

    reference: str


class Pinned(msgspec.Struct, frozen=True):
    """The kit that the reference names."""

    digest: str
    reference: str


class WireDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What would become of a kit or a blob: `action` is `remove` or `keep`."""

    kind: str
    digest: str
    name: str
    bytes: int
    action: str
    why: str


class CollectionPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a collection would do now, if the registries hold what they are believed to hold.

    `over_bytes` is how much too many would be left; `omitted` counts what is not listed.
    """

    decisions: tuple[WireDecision, ...]
    omitted: int
    freed_bytes: int
    over_bytes: int


async def stats(services: Services, *, max_age_s: float = 0.0) -> WireCache:
    """Return what the cache holds; the disk is asked, not the ledger's memory of it.

    What could go is not worth the look at everything each time: it may be `max_age_s` old.
    """
    usage = await run_blocking(services.store.usage)
    needed = await services.catalog.referenced_bytes()
    return WireCache(
        blobs=usage.blobs,
        physical_bytes=usage.size_bytes,
        logical_bytes=needed.logical_bytes,
        shared_bytes=needed.logical_bytes - needed.distinct_bytes,
        evictable_bytes=await services.collector.evictable_bytes(max_age_s=max_age_s),
    )


async def cache_stats(context: Context[Services], params: Nothing) -> WireCache:
    """Tell how much the cache holds, and how much of it is shared."""
    return await stats(context.services)


async def plan(context: Context[Services], params: Nothing) -> CollectionPlan:
    """Tell what a collection would remove, and why it would keep the rest."""
    foreseen = await context.services.collector.forecast()
    return CollectionPlan(
        decisions=tuple(
            WireDecision(
                kind=decision.kind,
                digest=decision.digest,
                name=decision.name,
                bytes=decision.size,
                action="remove" if decision.goes else "keep",
                why=decision.why,
            )
            for decision in foreseen.decisions[:MAX_DECISIONS]
        ),
        omitted=max(0, len(foreseen.decisions) - MAX_DECISIONS),
        freed_bytes=foreseen.freed_bytes,
        over_bytes=foreseen.over_bytes,
    )


async def collect(context: Context[Services], params: Idempotent) -> Queued:
    """Remove what no kit needs, and the kits that the limits have no room for."""
    return await ask(context, CollectAsked())


async def verify(context: Context[Services], params: VerifyParams) -> Queued:
    """Hash every blob again; what is damaged is put aside, and fetched anew if asked to."""
    return await ask(context, VerifyAsked(params.repair))


async def pin(context: Context[Services], params: PinParams) -> Pinned:
    """Keep a kit, whatever the limits, until it is unpinned."""
    reference = parse_reference(params.reference).with_default_tag()
    digest = await context.services.cache_ledger.pin(reference)
    return Pinned(digest, str(reference))


async def unpin(context: Context[Services], params: PinParams) -> Pinned:
    """Let a pinned kit be collected again."""
    reference = parse_reference(params.reference).with_default_tag()
    digest = await context.services.cache_ledger.unpin(reference)
    return Pinned(digest, str(reference))


METHODS: tuple[Method[Services], ...] = (
    method("cache.stats", Role.READ, Nothing, WireCache, cache_stats, cost=Cost.OUTSIDE),
    method("cache.plan", Role.READ, Nothing, CollectionPlan, plan, cost=Cost.OUTSIDE),
    method("cache.gc", Role.SUBMIT, Idempotent, Queued, collect),
    method("cache.verify", Role.SUBMIT, VerifyParams, Queued, verify),
    method("cache.pin", Role.SUBMIT, PinParams, Pinned, pin),
    method("cache.unpin", Role.SUBMIT, PinParams, Pinned, unpin),
)
