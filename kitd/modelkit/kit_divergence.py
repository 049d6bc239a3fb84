"""Where a kit of kitd's holds what `kit` would leave out or refuse, so that nobody is surprised.

`kit` mistakes a name that holds `..` for a way out of the project: its pack leaves such paths out
and its unpack refuses a kit that has them. `kit` 1.7 also compares layer paths as strings: a layer
`model` keeps `model-card.md` out of a layer `.`, and so out of the kit. kitd packs both (`plan`).
"""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kitd.modelkit.dialect import Dialect
from kitd.modelkit.plan import LayerPlan

MAX_PATHS = 20
"""Paths that are named for each reason; the others are counted."""


class DivergenceReason(enum.StrEnum):
    """What `kit` does otherwise, as a person reads it after a path."""

    DOTS = "kit leaves out names that hold '..', and refuses to unpack a kit that has one"
    PREFIX = "kit 1.7 leaves it out, because its path begins like that of another layer"


class PackedEntry(Protocol):
    """A file or directory that at least one layer takes."""

    @property
    def path(self) -> bytes:
        """Relative to the project."""
        ...

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        ...

    @property
    def layers(self) -> tuple[int, ...]:
        """The numbers of the layers that take it."""
        ...


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first `MAX_PATHS` paths, in pack order, that share a reason, and the count of all."""

    reason: DivergenceReason
    paths: tuple[bytes, ...]
    count: int


@dataclass(slots=True)
class _Tally:
    paths: list[bytes] = field(default_factory=list)
    count: int = 0

    def add(self, path: bytes) -> None:
        self.count += 1
        if len(self.paths) < MAX_PATHS:
            self.paths.append(path)


def find_divergences(
    plans: Sequence[LayerPlan], entries: Iterable[PackedEntry], dialect: Dialect
) -> tuple[Divergence, ...]:
    """Return what `kit` would not pack or not unpack of the entries that these layers take."""
    # A layer whose path begins with another's is that one's child to `kit` and keeps its files.
    rivals = [
        tuple({other.path for other in plans if not plan.path.startswith(other.path)})
        if dialect is Dialect.KIT_1_7
        else ()
        for plan in plans
    ]
    has_rivals = any(rivals)
    tallies = {reason: _Tally() for reason in DivergenceReason}
    for entry in entries:
        if b".." in entry.path:
            tallies[DivergenceReason.DOTS].add(entry.path)
        # The directories that lead to a layer are in it too; those `kit` leaves in.
        elif (
            has_rivals
            and not entry.is_dir
            and any(entry.path.startswith(rivals[n]) for n in entry.layers)
        ):
            tallies[DivergenceReason.PREFIX].add(entry.path)
    return tuple(
        Divergence(reason, tuple(tally.paths), tally.count)
        for reason, tally in tallies.items()
        if tally.count
    )
