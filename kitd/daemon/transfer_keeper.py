"""Gives up uploads that nobody went on with: tells the registry, then forgets them."""

import asyncio

import structlog

from kitd.daemon.setback import note_setback
from kitd.daemon.transfer_memory import session_of
from kitd.errors import KitdError
from kitd.ledger.transfer_ledger import TransferLedger
from kitd.registry.client import RegistryClient

INTERVAL_S = 3600.0
AT_ONCE = 100
"""Uploads that are read from the ledger at once."""

log = structlog.get_logger(__name__)


async def keep_transfers(ledger: TransferLedger, registries: RegistryClient) -> None:
    """Look now and every hour, until cancelled. Whatever fails is tried again later."""
    while True:
        try:
            given_up = await give_up_stale(ledger, registries)
        except KitdError as error:
            note_setback("uploads.not_given_up", error)
        else:
            if given_up:
                log.info("uploads.given_up", uploads=given_up)
        await asyncio.sleep(INTERVAL_S)


async def give_up_stale(ledger: TransferLedger, registries: RegistryClient) -> int:
    """Give up what is too old or too many; return how many that were."""
    given_up = 0
    while stale := await ledger.stale_uploads(AT_ONCE):
        for repository, content, upload in stale:
            await registries.abandon(repository, session_of(upload))
            # That may have taken long enough for another one to begin.
            await ledger.forget_upload(repository, content, location=upload.location)
        given_up += len(stale)
    return given_up
