"""What an unpack is going to write: directories and staged files by name, without a clash. Pure."""

from typing import NamedTuple

from kitd.client.tar_reader import (
    MAX_ENTRIES,
    DuplicateEntryError,
    TooManyEntriesError,
    printable,
)

DEFAULT_DIRECTORY_MODE = 0o755
"""Of directories that no entry describes."""
MAX_NAMES_BYTES = 128 << 20
"""Of all names together, which an unpack keeps: with `MAX_ENTRIES` it takes 400 MB at most."""


class StagedFile(NamedTuple):
    """A file that is complete under the name `number` in the staging directory."""

    number: int
    inode: int
    size: int


def parent_of(name: bytes) -> bytes:
    """Return the directory of a clean name; `b""` is the root."""
    return name.rpartition(b"/")[0]


class Tree:
    """The union of all layers. A name may come twice only if it is a directory both times.

    A directory that is only part of names counts like an entry: a few bytes can imply very many.
    """

    def __init__(self) -> None:
        self.files: dict[bytes, StagedFile] = {}
        self.directories: dict[bytes, int] = {}
        self._implied: set[bytes] = set()
        self._entries = 0
        self._names_bytes = 0

    @property
    def remaining_entries(self) -> int:
        """How many entries may still be added."""
        return MAX_ENTRIES - self._entries

    def add_directory(self, name: bytes, mode: int) -> None:
        """Add a directory; the first entry decides its mode.

        Raises `DuplicateEntryError`, `TooManyEntriesError`.
        """
        self._count(name)
        if name in self.files:
            raise _clash(name)
        self._add_parents(name)
        if name not in self.directories or name in self._implied:
            self._implied.discard(name)
            self.directories[name] = mode

    def check_file(self, name: bytes) -> None:
        """Raise `DuplicateEntryError`, `TooManyEntriesError` if such a file cannot be added."""
        if name in self.files or name in self.directories:
            raise _clash(name)
        self._count(name)
        self._add_parents(name)

    def add_file(self, name: bytes, file: StagedFile) -> None:
        """Add a file whose name `check_file` has passed."""
        self.files[name] = file

    def _add_parents(self, name: bytes) -> None:
        # A directory that is known has known parents.
        while (name := parent_of(name)) and name not in self.directories:
            if name in self.files:
                raise _clash(name)
            self._count(name)
            self.directories[name] = DEFAULT_DIRECTORY_MODE
            self._implied.add(name)

    def _count(self, name: bytes) -> None:
        self._entries += 1
        self._names_bytes += len(name)
        if self._entries > MAX_ENTRIES:
            raise TooManyEntriesError(
                f"the kit holds more than {MAX_ENTRIES} files and directories",
                hint="unpack less of it with --filter",
            )
        if self._names_bytes > MAX_NAMES_BYTES:
            raise TooManyEntriesError(
                f"the names in the kit have more than {MAX_NAMES_BYTES >> 20} MiB together",
                hint="unpack less of it with --filter",
            )


def _clash(name: bytes) -> DuplicateEntryError:
    return DuplicateEntryError(
        f"the kit holds '{printable(name)}' twice", hint="unpack one of the two with --filter"
    )
