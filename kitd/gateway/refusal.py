"""Errors as the registry's clients see them: a status, a code and a line (OCI, "Error codes")."""

import enum
import json
from collections.abc import Mapping

from kitd.content.store import CollectedError
from kitd.errors import KitdError, UnavailableError
from kitd.gateway.upload import (
    TooManyUploadsError,
    UploadBusyError,
    UploadLengthError,
    UploadUnknownError,
)
from kitd.oci.digest import InvalidDigestError
from kitd.oci.manifest import InvalidManifestError
from kitd.oci.reference import InvalidReferenceError
from kitd.store.blob_store import NoSpaceError


class ErrorCode(enum.StrEnum):
    """The codes of the specification, and `UNKNOWN` for what is nobody's mistake but ours."""

    BLOB_UNKNOWN = "BLOB_UNKNOWN"
    BLOB_UPLOAD_INVALID = "BLOB_UPLOAD_INVALID"
    BLOB_UPLOAD_UNKNOWN = "BLOB_UPLOAD_UNKNOWN"
    DENIED = "DENIED"
    DIGEST_INVALID = "DIGEST_INVALID"
    MANIFEST_BLOB_UNKNOWN = "MANIFEST_BLOB_UNKNOWN"
    MANIFEST_INVALID = "MANIFEST_INVALID"
    MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
    NAME_INVALID = "NAME_INVALID"
    NAME_UNKNOWN = "NAME_UNKNOWN"
    SIZE_INVALID = "SIZE_INVALID"
    TOOMANYREQUESTS = "TOOMANYREQUESTS"
    UNKNOWN = "UNKNOWN"
    UNSUPPORTED = "UNSUPPORTED"


class RefusedError(KitdError):
    """The registry answers a request with an error of the specification."""

    code = "registry_request_refused"

    def __init__(
        self,
        status: int,
        error_code: ErrorCode,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_code = error_code
        self.headers = headers or {}


_ANSWERS: Mapping[type, tuple[int, ErrorCode]] = {
    CollectedError: (404, ErrorCode.MANIFEST_BLOB_UNKNOWN),
    InvalidDigestError: (400, ErrorCode.DIGEST_INVALID),
    InvalidManifestError: (400, ErrorCode.MANIFEST_INVALID),
    InvalidReferenceError: (400, ErrorCode.NAME_INVALID),
    NoSpaceError: (507, ErrorCode.UNKNOWN),
    TooManyUploadsError: (429, ErrorCode.TOOMANYREQUESTS),
    UnavailableError: (503, ErrorCode.UNKNOWN),
    UploadBusyError: (409, ErrorCode.BLOB_UPLOAD_INVALID),
    UploadLengthError: (400, ErrorCode.SIZE_INVALID),
    UploadUnknownError: (404, ErrorCode.BLOB_UPLOAD_UNKNOWN),
}


def refusal_of(error: Exception) -> RefusedError:
    """Return the answer to an error of any room below; 500 for what says nothing to a client.

    Their message may name a path of this machine and goes to the log alone.
    """
    if isinstance(error, RefusedError):
        return error
    answer = next((_ANSWERS[kind] for kind in type(error).__mro__ if kind in _ANSWERS), None)
    if answer is None:
        return RefusedError(500, ErrorCode.UNKNOWN, "the registry could not do this; see its log")
    status, error_code = answer
    message = "the disk of the registry is full" if status == 507 else str(error)
    return RefusedError(status, error_code, message)


def error_body(error: RefusedError) -> bytes:
    """Return the JSON document that the specification asks for."""
    entry = {"code": error.error_code, "message": error.message}
    return json.dumps({"errors": [entry]}, separators=(",", ":")).encode()
