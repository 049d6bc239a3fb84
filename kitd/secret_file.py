"""Files of secrets: read whole, within bounds, and never waited for as a pipe would be.

Each room that has such files gives what is wrong with them a code of its own.
"""

import os
import stat
from pathlib import Path

MAX_BYTES = 64 << 10
MIN_SHARED_BYTES = 16
"""Of a secret that both ends of a webhook have: who saw one signature can try all shorter ones."""


def read_whole(path: Path, *, max_bytes: int) -> tuple[bytes, int]:
    """Return the content of a small file and its mode (`st_mode`). Blocks.

    Raises `OSError`, and `ValueError` for what is no file or larger: "is not a file".
    """
    # The descriptor is the file's own: of a directory it would not be closed otherwise.
    with open(path, "rb", opener=_open) as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError("is not a file")
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"has more than {max_bytes} bytes")
    return content, mode


def read_secret(path: Path, *, at_least_bytes: int = 1) -> bytes:
    """Return the content of a file without white space around it. Blocks.

    Raises `ValueError`, which says what is wrong with the file and nothing of what is in it:
    "cannot be read: No such file or directory", "is empty".
    """
    try:
        content, _ = read_whole(path, max_bytes=MAX_BYTES)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from error
    secret = content.strip()
    if not secret:
        raise ValueError("is empty")
    if len(secret) < at_least_bytes:
        raise ValueError(f"holds a secret of fewer than {at_least_bytes} bytes")
    return secret


def _open(path: str, flags: int) -> int:
    # Whoever opens a pipe would wait for its other end.
    return os.open(path, flags | os.O_NONBLOCK)
