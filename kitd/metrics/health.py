"""Whether kitd takes work: what whoever routes requests or restarts services asks for.

Strangers may ask. They are told codes; the texts, which name paths and hosts, are for `kitctl`.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from kitd.errors import KitdError

LEDGER_S = 1.0
"""What the ledger gets to answer."""


class State(StrEnum):
    """What /readyz says in a word."""

    READY = "ready"
    DEGRADED = "degraded"
    STARTING = "starting"
    STOPPING = "stopping"
    LEDGER = "ledger_not_writable"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state, and by code how many things hinder kitd."""

    state: State
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def is_ready(self) -> bool:
        """Whether work is taken, and kept."""
        return self.state in (State.READY, State.DEGRADED)


class Readiness:
    """Judges one daemon. `write` proves that the ledger can be written, or raises `KitdError`."""

    def __init__(
        self,
        write: Callable[[], Awaitable[None]],
        stopping: Callable[[], bool],
        reasons: Callable[[], Sequence[str]],
    ) -> None:
        self.started = False
        """Whether kitd has ever taken work."""
        self._write = write
        self._stopping = stopping
        self._reasons = reasons
        self._proof: asyncio.Task[bool] | None = None

    async def judge(self) -> Verdict:
        """Return how kitd is now."""
        reasons = Counter(self._reasons())
        if self._stopping():
            return Verdict(State.STOPPING, reasons)
        if not self.started:
            return Verdict(State.STARTING, reasons)
        if not await self._is_writable():
            return Verdict(State.LEDGER, reasons)
        return Verdict(State.DEGRADED if reasons else State.READY, reasons)

    async def _is_writable(self) -> bool:
        # Those who ask at once share an answer, and one that does not come is waited for by one.
        if self._proof is None or self._proof.done():
            self._proof = asyncio.create_task(self._prove(), name="proof that the ledger writes")
        proof = self._proof
        done, _ = await asyncio.wait([proof], timeout=LEDGER_S)
        return bool(done) and proof.result()

    async def _prove(self) -> bool:
        try:
            await self._write()
        except (KitdError, RuntimeError):
            # The latter is a defect that ended the writer, after which kitd ends.
            return False
        return True
