"""`cache.*`: the shared blob cache."""

from kitd.blocking import run_blocking
from kitd.rpc.method import Context, Method, method
from kitd.rpc.methods.services import Services
from kitd.rpc.methods.wire import Nothing, WireCache
from kitd.rpc.peer import Role


async def stats(services: Services) -> WireCache:
    """Return what the cache holds; the disk is asked, not the ledger's memory of it."""
    usage = await run_blocking(services.store.usage)
    needed = await services.catalog.referenced_bytes()
    return WireCache(
        blobs=usage.blobs,
        physical_bytes=usage.size_bytes,
        logical_bytes=needed.logical_bytes,
        shared_bytes=needed.logical_bytes - needed.distinct_bytes,
        evictable_bytes=max(0, usage.size_bytes - needed.distinct_bytes),
    )


async def cache_stats(context: Context[Services], params: Nothing) -> WireCache:
    """Tell how much the cache holds, and how much of it is shared."""
    return await stats(context.services)


METHODS: tuple[Method[Services], ...] = (
    method("cache.stats", Role.READ, Nothing, WireCache, cache_stats),
)
