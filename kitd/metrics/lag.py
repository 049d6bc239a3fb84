"""How late the event loop is: asked now and then, as anybody who waits would be."""

import asyncio
from typing import NoReturn

from kitd.histogram import Histogram

ASK_EVERY_S = 2.0
"""An idle kitd has better things to do than to wake up."""
BOUNDS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


async def keep_lag(lag_s: Histogram) -> NoReturn:
    """Observe until cancelled by how much the loop is later than it was asked for."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + ASK_EVERY_S
        await asyncio.sleep(ASK_EVERY_S)
        lag_s.observe(max(0.0, loop.time() - due_s))
