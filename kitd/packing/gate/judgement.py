"""Which files of a project are not finished: each is opened once, for all gates."""

import itertools
import os
from collections.abc import Collection, Iterable, Iterator

from kitd.packing.gate import incomplete, recent, temporary, truncated, writer
from kitd.packing.gate.subject import Gate, Moment, Subject
from kitd.packing.gate.writer import has_writer
from kitd.packing.hold import Hold
from kitd.packing.scan import Entry, Tree, printable

MAX_HOLDS = 20
"""As many are told one by one; the others are counted."""
GATES: tuple[Gate, ...] = (
    temporary.GATE,
    writer.GATE,
    recent.GATE,
    truncated.GATE,
)
"""In the order in which they are asked; a file's first finding is told."""


def file_holds(
    root: int, tree: Tree, judged: Collection[bytes], *, now_ns: int, patience_s: float
) -> tuple[Hold, ...]:
    """Return what is not finished of the files whose paths are `judged`.

    `root` is the project's open directory. A file that cannot be read, or is not the one that the
    walk saw, holds nothing: the pack, or the next walk, has to say that. `patience_s` is for how
    long an unchanged file may hold that only looks unfinished. The process has to ignore SIGIO.
    """
    moment = Moment(now_ns, patience_s * 1e9)
    found = itertools.chain(
        _unfinished(root, tree, judged, moment), incomplete.holds(root, tree, judged, moment)
    )
    holds = tuple(itertools.islice(found, MAX_HOLDS))
    rest = list(itertools.islice(found, 1))
    if not rest:
        return holds
    count = len(rest) + sum(1 for _ in found)
    return (*holds, Hold(rest[0].gate, f"{count} more", "not finished either"))


def _unfinished(root: int, tree: Tree, judged: Collection[bytes], moment: Moment) -> Iterator[Hold]:
    for entry in tree.entries:
        if entry.is_dir or entry.path not in judged:
            continue
        gates = [gate for gate in GATES if gate.concerns(entry, moment)]
        if gates and (hold := _judge(root, entry, moment, gates)) is not None:
            yield hold


def _judge(root: int, entry: Entry, moment: Moment, gates: Iterable[Gate]) -> Hold | None:
    # Should a fifo have taken the file's place, opening it must not wait for a writer.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.open(entry.path, flags, dir_fd=root)
    except OSError:
        return None
    try:
        if not entry.same_file(os.fstat(file)):
            return None
        written = has_writer(file) if moment.is_young(entry) else None
        subject = Subject(entry, file, moment, written)
        for gate in gates:
            detail = gate.finding(subject)
            if detail is not None:
                return Hold(gate.name, printable(entry.path), detail)
    except OSError:
        return None
    finally:
        os.close(file)
    return None
