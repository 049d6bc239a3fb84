"""How often to look at everything again when notifications are lost again and again. Pure."""

import math
from dataclasses import dataclass
from typing import Self

FREE_RESCANS = 3
"""As many rescans come at once."""
MIN_GAP_S = 1.0
MAX_GAP_S = 300.0
"""The gap before each further one doubles between these two."""
CALM_S = 2 * MAX_GAP_S
"""So long after the last rescan a series is over."""


@dataclass(frozen=True, slots=True)
class RescanBackoff:
    """A series of losses. Each of them is followed by a rescan, one rescan may follow several."""

    due_s: float = -math.inf
    """When the last rescan was or will be (monotonic seconds)."""
    rescans: int = 0

    def lost(self, now_s: float) -> Self:
        """Return the backoff with a rescan at `due_s`, now or later, for what was just lost."""
        if self.due_s > now_s:
            return self
        if now_s - self.due_s >= CALM_S:
            return type(self)(due_s=now_s, rescans=1)
        return type(self)(
            due_s=max(now_s, self.due_s + gap_s(self.rescans)), rescans=self.rescans + 1
        )


def gap_s(rescans: int) -> float:
    """Return the least time between the last of so many rescans and the next."""
    if rescans < FREE_RESCANS:
        return 0.0
    return min(MAX_GAP_S, MIN_GAP_S * 2.0 ** min(rescans - FREE_RESCANS, 32))
