"""The errors of the command line itself."""

from kitd.errors import KitdError


class UsageError(KitdError):
    """The command line does not say what to do."""

    code = "usage"


class InterruptedByUserError(KitdError):
    """The person pressed Ctrl-C. A job that was waited for goes on."""

    code = "interrupted"
