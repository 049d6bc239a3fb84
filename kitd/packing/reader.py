"""Reading what a layer takes: each file once, its status compared before and after.

A file is opened, its status compared with what the walk saw, read to exactly its size, and its
status compared again. Because the walk never follows links and a file is known by device and inode,
a directory that is swapped for a link in between cannot smuggle anything in.

Small files come by the ten thousand, and each call counts: where the kernel keeps writers out for
as long as one is read, one comparison does for both.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from kitd.caller import Caller
from kitd.errors import printable
from kitd.modelkit.tar import TRAILER, header, padding
from kitd.packing.gate.lease import Leases, has_writer, keep_writers_out
from kitd.packing.scan import (
    FILE_FLAGS,
    Entry,
    InputChangedError,
    InputError,
    has_moved,
    require_readable,
)
from kitd.packing.write_back import write_back, write_back_all
from kitd.store.buffer_ring import BufferRing

STEP_BYTES = 1 << 18
"""How much is read at least between two reports of progress."""
YOUNG_NS = 60_000_000_000
"""In this time the kernel writes back whatever is dirty, with a margin. What is stored in an older
file through a mapping shows in its times, be there a writer or not."""
MANY = 64
"""From so many files on the whole file system is written back at once."""
SMALL_BYTES = 1 << 16
"""Up to this size writers wait while a file is read: that is for some microseconds."""


@dataclass(slots=True)
class Writers:
    """Whether programs had files open for writing when kitd began to read these."""

    paths: list[bytes] = field(default_factory=list)
    """Files that were open for writing."""
    is_known: bool = True
    """Whether that could be told of all files."""


class LayerReader:
    """Reads entries into a ring and tells how far it has come.

    Its methods raise `InputError`, `InputChangedError`, and what the ring does.
    """

    def __init__(
        self, root: int, ring: BufferRing, advanced: Callable[[int], None], leases: Leases
    ) -> None:
        self._root = root
        self._ring = ring
        self._advanced = advanced
        self._leases = leases
        self._young_ns = time.time_ns() - YOUNG_NS
        self._written_back = 0
        self._untold = 0
        self.writers = Writers()

    def add_tar(self, entries: Iterable[Entry]) -> None:
        """Add a whole tar."""
        write, gap = self._ring.write, b""
        for entry in entries:
            write(gap + header(entry.path, entry.mode, entry.size, is_dir=entry.is_dir))
            if not entry.is_dir:
                self.add_content(entry)
            gap = padding(entry.size)
        write(gap + TRAILER)

    def add_content(self, entry: Entry) -> None:
        """Add a file's content."""
        room = self._ring.room()
        file = _open(self._root, entry)
        try:
            if entry.size <= SMALL_BYTES and entry.size <= len(room):
                self._read_small(file, entry, room)
            else:
                self._add_large(file, entry)
                return
        finally:
            os.close(file)
        # The ring may have to wait for a disk; nobody else has to wait for the ring.
        self._fill(entry.size)

    def share(self, entry: Entry, take: Callable[[int], bool]) -> bool:
        """Let `take` have a whole file at once, which says whether it could."""
        file = _open(self._root, entry)
        try:
            written = has_writer(file, self._leases)
            if written is not False:
                self._expose(file, entry, is_open=written)
            _check(file, entry)
            if not take(file):
                return False
            _check(file, entry)
        finally:
            os.close(file)
        return True

    def tell(self) -> None:
        """Report what was read and not yet reported."""
        self._advanced(self._untold)
        self._untold = 0

    def _read_small(self, file: int, entry: Entry, room: memoryview) -> None:
        written = keep_writers_out(file, self._leases)
        if written is not False:
            self._expose(file, entry, is_open=written)
        _check(file, entry)
        done = 0
        while done < entry.size:
            done += _read(file, entry, room[done : entry.size])
        if written is not False:
            _check(file, entry)

    def _add_large(self, file: int, entry: Entry) -> None:
        written = has_writer(file, self._leases)
        if written is not False:
            self._expose(file, entry, is_open=written)
        _check(file, entry)
        left = entry.size
        while left:
            count = _read(file, entry, self._ring.room()[:left])
            left -= count
            self._fill(count)
        _check(file, entry)

    def _expose(self, file: int, entry: Entry, *, is_open: bool | None) -> None:
        """Make sure, before a file is read that has a writer, that what it does from now on shows.

        Where nobody can tell, pages that were dirty are written back within half a minute.
        """
        if is_open:
            self.writers.paths.append(entry.path)
        else:
            self.writers.is_known = False
        if is_open or entry.ctime_ns > self._young_ns:
            self._written_back += 1
            if self._written_back == MANY:
                write_back_all(self._root)
            write_back(file)

    def _fill(self, count: int) -> None:
        self._ring.fill(count)
        self._untold += count
        if self._untold >= STEP_BYTES:
            self.tell()


def open_checked(root: int, entry: Entry) -> int:
    """Return a descriptor of the file that the walk saw.

    Raises `InputError`, and `InputChangedError` where another one stands there.
    """
    file = _open(root, entry)
    try:
        _check(file, entry)
    except BaseException:
        os.close(file)
        raise
    return file


def require_readable_files(root: int, entries: Iterable[Entry], reader: Caller) -> None:
    """Check that the reader could read all of these files himself, be their layers known or not.

    Whoever reads them later compares their status with the entry's, in which any change of what
    decides here shows. Raises `UnreadableByCallerError`, and what `open_checked` does.
    """
    for entry in entries:
        if not entry.is_dir:
            file = open_checked(root, entry)
            try:
                require_readable(file, entry.path, reader)
            finally:
                os.close(file)


def _open(root: int, entry: Entry) -> int:
    try:
        return os.open(entry.path, FILE_FLAGS, dir_fd=root)
    except OSError as error:
        if has_moved(error):
            # Not why: a link that took a directory's place must not tell what is where it points.
            raise InputChangedError(
                f"{printable(entry.path)} changed while the kit was packed"
            ) from error
        raise InputError(
            f"cannot read {printable(entry.path)}: {error.strerror}",
            hint="let kitd's user read it, or leave it out in .kitignore",
        ) from error


def _check(file: int, entry: Entry) -> None:
    if not entry.same_file(os.fstat(file)):
        raise InputChangedError(f"{printable(entry.path)} changed while the kit was packed")


def _read(file: int, entry: Entry, target: memoryview) -> int:
    try:
        count = os.readv(file, (target,))
    except OSError as error:
        raise InputError(f"cannot read {printable(entry.path)}: {error.strerror}") from error
    if count == 0:
        raise InputChangedError(f"{printable(entry.path)} became shorter while it was read")
    return count
