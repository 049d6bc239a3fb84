"""Makes room in the cache: acts on the plan of `kitd.store.collection`, one bundle at a time.

What the plan could not know is found out here, at the last moment. Whether a registry really holds
a kit is asked before the kit goes, and an answer that does not come is none. Whether anything
happened to the kit meanwhile is judged in the transaction that takes its rows. See
`kitd.store.lease` for how this and everybody who needs blobs keep out of each other's way.

kitd's own registry may be among those that are asked, under whatever name. It answers from the very
cache, which proves nothing; but its answer is a use, and what is in use is not collected. The same
holds for two daemons of which each is the other's registry.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from kitd.blocking import run_blocking, uninterrupted
from kitd.clock import Clock
from kitd.config.model import CacheConfig
from kitd.errors import Disposition, KitdError
from kitd.jobs.port import Collected, Remote
from kitd.ledger.cache_ledger import CacheLedger
from kitd.oci.digest import Digest
from kitd.oci.reference import Repository
from kitd.store.blob_store import BlobFile, BlobStore
from kitd.store.collection import (
    Bundle,
    CachedKit,
    Forecast,
    Plan,
    SharedBlobs,
    Space,
    StoredBlob,
    excess_bytes,
    expendable_partials,
    forecast,
    least_recently_used,
    may_go,
    plan_collection,
)
from kitd.store.lease import LeaseBook

BATCH = 200
"""Blobs that nobody needs are removed so many at a time: whoever wants one waits that long."""
PROOF_S = 20.0
"""What a registry gets to say whether it holds a kit."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Stock:
    """The cache as it was found."""

    kits: Sequence[CachedKit]
    blobs: Sequence[StoredBlob]
    partials: Sequence[StoredBlob]
    """What has arrived of blobs that are not complete."""
    leased: frozenset[Digest]
    remains: Mapping[Digest, int]
    """What is in quarantine of blobs that are there again or that no kit needs, in bytes."""
    space: Space


@dataclass(frozen=True, slots=True)
class _Evictable:
    """Bytes that could go, as of some time of the monotonic clock."""

    count: int
    at_s: float


class _Proofs:
    """Which kits registries hold. One that does not answer is asked once in a collection."""

    def __init__(self, remote: Callable[[Repository], Awaitable[Remote]]) -> None:
        self._remote = remote
        self._unreachable: set[str] = set()
        self.lost: list[tuple[Digest, Repository]] = []
        """Locations that say they do not hold the kit."""

    async def held(self, kits: Sequence[CachedKit]) -> bool:
        """Whether every one of the kits is somewhere else."""
        for kit in kits:
            if not await self._is_held(kit):
                return False
        return True

    async def _is_held(self, kit: CachedKit) -> bool:
        for repository in kit.locations:
            if repository.registry in self._unreachable:
                continue
            try:
                async with asyncio.timeout(PROOF_S):
                    if await (await self._remote(repository)).exists(kit.target):
                        return True
            except TimeoutError:
                self._unreachable.add(repository.registry)
                log.info("collect.no_answer", repository=str(repository), after_s=PROOF_S)
            except KitdError as error:
                if error.disposition is Disposition.RETRY:
                    self._unreachable.add(repository.registry)
                log.info("collect.not_proven", repository=str(repository), error=error.message)
            else:
                self.lost.append((kit.digest, repository))
        return False


class Collector:
    """Collects one cache, and says what a collection would do. Implements `jobs.port.Collector`."""

    def __init__(
        self,
        *,
        store: BlobStore,
        leases: LeaseBook,
        ledger: CacheLedger,
        remote: Callable[[Repository], Awaitable[Remote]],
        limits: Callable[[], CacheConfig],
        clock: Clock,
    ) -> None:
        self._store = store
        self._leases = leases
        self._ledger = ledger
        self._remote = remote
        self._limits = limits
        self._clock = clock
        self._shortfall: str | None = None
        self._evictable: _Evictable | None = None
        self._turn = asyncio.Lock()

    @property
    def shortfall(self) -> str | None:
        """Why the last collection could not make enough room and what would help, if so."""
        return self._shortfall

    async def excess_bytes(self) -> int:
        """Return how many bytes are too many now. Raises `StoreError`."""
        excess = excess_bytes(await self._space(), self._limits())
        if not excess:
            self._shortfall = None
        return excess

    async def forecast(self) -> Forecast:
        """Tell what a collection would do now. Raises `KitdError`."""
        return await self._foresee(self._limits())

    async def evictable_bytes(self, *, max_age_s: float = 0.0) -> int:
        """Return how many bytes nothing speaks for but that there is room. Raises `KitdError`.

        It takes a look at everything, for which an answer may be good enough that is `max_age_s`
        old.
        """
        now_s = self._clock.monotonic_s()
        if self._evictable is None or self._evictable.at_s + max_age_s <= now_s:
            without_room = replace(
                self._limits(), use_at_most_bytes=0, leave_free_bytes=0, keep_at_least_bytes=0
            )
            foreseen = await self._foresee(without_room)
            self._evictable = _Evictable(foreseen.freed_bytes, now_s)
        return self._evictable.count

    async def _foresee(self, limits: CacheConfig) -> Forecast:
        stock = await self._take_stock()
        return await run_blocking(
            forecast,
            stock.kits,
            stock.blobs,
            stock.leased,
            stock.remains,
            stock.space,
            limits,
            now_us=self._clock.now_us(),
            partials=stock.partials,
        )

    async def collect(self, advanced: Callable[[int], None]) -> Collected:
        """Remove what no kit needs, and kits until the limits hold. Raises `KitdError`.

        `advanced` is told how many bytes were freed so far.
        """
        # One whose job was given up may still wait for a disk.
        async with self._turn:
            return await self._collect(advanced)

    async def _collect(self, advanced: Callable[[int], None]) -> Collected:
        limits = self._limits()
        stock = await self._take_stock()
        plan = await run_blocking(
            plan_collection,
            stock.kits,
            stock.blobs,
            stock.leased,
            keep_recent_s=limits.keep_recent_s,
            now_us=self._clock.now_us(),
        )
        shared = await run_blocking(SharedBlobs, stock.kits, stock.blobs, stock.leased)
        space = stock.space
        removed = 0
        names: list[str] = []

        def freed(sizes: Sequence[int]) -> None:
            nonlocal space, removed
            space = space.freed(sum(sizes))
            removed += sum(size > 0 for size in sizes)
            advanced(stock.space.used_bytes - space.used_bytes)

        def is_wanted(bundle: Bundle) -> bool:
            return may_go(space, limits, shared.freed_by(bundle))

        freed(await run_blocking(self._drop, stock.remains))
        for first in range(0, len(plan.unreferenced), BATCH):
            freed(await self._remove_unreferenced(plan.unreferenced[first : first + BATCH]))
        freed(await self._give_up(stock, space))
        proofs = _Proofs(self._remote)
        async for bundle in _expendable(plan, proofs, is_wanted):
            sizes = await self._evict(bundle, shared.only_of(bundle))
            if sizes is not None:
                shared.remove(bundle)
                names += [kit.name for kit in bundle.kits]
                freed(sizes)
        for digest, repository in proofs.lost:
            await self._ledger.forget_location(digest, repository)
        return await self._conclude(
            stock.space.used_bytes - space.used_bytes, removed, names, plan, limits
        )

    async def _conclude(
        self,
        freed_bytes: int,
        removed: int,
        names: Sequence[str],
        plan: Plan,
        limits: CacheConfig,
    ) -> Collected:
        space = await self._space()
        over_bytes = excess_bytes(space, limits)
        self._evictable = None
        self._shortfall = _advice(over_bytes, plan) if over_bytes else None
        if over_bytes:
            log.warning("cache.over_limit", over_bytes=over_bytes, advice=self._shortfall)
        return Collected(
            freed_bytes=freed_bytes,
            blobs=removed,
            kits=tuple(names),
            kept_bytes=space.used_bytes,
            over_bytes=over_bytes,
            advice=self._shortfall,
        )

    async def _take_stock(self) -> _Stock:
        await self._ledger.write_uses()
        # The files first: a kit that comes between the two is in the ledger and spares its blobs.
        blobs = await run_blocking(_stored, self._store.blobs)
        partials = await run_blocking(_stored, self._store.partials)
        others = await run_blocking(self._store.other_bytes)
        free = await run_blocking(self._store.free_bytes)
        space = Space(sum(blob.size for blob in blobs) + others, free)
        kits = await self._ledger.kits()
        remains = await run_blocking(self._remains, kits)
        return _Stock(kits, blobs, partials, self._leases.leased(), remains, space)

    def _remains(self, kits: Sequence[CachedKit]) -> Mapping[Digest, int]:
        needed = {blob.digest for kit in kits for blob in kit.blobs}
        return {
            digest: size
            for digest, size in self._store.in_quarantine().items()
            if digest not in needed or self._store.size_of(digest) is not None
        }

    async def _space(self) -> Space:
        usage = await run_blocking(self._store.usage)
        return Space(usage.total_bytes, await run_blocking(self._store.free_bytes))

    async def _evict(self, bundle: Bundle, blobs: Collection[Digest]) -> Sequence[int] | None:
        """Take a bundle: its rows, then its files. None where something spoke against it."""
        digests = [kit.digest for kit in bundle.kits]
        with self._leases.condemn({*digests, *blobs}) as free:
            if not free.issuperset(digests) or self._ledger.is_used_since(digests):
                return None
            # To its end even when this is cancelled: nobody may take a lease while it is decided.
            needless = await uninterrupted(
                self._ledger.evict(bundle.kits, free, "the cache needed room")
            )
            if needless is None:
                return None
            return await run_blocking(self._remove, dict.fromkeys(needless, math.inf))

    async def _give_up(self, stock: _Stock, space: Space) -> Sequence[int]:
        """Remove what has arrived of blobs that nobody goes on with, or that is in the way."""
        going = expendable_partials(
            stock.partials,
            stock.blobs,
            stock.leased,
            space,
            self._limits(),
            now_us=self._clock.now_us(),
        )
        with self._leases.condemn(going) as free:
            return await run_blocking(lambda: [self._store.drop_partial(each) for each in free])

    async def _remove_unreferenced(self, blobs: Sequence[StoredBlob]) -> Sequence[int]:
        seen_s = {blob.digest: (blob.written_us + 1) / 1_000_000 for blob in blobs}
        with self._leases.condemn(seen_s) as free:
            needless = await uninterrupted(self._ledger.unreferenced(free))
            return await run_blocking(self._remove, {digest: seen_s[digest] for digest in needless})

    def _remove(self, unless_after_s: dict[Digest, float]) -> Sequence[int]:
        return [
            self._store.remove(digest, unless_after_s=after_s)
            for digest, after_s in unless_after_s.items()
        ]

    def _drop(self, remains: Collection[Digest]) -> Sequence[int]:
        return [self._store.drop_quarantined(digest) for digest in remains]


def _stored(files: Callable[[], Sequence[BlobFile]]) -> Sequence[StoredBlob]:
    return [
        StoredBlob(file.digest, file.size, math.ceil(file.written_s * 1_000_000))
        for file in files()
    ]


async def _expendable(
    plan: Plan, proofs: _Proofs, is_wanted: Callable[[Bundle], bool]
) -> AsyncIterator[Bundle]:
    """Yield what may go, in order, as long as it is wanted; nothing with a name without a proof."""
    doubtful: list[Bundle] = []
    for bundle in plan.bundles:
        # There may be a hundred thousand, and a look at what nobody wants waits for nothing.
        await asyncio.sleep(0)
        if not bundle.is_elsewhere:
            doubtful.append(bundle)
        elif is_wanted(bundle):
            if await proofs.held(bundle.kits):
                yield bundle
            else:
                doubtful.append(bundle)
    for bundle in least_recently_used(doubtful):
        await asyncio.sleep(0)
        if is_wanted(bundle) and await proofs.held([kit for kit in bundle.kits if kit.tags]):
            yield bundle


def _advice(over_bytes: int, plan: Plan) -> str:
    mebibytes = math.ceil(over_bytes / (1 << 20))
    kept = "1 kit" if len(plan.kept) == 1 else f"{len(plan.kept)} kits"
    return (
        f"the cache is {mebibytes} MiB over its limits and keeps {kept}: push those that are"
        " only here (kitctl cache gc --dry-run tells), remove or unpin some, or raise"
        " cache.use_at_most"
    )
