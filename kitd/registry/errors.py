"""What can go wrong with a registry, and how answers and exceptions become one of these errors.

The mapping of responses is a pure function of the status, headers and body; exceptions of the HTTP
library are mapped by `http_errors`, which every wait for the network stands in.
"""

import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import aiohttp

from kitd.content.store import ContentNotFoundError, MismatchError
from kitd.errors import Disposition, KitdError
from kitd.oci.manifest import InvalidManifestError
from kitd.oci.registry_error import parse_error_body
from kitd.registry.governor import FAILURES, Closed, Closure

LEAST_OUTAGE_S = 5.0
"""A server that failed and wants to be asked again sooner has not said when it will be well."""


class RegistryError(KitdError):
    """A registry did not do what was asked. `host` and `operation` say where and what."""

    code = "registry"

    def __init__(
        self,
        reason: str,
        *,
        host: str,
        operation: str,
        hint: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"cannot {operation} at {host}: {reason}", hint=hint)
        self.host = host
        self.operation = operation
        self.retry_after_s = retry_after_s


class RegistryUnreachableError(RegistryError):
    """There is no connection, or it broke before the answer was complete."""

    code = "registry_unreachable"
    disposition: ClassVar[Disposition] = Disposition.RETRY


class RegistryTimeoutError(RegistryError):
    """The registry was silent for too long."""

    code = "registry_timeout"
    disposition: ClassVar[Disposition] = Disposition.RETRY


class RegistryTlsError(RegistryError):
    """No TLS connection that can be trusted, or TLS on one side only."""

    code = "registry_tls"


class RegistryProxyError(RegistryError):
    """The proxy on the way to the registry cannot be used, or refuses."""

    code = "registry_proxy"


class RegistryDeniedError(RegistryError):
    """The credentials are missing, refused or do not allow this."""

    code = "registry_denied"


class RegistryNotFoundError(RegistryError, ContentNotFoundError):
    """The repository, the manifest or the blob is not there."""

    code = "not_found"


class RegistryRateLimitedError(RegistryError):
    """Too many requests; `retry_after_s` is what the registry asked for, if it did."""

    code = "registry_rate_limited"
    disposition: ClassVar[Disposition] = Disposition.RETRY


class RegistryServerError(RegistryError):
    """The registry failed (5xx)."""

    code = "registry_failed"
    disposition: ClassVar[Disposition] = Disposition.RETRY


class RegistryRejectedError(RegistryError):
    """The registry understood and refused (4xx)."""

    code = "registry_rejected"


class RegistryTooLargeError(RegistryRejectedError):
    """The registry, or a proxy before it, takes nothing of this size in one request."""


class RegistryUnsupportedError(RegistryRejectedError):
    """The registry knows no such request."""


class UnsafeRemovalError(RegistryError):
    """A manifest is not deleted, because not all can be seen that might need it."""

    code = "unsafe_removal"


class RegistryStateError(RegistryError):
    """The registry no longer has an upload or a blob that it had accepted."""

    code = "registry_state"
    disposition: ClassVar[Disposition] = Disposition.RETRY


class RegistryMismatchError(RegistryError, MismatchError):
    """Content does not have the digest or the size it was announced with."""

    code = "digest_mismatch"


class RegistryProtocolError(RegistryError):
    """The answer is not what a registry may answer."""

    code = "registry_protocol"


class RegistryManifestError(RegistryProtocolError, InvalidManifestError):
    """What a tag names is not a manifest or an index that kitd can follow."""

    code = "invalid_manifest"


_BLOB_UNKNOWN = "MANIFEST_BLOB_UNKNOWN"
_STATE_CODES = frozenset({"BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", _BLOB_UNKNOWN})
_MISMATCH_CODES = frozenset({"DIGEST_INVALID", "SIZE_INVALID"})
# What Go's server, nginx and Apache say to a plain request on their TLS port.
_PROXY_LOGIN = "give its user and password in HTTPS_PROXY or HTTP_PROXY: http://user:password@host"
_TLS_WANTED = re.compile(r"(?i)http request.*https|plain http.*https|speaking plain http")
_TLS_UNWANTED = re.compile(r"(?i)wrong.version.number|record.layer.failure|unknown.protocol")
_CERTIFICATE_WANTED = re.compile(r"(?i)alert.(?:bad.certificate|certificate|unknown.ca)")
_CLIENT_CERT = "set client_cert and client_key to what the registry trusts, under registries"


def response_error(
    status: int,
    body: bytes,
    *,
    content_type: str,
    retry_after_s: float | None,
    host: str,
    operation: str,
) -> RegistryError:
    """Return the error that an answer with this status and body stands for.

    `retry_after_s` counts where waiting can help: an error that has it costs a job no attempt.
    """
    messages = parse_error_body(body, content_type)
    codes = {message.code for message in messages}
    said = "; ".join(str(message) for message in messages if str(message))
    reason = f"{said} (HTTP {status})" if said else f"it answered with HTTP {status}"
    kind: type[RegistryError] = RegistryRejectedError
    hint = None
    if status == 429:
        return RegistryRateLimitedError(
            reason, host=host, operation=operation, retry_after_s=retry_after_s
        )
    if status >= 500:
        kind = RegistryServerError
    elif status in (401, 403):
        kind = RegistryDeniedError
        hint = f"log in with: docker login {host}"
    elif status == 407:
        kind = RegistryProxyError
        hint = _PROXY_LOGIN
    elif _TLS_WANTED.search(said):
        kind = RegistryTlsError
        hint = f"{host} wants TLS: set plain_http: false for it under registries"
    elif "html" in content_type.lower() and status in (400, 404, 405):
        return html_error(said, host=host, operation=operation)
    elif codes & _MISMATCH_CODES and _BLOB_UNKNOWN not in codes:
        # Of a blob that it is about to link, distribution says both.
        kind = RegistryMismatchError
    elif codes & _STATE_CODES:
        kind = RegistryStateError
    elif status == 405 or "UNSUPPORTED" in codes:
        kind = RegistryUnsupportedError
    elif status == 404:
        kind = RegistryNotFoundError
        hint = "check the name and the tag; some registries hide what a login may not see"
    elif status == 408:
        kind = RegistryTimeoutError
    elif status == 413:
        kind = RegistryTooLargeError
        hint = "the registry or a proxy before it limits the size of requests: try upload.chunk"
    knows_when = kind is RegistryServerError and (retry_after_s or 0.0) >= LEAST_OUTAGE_S
    after_s = retry_after_s if knows_when else None
    return kind(reason, host=host, operation=operation, hint=hint, retry_after_s=after_s)


def closed_error(closed: Closed, site: str, *, host: str, operation: str) -> RegistryError:
    """Return the error for a request that was not sent, because `site` is left alone for now."""
    after_s = closed.for_s
    if closed.closure is Closure.FORBIDDEN:
        return RegistryRateLimitedError(
            f"{site} wants no requests for {after_s:.0f} s",
            host=host,
            operation=operation,
            hint="it is tried again after that",
            retry_after_s=after_s,
        )
    return RegistryUnreachableError(
        f"{site} failed {FAILURES} times in a row and is left alone for {after_s:.0f} s",
        host=host,
        operation=operation,
        hint=f"check that {site} is up and can be reached from here",
        retry_after_s=after_s,
    )


def html_error(page: str, *, host: str, operation: str) -> RegistryProtocolError:
    """Return the error for a web page; `page` is "an HTML page (title)" or empty."""
    return RegistryProtocolError(
        f"it answered with {page or 'an HTML page'}",
        host=host,
        operation=operation,
        hint=f"is {host} really a registry? A login page or a web server answers there",
    )


@contextmanager
def http_errors(host: str, operation: str) -> Iterator[None]:
    """Map what the HTTP library raises to the errors above."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, ssl.SSLError) as error:
        # A request whose body could not be read fails as a lost connection, caused by the source's
        # own error: that one is the truth.
        if isinstance(error.__cause__, KitdError):
            raise error.__cause__ from None
        raise _connection_error(error, host, operation) from error


def _connection_error(error: Exception, host: str, operation: str) -> RegistryError:
    """Return the error for an exception, whose own text may hold a signed URL and is not quoted."""
    kind: type[RegistryError] = RegistryUnreachableError
    reason, hint = "the connection broke", None
    if (trouble := _tls_trouble(error, host)) is not None:
        reason, hint = trouble
        return RegistryTlsError(reason, host=host, operation=operation, hint=hint)
    match error:
        case aiohttp.ClientProxyConnectionError():
            reason = f"its proxy cannot be reached ({_system_reason(error)})"
            hint = f"check proxy for {host} under registries, or HTTPS_PROXY and HTTP_PROXY"
        case aiohttp.ClientConnectorError():
            reason = _system_reason(error)
            hint = f"check that {host} is up and can be reached from here"
        case aiohttp.ClientHttpProxyError():
            # A gateway's 5xx tells of what is behind it, and that may be over soon.
            if error.status < 500:
                kind = RegistryProxyError
            reason = f"the proxy refused (HTTP {error.status})"
            hint = _PROXY_LOGIN if error.status == 407 else None
        case TimeoutError():
            kind = RegistryTimeoutError
            reason = "it did not answer in time"
        case aiohttp.ClientResponseError():
            # Not HTTP at all: most often the alert with which a TLS server answers plain HTTP.
            kind = RegistryProtocolError
            reason = f"the answer is not HTTP ({error.message.partition(chr(10))[0][:160]})"
            hint = f"if {host} speaks TLS, set plain_http: false for it under registries"
        case aiohttp.InvalidURL():
            kind = RegistryProtocolError
            reason = "it answered with an invalid URL"
        case aiohttp.ClientPayloadError():
            reason = "the answer was cut off"
        case OSError(errno=int()):
            reason = f"the connection broke ({_system_reason(error)})"
        case _:
            pass
    return kind(reason, host=host, operation=operation, hint=hint)


def _tls_trouble(error: Exception, host: str) -> tuple[str, str | None] | None:
    """Return what is wrong with TLS and what helps, None where it is not TLS."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            reason = f"its certificate is not trusted ({error.certificate_error})"
            if "expired" in reason:
                return (
                    reason,
                    f"renew the certificate of {host}; if it is valid, this clock is wrong",
                )
            return (
                reason,
                f"set ca_file for {host} under registries if the registry has a private CA",
            )
        case aiohttp.ClientConnectorSSLError() | ssl.SSLError():
            cause = str(getattr(error, "os_error", error))
            hint = ""
            if _TLS_UNWANTED.search(cause):
                hint = f"if {host} speaks plain HTTP, set plain_http: true for it under registries"
            elif _CERTIFICATE_WANTED.search(cause):
                hint = _CLIENT_CERT
            return f"TLS failed ({cause})", hint or None
        case aiohttp.ClientOSError() if _CERTIFICATE_WANTED.search(str(error.strerror)):
            # With TLS 1.3 a server says so only after the handshake.
            return "it refused the client certificate, or the lack of one", _CLIENT_CERT
    return None


def _system_reason(error: OSError) -> str:
    """Return the operating system's words, not those that libraries put around its number."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or "it cannot be reached"
