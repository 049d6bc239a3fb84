"""Opening directories below a root one component at a time, never through a symbolic link."""

import os
from typing import Self

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Walker:
    """Keeps the directories of the last path open: sorted names cost one `open` a directory.

    Who swaps a directory for a link while an unpack runs changes nothing outside: each step is
    relative to a handle and refuses links.
    """

    def __init__(self, root: int) -> None:
        """Walk below the open directory `root`, which stays the caller's."""
        self._root = root
        self._path: list[tuple[bytes, int]] = []

    def open(self, name: bytes) -> int:
        """Return a handle of the directory, valid until the next call; `b""` is the root.

        Raises `FileNotFoundError`, and other `OSError`s where a component is no directory.
        """
        parts = name.split(b"/") if name else []
        shared = 0
        for part, (known, _) in zip(parts, self._path, strict=False):
            if part != known:
                break
            shared += 1
        self._leave(shared)
        handle = self._path[-1][1] if self._path else self._root
        for part in parts[shared:]:
            handle = os.open(part, _DIRECTORY, dir_fd=handle)
            self._path.append((part, handle))
        return handle

    def close(self) -> None:
        """Close the directories that are still open."""
        self._leave(0)

    def _leave(self, depth: int) -> None:
        while len(self._path) > depth:
            os.close(self._path.pop()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
