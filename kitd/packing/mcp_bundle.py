"""What an MCP bundle must be to be packed: a ZIP archive with a manifest.json at its root.

`kit` asks for the same. Nothing is unpacked: only the archive's own directory, at its end, is read,
and of that no more than a bound, because zipfile takes it into memory whole.
"""

import os
import zipfile
from typing import BinaryIO

MANIFEST = "manifest.json"
MAX_DIRECTORY_BYTES = 4 * 1024 * 1024
"""The directory of some fifty thousand files."""


class _BoundedReader:
    """A file of which at most `MAX_DIRECTORY_BYTES` are read in all."""

    def __init__(self, file: BinaryIO) -> None:
        self._left_bytes = MAX_DIRECTORY_BYTES
        self._file = file
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int = -1, /) -> bytes:
        content = self._file.read(self._left_bytes + 1 if size < 0 else min(size, self._left_bytes))
        self._left_bytes -= len(content)
        if self._left_bytes <= 0:
            raise zipfile.BadZipFile(f"its directory has more than {MAX_DIRECTORY_BYTES} bytes")
        return content


def bundle_problem(file: int) -> str | None:
    """Return why an open file is no MCP bundle, or None. The descriptor stays open.

    Raises `OSError`.
    """
    with os.fdopen(file, "rb", closefd=False) as content:
        try:
            with zipfile.ZipFile(_BoundedReader(content)) as archive:
                names = archive.namelist()
        # zipfile has no one error: names that are no text and versions of tomorrow raise others.
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            return f"it is not a readable ZIP archive: {error}"
    return None if MANIFEST in names else f"it has no {MANIFEST} at its root"
