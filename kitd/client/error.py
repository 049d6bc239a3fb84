"""What can go wrong between a client and the daemon."""

from kitd.errors import Disposition, KitdError, UnavailableError


class DaemonUnreachableError(UnavailableError):
    """Nobody answers on the socket, or the connection ended in the middle."""

    code = "daemon_unreachable"


class AccessDeniedError(KitdError):
    """The socket exists and this user may not open it."""

    code = "denied"


class ClientClosedError(KitdError):
    """A client was asked for something after it was closed."""

    code = "client_closed"


class ArgumentError(KitdError):
    """A client was given a value that it cannot do anything with."""

    code = "invalid_argument"


class DeadlineExceededError(KitdError):
    """The answer, or the end of a job, did not come in time."""

    code = "timeout"
    disposition = Disposition.RETRY


class ProtocolError(KitdError):
    """What came over the socket is not the protocol this client speaks."""

    code = "protocol"


class RpcError(KitdError):
    """The daemon refused or failed a call; `code` is the daemon's own, such as `not_found`."""

    def __init__(self, code: str, message: str, *, hint: str | None, retryable: bool) -> None:
        super().__init__(message, hint=hint)
        # The one family whose code is data: it names an error of the other side.
        self.code = code  # type: ignore[misc]
        self.retryable = retryable
        self.disposition = Disposition.RETRY if retryable else Disposition.FAIL  # type: ignore[misc]
