"""The gate for files that a program has open for writing.

A program that keeps a file open but does not write to it any more, such as a service its log, holds
only until the file is old.
"""

from kitd.packing.gate.subject import Gate, Moment, Subject
from kitd.packing.scan import Entry


def _concerns(entry: Entry, moment: Moment) -> bool:
    return moment.is_young(entry)


def _finding(subject: Subject) -> str | None:
    return "a program has it open for writing" if subject.written else None


GATE = Gate("writer", _concerns, _finding, asks_for_writers=True)
