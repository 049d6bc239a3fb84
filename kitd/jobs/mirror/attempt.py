"""What the parts of a mirror's attempt have in common."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from kitd.jobs.mirror.report import Report
from kitd.jobs.mirror.source import MirrorSource
from kitd.jobs.mirror.target import MirrorTarget
from kitd.jobs.port import MirrorMemory
from kitd.mirror.order import MirrorOrder

_T = TypeVar("_T")

LOOKS = 16
"""Tags that are asked about at once."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An order, its two ends, and what has become of it so far."""

    order: MirrorOrder
    source: MirrorSource
    target: MirrorTarget
    report: Report
    memory: MirrorMemory
    now_us: Callable[[], int]
    looks: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LOOKS))

    @property
    def sees_all(self) -> bool:
        """Whether what the source does not list is gone."""
        return self.order.tags is None and self.source.listed is not None


def in_parts(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """Yield items in order, so many at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))
