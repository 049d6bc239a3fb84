"""Whatever graph a source has: each target has the same below every tag, and what refers to it."""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from fault_registry.quirks import Quirks
from fault_registry.server import FaultRegistry
from kitd.clock import SystemClock
from kitd.content.shared import SharedReads
from kitd.jobs.mirror.kind import MIRROR
from kitd.jobs.port import Ports
from kitd.ledger.database import Database
from kitd.ledger.mirror_ledger import MirrorLedger
from kitd.mirror.order import MirrorOrder, TargetOrder
from kitd.oci.referrer import referrers_tag
from kitd.registry.client import RegistryClient
from kitd.registry.settings import RegistrySettings
from kitd.registry.transport import Surroundings
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent
from tests.integration.jobs.conftest import Context
from tests.integration.jobs.shelf import Shelf

MAX_NODES = 12


@st.composite
def graphs(draw):
    """Draw nodes in order: each names blobs by number, or nodes before it; some have a subject."""
    nodes = []
    for number in range(draw(st.integers(1, MAX_NODES))):
        before = st.integers(0, number - 1) if number else st.nothing()
        is_index = number > 0 and draw(st.booleans())
        named = before if is_index else st.integers(0, 5)
        children = draw(st.lists(named, min_size=1 if is_index else 0, max_size=4, unique=True))
        subject = draw(st.none() | before) if number else None
        nodes.append((is_index, tuple(children), subject))
    tags = draw(st.lists(st.integers(0, len(nodes) - 1), min_size=1, max_size=4, unique=True))
    return nodes, tags


def fill(shelf, graph, *, lists):
    """Put a graph into a repository; without `lists` as clients do it that keep them in a tag."""
    nodes, tags = graph
    placed, referrers = [], {}
    for number, (is_index, children, subject) in enumerate(nodes):
        about = None if subject is None else placed[subject]
        if is_index:
            node = shelf.index(None, *(placed[child] for child in children), subject=about)
        else:
            layers = [bytes([child]) * (child + 1) * 1000 for child in children]
            # No two are equal: a graph of equal nodes would be another one than what was drawn.
            node = shelf.kit(None, *layers, b"%d" % number, subject=about)
        placed.append(node)
        if about is not None:
            referrers.setdefault(about["digest"], []).append(node)
    for number in tags:
        shelf.tags[f"v{number}"] = placed[number]["digest"]
    if not lists:
        # Lists go in circles if they like: of what they say only what is true counts.
        for digest, listed in referrers.items():
            shelf.index(referrers_tag(digest), *listed, placed[0], placed[-1])


def below(shelf, digest, seen):
    """Add everything below a manifest, and all that refers to any of it."""
    if digest in seen:
        return
    seen.add(digest)
    manifest = shelf.repository.manifests.get(digest)
    if manifest is None:
        return
    document = manifest.document
    children = [document.get("config"), *document.get("layers", ()), *document.get("manifests", ())]
    for child in children:
        if child:
            below(shelf, child["digest"], seen)
    for referrer in shelf.repository.referrers(digest):
        below(shelf, referrer["digest"], seen)


async def mirror(place, graph, source_lists, target_lists):
    async with AsyncExitStack() as stack:
        shelves = []
        for number, lists in enumerate((source_lists, target_lists, True)):
            quirks = Quirks(referrers=lists)
            registry = FaultRegistry(place / str(number), quirks)
            shelves.append(Shelf(await stack.enter_async_context(registry), "team/model"))
        source, *targets = shelves
        fill(source, graph, lists=source_lists)
        database = await stack.enter_async_context(Database(place / "ledger.db"))
        client = RegistryClient(lambda _: RegistrySettings(), Surroundings(environment={}))
        await stack.enter_async_context(client)
        store = BlobStore(place / "cache")
        store.create()
        cache = CacheContent(store)
        ports = Ports(
            **dict.fromkeys(Ports.__dataclass_fields__)
            | {
                "cache": cache,
                "keeps": lambda _size: True,
                "mirrors": MirrorLedger(database, SystemClock()),
                "reads": SharedReads(cache.hold, lambda _size: True),
                "mirror_remote": client.repository,
                "clock": SystemClock(),
                "transfers": 4,
            }
        )
        orders = [
            MirrorOrder(
                rule=None,
                source=source.reference,
                target=TargetOrder(repository=target.reference),
                by_many=True,
            )
            for target in targets
        ]
        await asyncio.gather(*(MIRROR.run(order, Context(), ports) for order in orders))
        for target in targets:
            for tag, digest in source.tags.items():
                if not tag.startswith("v"):
                    continue
                assert target.tags[tag] == digest
                wanted: set[str] = set()
                below(source, digest, wanted)
                assert wanted <= target.repository.blobs | target.repository.manifests.keys()
            for digest, manifest in target.repository.manifests.items():
                if digest in source.repository.manifests:
                    assert manifest == source.repository.manifests[digest]


@settings(max_examples=60)
@given(graphs(), st.booleans(), st.booleans())
def test_every_graph_arrives_with_all_that_refers_to_it(graph, source_lists, target_lists):
    with tempfile.TemporaryDirectory() as place:
        asyncio.run(mirror(Path(place), graph, source_lists, target_lists))
