"""What the gates of files are asked about, and what a gate is."""

from collections.abc import Callable
from typing import NamedTuple

from kitd.packing.gate.lease import Leases
from kitd.packing.scan import Entry


class Moment(NamedTuple):
    """When the files are judged, in nanoseconds since the epoch, and for how long some gates hold.

    What only looks unfinished holds while the file changed within `patience_ns`.
    """

    now_ns: int
    patience_ns: float
    leases: Leases = Leases.TELL

    def is_young(self, entry: Entry) -> bool:
        """Whether a file changed lately. A clock that ran ahead when it did makes no difference."""
        return abs(self.now_ns - entry.ctime_ns) < self.patience_ns


class Subject(NamedTuple):
    """An open file that is what the walk saw."""

    entry: Entry
    file: int
    moment: Moment
    written: bool | None
    """Whether a program has it open for writing; None if nobody can tell, or no gate asks."""


class Gate(NamedTuple):
    """One reason to wait for a file."""

    name: str
    """Stable, snake_case: people see it."""
    concerns: Callable[[Entry, Moment], bool]
    """Whether a file is worth opening for this gate."""
    finding: Callable[[Subject], str | None]
    """Returns what is wrong with a file that concerns it, or None. Raises `OSError`."""
    asks_for_writers: bool = False
    """Whether its finding depends on `Subject.written`."""
