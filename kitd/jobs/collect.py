"""Collect: make room in the cache, and say what is left to be done where that was not enough."""

import msgspec

from kitd.jobs.port import Collected, Ports
from kitd.queue.effect import Effect, Emit
from kitd.queue.job import Lane, Progress
from kitd.queue.kind import Done, JobContext, JobKind
from kitd.queue.retry import RetryPolicy

MAX_KITS_TOLD = 100
"""Of a collection that took more, the event names so many; each has an event of its own."""


class CollectArgs(msgspec.Struct, frozen=True):
    """There is one cache and one way to collect it."""


async def run(_args: CollectArgs, context: JobContext, ports: Ports) -> Done:
    """Collect once. Raises `KitdError`."""

    def advanced(freed_bytes: int) -> None:
        context.report(Progress("collecting", freed_bytes))

    collected = await ports.collector.collect(advanced)
    return Done(collected, _effects(collected))


def _effects(collected: Collected) -> tuple[Effect, ...]:
    effects: list[Effect] = []
    if collected.freed_bytes:
        facts = {
            "freed_bytes": collected.freed_bytes,
            "blobs": collected.blobs,
            "kits": list(collected.kits[:MAX_KITS_TOLD]),
        }
        effects.append(Emit("cache.collected", "cache", facts))
    if collected.over_bytes:
        facts = {"over_bytes": collected.over_bytes, "message": collected.advice}
        effects.append(Emit("cache.over_limit", "cache", facts))
    return tuple(effects)


COLLECT: JobKind[CollectArgs, Ports] = JobKind(
    name="collect",
    lane=Lane.COLLECT,
    args=CollectArgs,
    retry=RetryPolicy(max_attempts=4),
    key=lambda _args: "cache",
    lock=lambda _args: "cache",
    run=run,
)
