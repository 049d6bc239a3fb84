"""What attempts of jobs took and moved, counted since the start. Pure."""

from collections import Counter
from collections.abc import Mapping

import msgspec

from kitd.histogram import Histogram
from kitd.jobs.assembly import PackResult
from kitd.jobs.mirror.report import MirrorResult
from kitd.jobs.transfer import TransferResult
from kitd.queue.job import Job

DURATION_BOUNDS_S = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)
_OUTCOMES: Mapping[str, str] = {
    "succeeded": "succeeded",
    "failed": "failed",
    "retrying": "failed",
}
"""What was cancelled, or left to others, took no time that says anything."""


class WorkMeter:
    """Counts attempts as they end: its `note` is what the executor tells."""

    def __init__(self) -> None:
        self.durations_s: dict[tuple[str, str], Histogram] = {}
        """By kind and outcome."""
        self.moved_bytes: Counter[tuple[str, str]] = Counter()
        """By kind, and whether they were `sent`, `received`, `mounted` or `skipped`."""
        self.layers: Counter[str] = Counter()

    def note(self, job: Job, end: str, took_s: float, result: msgspec.Struct | None) -> None:
        """Count an attempt; `end` is the word of its event."""
        if (outcome := _OUTCOMES.get(end)) is not None:
            key = (job.kind, outcome)
            self.durations_s.setdefault(key, Histogram(DURATION_BOUNDS_S)).observe(took_s)
        match result:
            case TransferResult() | MirrorResult():
                for how in result.bytes.__struct_fields__:
                    self.moved_bytes[job.kind, how] += getattr(result.bytes, how)
            case PackResult():
                self.moved_bytes[job.kind, "sent"] += result.sent
                for layer in result.layers:
                    self.layers["reused" if layer.reused else "built"] += 1
            case _:
                pass
