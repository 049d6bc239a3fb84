"""The gate for files that may be open for writing where nobody can tell: they have to be quiet.

How long grows with the size, because large files are written by slow copies.
"""

from kitd.packing.gate.subject import Gate, Moment, Subject
from kitd.packing.scan import Entry

MIN_QUIET_NS = 2_000_000_000
MAX_QUIET_NS = 120_000_000_000
NS_PER_BYTE = 5
"""Two hundred megabytes a second."""


def _concerns(entry: Entry, moment: Moment) -> bool:
    # A clock that ran ahead when the file was written must not hold it for ever.
    quiet_ns = min(max(MIN_QUIET_NS, entry.size * NS_PER_BYTE), MAX_QUIET_NS)
    return abs(moment.now_ns - entry.mtime_ns) < quiet_ns and moment.is_young(entry)


def _finding(subject: Subject) -> str | None:
    if subject.written is None:
        return "it was written a moment ago, and whether a program still does cannot be told"
    return None


GATE = Gate("recent", _concerns, _finding, asks_for_writers=True)
