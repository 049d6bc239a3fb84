"""Registries that listen, with a real cache and a real ledger, and mirrors between them."""

from collections import Counter

import msgspec

from fault_registry.quirks import Quirks
from fault_registry.server import FaultRegistry
from kitd.clock import SystemClock
from kitd.content.shared import SharedReads
from kitd.jobs.mirror.kind import MIRROR
from kitd.ledger.event_ledger import EventLedger
from kitd.ledger.mirror_ledger import MirrorLedger
from kitd.mirror.order import MirrorOrder, MirrorWish, TargetOrder
from kitd.queue.kind import HUMAN
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent
from tests.integration.jobs.shelf import Shelf

WISHES = frozenset(MirrorWish.__struct_fields__)


class LateClock(SystemClock):
    """The real one, and so much later."""

    late_us = 0

    def now_us(self):
        return super().now_us() + self.late_us


class World:
    """Registries, and a kitd between them."""

    def __init__(self, stack, tmp_path, make_ports, attempt, database, client):
        self.stack = stack
        self.tmp_path = tmp_path
        self.make_ports = make_ports
        self.attempt = attempt
        self.client = client
        self.clock = LateClock()
        self.ledger = MirrorLedger(database, self.clock)
        self.events = EventLedger(database)
        self.store = BlobStore(tmp_path / "cache")
        self.store.create()
        self.cache = CacheContent(self.store)
        self.mirror_remote = client.repository
        self.facts = ()
        """What was the case when the last run ended."""
        self.reads = SharedReads(self.cache.hold, lambda _size: True)

    async def registry(self, name="team/model", **quirks):
        root = self.tmp_path / f"registry-{len(list(self.tmp_path.iterdir()))}"
        registry = await self.stack.enter_async_context(FaultRegistry(root, Quirks(**quirks)))
        return Shelf(registry, name)

    def rule(self, source, target, tag="{tag}", **options):
        order = TargetOrder(repository=target.reference, tag=tag)
        return MirrorOrder(rule="prod", source=source.reference, target=order, **options)

    async def run(self, order, priority=HUMAN, **changes):
        wished = {name: changes.pop(name) for name in WISHES & changes.keys()}
        order = msgspec.structs.replace(order, wish=MirrorWish(**wished), **changes)
        ports = self.make_ports(
            self.cache,
            mirrors=self.ledger,
            reads=self.reads,
            mirror_remote=self.mirror_remote,
            clock=self.clock,
        )
        with self.attempt() as context:
            context.job.priority = priority
            done = await MIRROR.run(order, context, ports)
        self.facts = done.facts
        return done.result

    async def told(self, event_type):
        return [event for event in await self.events.read(0, 500) if event.type == event_type]


def actions(result):
    return Counter(edge.action for edge in result.edges)


def asked(shelf):
    """Return what a registry was asked since this was asked last."""
    kinds = shelf.registry.tally.kinds()
    shelf.registry.tally.requests.clear()
    return kinds
