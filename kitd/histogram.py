"""Numbers counted by their size, in buckets. Pure."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Distribution:
    """How many observations there were, bucket by bucket, and what they sum up to."""

    bounds: tuple[float, ...]
    """The largest value of each bucket but the last, ascending."""
    counts: tuple[int, ...]
    """Of each bucket alone; the last is for what is larger than all bounds."""
    total: float


class Histogram:
    """Counts observations. One thread observes; others may read at any time."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def read(self) -> Distribution:
        """Return what was counted so far."""
        return Distribution(self._bounds, tuple(self._counts), self._total)
