"""The errors of the command line itself."""

from kitd.errors import KitdError


class UsageError(KitdError):
    """The command line does not say what to do."""

    code = "usage"


class FileExistsAlreadyError(KitdError):
    """What is to be written exists, and nobody said that it may be replaced."""

    code = "file_exists"


class UnwritableFileError(KitdError):
    """A file cannot be written where the person wants it."""

    code = "unwritable"


class UnwritableOutputError(UnwritableFileError):
    """What a command prints cannot be written, as on a disk that is full."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write: {error.strerror or error}")


class InterruptedByUserError(KitdError):
    """The person pressed Ctrl-C. A job that was waited for goes on."""

    code = "interrupted"
