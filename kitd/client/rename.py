"""Moving a file to a name that must be free, which rename(2) does not ask about."""

import ctypes
import errno
import os
from contextlib import suppress

_RENAME_NOREPLACE = 1
_UNKNOWN = (errno.EINVAL, errno.ENOSYS)
"""What file systems and kernels answer that do not know the flag (renameat2(2))."""


def rename_to_free(
    source: bytes, source_directory: int, target: bytes, target_directory: int
) -> None:
    """Move a file, by names in open directories. Raises `FileExistsError`, `OSError`."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        _replace_own(source, source_directory, target, target_directory)
        return
    if rename(source_directory, source, target_directory, target, _RENAME_NOREPLACE) == 0:
        return
    code = ctypes.get_errno()
    if code not in _UNKNOWN:
        raise OSError(code, os.strerror(code))
    _replace_own(source, source_directory, target, target_directory)


def _replace_own(
    source: bytes, source_directory: int, target: bytes, target_directory: int
) -> None:
    """Take the name with an empty file first, which only one can do."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    os.close(os.open(target, flags, 0o600, dir_fd=target_directory))
    try:
        os.rename(source, target, src_dir_fd=source_directory, dst_dir_fd=target_directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(target, dir_fd=target_directory)
        raise
