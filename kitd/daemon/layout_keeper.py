"""Keeps the cache's `index.json` in step with the tags of the ledger.

The file is derived: it is written after the tags, again at every start, and never read by kitd. A
kit of which something is not here is left out: who reads the layout could not read it.
"""

import asyncio
from collections.abc import Sequence

from kitd.blocking import run_blocking
from kitd.daemon.setback import note_setback
from kitd.errors import KitdError
from kitd.ledger.catalog import Catalog
from kitd.ledger.event_ledger import CursorTruncatedError, EventFilter, EventLedger
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.reference import Reference
from kitd.store.blob_store import BlobStore
from kitd.store.layout_index import write_layout_index

TOGETHER_S = 0.1
"""What happens within so long is looked at once: a busy queue commits hundreds of times."""
RETRY_S = 5.0
"""How long after a look at the ledger that failed it looks again."""
_TAGS = EventFilter(
    frozenset({"tag.moved", "tag.removed", "kit.removed", "kit.evicted", "kit.pulled"})
)
"""What moves a tag, and what may bring what was missing of a kit."""


async def keep_layout(store: BlobStore, catalog: Catalog, events: EventLedger) -> None:
    """Write `index.json` now and after every change of a tag, until cancelled."""
    seq, stale = 0, True
    while True:
        if stale:
            await write_layout(store, catalog)
        # Until it is known that no tag moved.
        stale = True
        try:
            await events.wait(seq)
            await asyncio.sleep(TOGETHER_S)
            since, seq = seq, await events.head_seq()
            stale = bool(await events.read(since, 1, _TAGS))
        except CursorTruncatedError:
            # What happened is forgotten already; it may have been about tags.
            continue
        except KitdError as error:
            note_setback("layout.not_looked_at", error)
            await asyncio.sleep(RETRY_S)


async def write_layout(store: BlobStore, catalog: Catalog) -> None:
    """Write `index.json` as the tags are now."""
    try:
        tagged, partial = await catalog.tagged(), await catalog.partial()
        await run_blocking(_write, store, tagged, partial)
    except KitdError as error:
        # The next change of a tag, or the next start, writes it.
        note_setback("layout.not_written", error)


def _write(
    store: BlobStore,
    tagged: Sequence[tuple[Reference, Descriptor]],
    partial: Sequence[tuple[Digest, Digest]],
) -> None:
    lacking = {manifest for manifest, blob in partial if store.size_of(blob) is None}
    whole = [(name, target) for name, target in tagged if target.digest not in lacking]
    write_layout_index(store, whole)
