"""What says that somebody is at work on a whole tree: a person's file, or the lock of a tool."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kitd.hold import HOLD_FILE, Hold
from kitd.packing.gate import dvc, git
from kitd.packing.gate.tool import Sign

HOLD_FILE_NAME = ".kitd-hold"
STALE_NS = 600_000_000_000
"""A lock that is older was left behind by something that died: it is told and ignored."""
Tools = Sequence[tuple[str, Callable[[str], Iterator[Sign]]]]
TOOLS: Tools = (
    ("git", git.signs),
    ("dvc", dvc.signs),
)


@dataclass(frozen=True, slots=True)
class TreeFinding:
    """What holds a tree back, and which locks were ignored."""

    holds: tuple[Hold, ...]
    warnings: tuple[str, ...]


def tree_holds(root: int, root_path: str, *, now_ns: int, tools: Tools = TOOLS) -> TreeFinding:
    """Return who is at work on the tree below an open directory, without looking at its files.

    `root_path` is absolute; the repository that the project is in may begin above it.
    """
    holds: list[Hold] = []
    warnings: list[str] = []
    if _has_hold_file(root):
        holds.append(Hold(HOLD_FILE, HOLD_FILE_NAME, "its presence holds the project back"))
    for gate, signs in tools:
        for sign in signs(root_path):
            # A time to come, from a clock that was wrong, is as old.
            if sign.since_ns is not None and abs(now_ns - sign.since_ns) > STALE_NS:
                minutes = STALE_NS // 60_000_000_000
                warnings.append(f"{sign.path} is older than {minutes} minutes and ignored")
            else:
                holds.append(Hold(gate, sign.path, sign.detail))
    return TreeFinding(tuple(holds), tuple(warnings))


def _has_hold_file(root: int) -> bool:
    try:
        os.stat(HOLD_FILE_NAME, dir_fd=root, follow_symlinks=False)
    except OSError:
        return False
    return True
