"""The state directory and the cache: for their owner only, locked while a daemon lives in them.

The lock is what makes recovery instant: whoever holds it knows that every attempt which the ledger
calls running belongs to a daemon that is gone. A cache has one of its own, because it may be
elsewhere: what the ledger of one daemon does not need it collects, and sweeps what it did not
begin, so that a second daemon would lose its blobs to the first.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kitd.errors import KitdError


class StateDirError(KitdError):
    """The state directory or the cache cannot be used."""

    code = "state_dir"


@contextmanager
def locked_state_dir(path: Path) -> Iterator[Path]:
    """Make the directory if need be and hold its lock. Raises `StateDirError`."""
    with _locked(path / "kitd.lock", "the state directory", "state_dir or KITD_STATE_DIR"):
        yield path


@contextmanager
def locked_cache_dir(path: Path) -> Iterator[Path]:
    """Make the directory if need be and hold its lock. Raises `StateDirError`."""
    with _locked(path / "cache.lock", "the cache", "cache.dir"):
        yield path


@contextmanager
def _locked(lock: Path, what: str, option: str) -> Iterator[None]:
    path = lock.parent
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateDirError(
            f"cannot use {what} {path}: {error.strerror}",
            hint=f"set {option} to a directory that kitd's user can write",
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
            raise StateDirError(
                f"another kitd{f' (pid {owner})' if owner else ''} uses {path}",
                hint=f"stop it, or set {option} to a directory of its own",
            ) from error
        # For people only: a disk that is full must not keep kitd from starting.
        with suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
