"""Keeps the ledger small: a sweep of its retention at the start and every ten minutes."""

import asyncio

import structlog

from kitd.daemon.setback import note_setback
from kitd.errors import KitdError
from kitd.ledger.retention import Retention

INTERVAL_S = 600.0

log = structlog.get_logger(__name__)


async def keep_ledger(retention: Retention) -> None:
    """Sweep until cancelled. Raises what is fatal; whatever else fails is tried again later."""
    while True:
        try:
            forgotten = await retention.sweep()
        except KitdError as error:
            note_setback("ledger.not_swept", error)
        else:
            if forgotten.rows:
                log.info(
                    "ledger.swept",
                    jobs=forgotten.jobs,
                    events=forgotten.events,
                    keys=forgotten.keys,
                    lives=forgotten.lives,
                    deliveries=forgotten.deliveries,
                )
        await asyncio.sleep(INTERVAL_S)
