"""What a tool leaves in a tree while it works on all of it, and where to look for that."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from kitd.errors import printable

MAX_DEPTH = 128


@dataclass(frozen=True, slots=True)
class Sign:
    """A file that says that a tool is at work, and since when.

    `since_ns` is None where the work may well take long, or is known to go on.
    """

    path: str
    detail: str
    since_ns: int | None = None


def find_upwards(directory: str, name: str) -> str | None:
    """Return the path of `name` in a directory or the nearest one above that has it.

    As git does, this goes no further than the file system that the directory is on.
    """
    for path in _upwards(directory):
        found = os.path.join(path, name)
        if os.path.lexists(found):
            return found
    return None


def _upwards(directory: str) -> Iterator[str]:
    device: int | None = None
    for _ in range(MAX_DEPTH):
        try:
            here = os.stat(directory).st_dev
        except OSError:
            return
        if device not in (None, here):
            return
        device = here
        yield directory
        parent = os.path.dirname(directory)
        if parent == directory:
            return
        directory = parent


def shown(path: str, root: str) -> str:
    """Return a path for a message: relative to the project, absolute where it is outside of it."""
    inside = path.removeprefix(f"{root.rstrip('/')}/")
    return printable(inside)
