"""The state directory: made for its owner only, and locked while a daemon lives in it.

The lock is what makes recovery instant: whoever holds it knows that every attempt which the ledger
calls running belongs to a daemon that is gone.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kitd.errors import KitdError


class StateDirError(KitdError):
    """The state directory cannot be used."""

    code = "state_dir"


@contextmanager
def locked_state_dir(path: Path) -> Iterator[Path]:
    """Make the directory if need be and hold its lock. Raises `StateDirError`."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        handle = os.open(path / "kitd.lock", flags, 0o600)
    except OSError as error:
        raise StateDirError(
            f"cannot use the state directory {path}: {error.strerror}",
            hint="set state_dir or KITD_STATE_DIR to a directory that kitd's user can write",
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
            raise StateDirError(
                f"another kitd{f' (pid {owner})' if owner else ''} uses {path}",
                hint="stop it, or give this one a state_dir of its own",
            ) from error
        # For people only: a disk that is full must not keep kitd from starting.
        with suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield path
    finally:
        os.close(handle)
