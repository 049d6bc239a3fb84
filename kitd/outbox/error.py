"""Why an endpoint was not told of an event. None of them says more of its URL than the host."""

from typing import ClassVar

from kitd.errors import Disposition, KitdError


class EndpointError(KitdError):
    """An endpoint was not told of an event: the connection broke, or what answers is no HTTP."""

    code: ClassVar[str] = "notification_failed"
    disposition: ClassVar[Disposition] = Disposition.RETRY

    def __init__(
        self, message: str, *, hint: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class EndpointUnreachableError(EndpointError):
    """No connection to the endpoint, or to the proxy before it, can be made."""

    code: ClassVar[str] = "notification_unreachable"


class EndpointTimeoutError(EndpointError):
    """The endpoint took too long to answer."""

    code: ClassVar[str] = "notification_timeout"


class EndpointTlsError(EndpointError):
    """TLS failed, or the endpoint's certificate is not trusted."""

    code: ClassVar[str] = "notification_tls"


class EndpointRefusedError(EndpointError):
    """The endpoint answered, but not with a 2xx."""

    code: ClassVar[str] = "notification_refused"


class EndpointGoneError(EndpointRefusedError):
    """The endpoint answered that it is gone for good (410)."""

    code: ClassVar[str] = "notification_gone"


class EndpointFileError(EndpointError):
    """The file with an endpoint's secret or URL cannot be used."""

    code: ClassVar[str] = "notification_file"
