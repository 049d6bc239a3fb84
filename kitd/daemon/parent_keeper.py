"""Looks up what kits build on that were recorded before kitd noted it, once after an upgrade.

Until it is done no kit is known to be nobody's parent: see `kitd.ledger.catalog.PARENTS_UNKNOWN`.
"""

import asyncio

import structlog

from kitd.content.store import Fetcher
from kitd.content.verify import read_manifest
from kitd.daemon.setback import note_setback
from kitd.errors import KitdError
from kitd.jobs.pull import summarize
from kitd.ledger.catalog import Catalog
from kitd.oci.descriptor import Descriptor
from kitd.queue.effect import NoteParent
from kitd.store.blob_store import StoreError

BATCH = 100
"""Manifests that are read one after the other, and noted in one transaction."""
INTERVAL_S = 60.0
"""How long after a look it looks for what the disk did not give."""

log = structlog.get_logger(__name__)


async def keep_parents(catalog: Catalog, cache: Fetcher) -> None:
    """Note parents until cancelled. Raises what is fatal; whatever else fails is tried again."""
    while True:
        try:
            if noted := await note_parents(catalog, cache):
                log.info("parents.noted", manifests=noted)
        except KitdError as error:
            note_setback("parents.not_noted", error)
        await asyncio.sleep(INTERVAL_S)


async def note_parents(catalog: Catalog, cache: Fetcher) -> int:
    """Look at every manifest that nobody looked at; return how many that were.

    Those that the disk does not give stay for another time. Raises `LedgerError`.
    """
    noted, after = 0, ""
    while batch := await catalog.parent_unknown(after=after, limit=BATCH):
        effects = []
        for target in batch:
            try:
                effects.append(await _look(cache, target))
            except StoreError as error:
                note_setback("parents.not_read", error)
        await catalog.apply(effects)
        noted += len(effects)
        after = batch[-1].digest
    return noted


async def _look(cache: Fetcher, target: Descriptor) -> NoteParent:
    try:
        kit = await summarize(cache, await read_manifest(cache, target))
    except StoreError:
        raise
    except KitdError as error:
        # Missing or damaged: who pulls it again has its parent noted, and until then nobody
        # unpacks it.
        log.warning("parents.unreadable", manifest=target.digest, error=error.message)
        return NoteParent(target.digest, None)
    return NoteParent(target.digest, None if kit is None else kit.parent)
