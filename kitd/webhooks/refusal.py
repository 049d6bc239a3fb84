"""Deliveries that were refused: counted, and told of now and then. Pure."""

from collections import Counter

TELL_EVERY_S = 60.0


class Refusals:
    """Counts by source, in memory only: whoever knows no secret must not fill a disk."""

    def __init__(self) -> None:
        self.by_source: Counter[str] = Counter()
        """Of those that are configured, since the start."""
        self.unknown = 0
        """Requests for sources that there are not."""
        self._told: dict[str, tuple[float, int]] = {}

    def note(self, source: str, now_s: float) -> int | None:
        """Count one; return how many there were since that was told last, if it is to be told now.

        `now_s` is of a clock that never jumps.
        """
        self.by_source[source] += 1
        told_s, told = self._told.get(source, (-TELL_EVERY_S, 0))
        if now_s - told_s < TELL_EVERY_S:
            return None
        count = self.by_source[source]
        self._told[source] = (now_s, count)
        return count - told
