"""The exit codes of `kitctl`, a contract with scripts."""

from enum import IntEnum

from kitd.client.outcome import JobFailedError
from kitd.errors import KitdError


class ExitCode(IntEnum):
    """What a script learns without reading a word."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    DENIED = 3
    UNREACHABLE = 4
    TIMEOUT = 5
    INTERRUPTED = 130


_BY_ERROR = {
    "usage": ExitCode.USAGE,
    "denied": ExitCode.DENIED,
    "daemon_unreachable": ExitCode.UNREACHABLE,
    "timeout": ExitCode.TIMEOUT,
    "interrupted": ExitCode.INTERRUPTED,
}


def exit_code_of(error: KitdError) -> ExitCode:
    """Return the exit code for an error that ended a command."""
    # Why a job failed is told by its error, and not by the exit code.
    if isinstance(error, JobFailedError):
        return ExitCode.FAILED
    return _BY_ERROR.get(error.code, ExitCode.FAILED)
