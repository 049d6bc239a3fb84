"""Which files of a project are not finished: each is opened once, for all gates."""

import itertools
import os
from collections.abc import Collection, Iterator, Sequence

from kitd.caller import Caller
from kitd.errors import printable
from kitd.hold import MAX_HOLDS, Hold
from kitd.packing.gate import incomplete, recent, temporary, truncated, writer
from kitd.packing.gate.lease import Leases, has_writer
from kitd.packing.gate.subject import Gate, Moment, Subject
from kitd.packing.scan import FILE_FLAGS, Entry, Tree

GATES: tuple[Gate, ...] = (
    temporary.GATE,
    writer.GATE,
    recent.GATE,
    truncated.GATE,
)
"""In the order in which they are asked; a file's first finding is told."""


def file_holds(
    root: int,
    tree: Tree,
    judged: Collection[bytes],
    *,
    now_ns: int,
    patience_s: float,
    leases: Leases = Leases.TELL,
    is_read_next: bool = False,
    reader: Caller | None = None,
) -> tuple[Hold, ...]:
    """Return what is not finished of the files whose paths are `judged`, at most `MAX_HOLDS`.

    `root` is the project's open directory. A file that cannot be read, or is not the one that the
    walk saw, holds nothing: the pack, or the next walk, has to say that. `patience_s` is for how
    long an unchanged file may hold that only looks unfinished. Who reads the files next finds out
    then whether programs write to them. Beyond the tree nothing is looked at that a `reader` could
    not look at himself. The process has to ignore SIGIO.
    """
    gates = [gate for gate in GATES if not (is_read_next and gate.asks_for_writers)]
    moment = Moment(now_ns, patience_s * 1e9, leases)
    found = itertools.chain(
        _unfinished(root, tree, judged, moment, gates),
        incomplete.holds(root, tree, judged, moment, reader),
    )
    return tuple(itertools.islice(found, MAX_HOLDS))


def _unfinished(
    root: int, tree: Tree, judged: Collection[bytes], moment: Moment, gates: Sequence[Gate]
) -> Iterator[Hold]:
    for entry in tree.entries:
        if entry.is_dir or entry.path not in judged:
            continue
        concerned = [gate for gate in gates if gate.concerns(entry, moment)]
        if concerned and (hold := _judge(root, entry, moment, concerned)) is not None:
            yield hold


def _judge(root: int, entry: Entry, moment: Moment, gates: Sequence[Gate]) -> Hold | None:
    try:
        file = os.open(entry.path, FILE_FLAGS, dir_fd=root)
    except OSError:
        return None
    try:
        if not entry.same_file(os.fstat(file)):
            return None
        written = None
        if any(gate.asks_for_writers for gate in gates):
            written = has_writer(file, moment.leases)
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
