"""Errors as clients see them."""

import json

import pytest

from kitd.content.store import CollectedError
from kitd.errors import KitdError, UnavailableError
from kitd.gateway.refusal import ErrorCode, RefusedError, error_body, refusal_of
from kitd.gateway.upload import UploadUnknownError
from kitd.oci.digest import InvalidDigestError
from kitd.store.blob_store import NoSpaceError, StoreError


class QueueClosedError(UnavailableError):
    pass


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (CollectedError("x"), 404, "MANIFEST_BLOB_UNKNOWN"),
        (InvalidDigestError("x"), 400, "DIGEST_INVALID"),
        (UploadUnknownError("x"), 404, "BLOB_UPLOAD_UNKNOWN"),
        (QueueClosedError("x"), 503, "UNKNOWN"),
        (NoSpaceError("x"), 507, "UNKNOWN"),
        (StoreError("x"), 500, "UNKNOWN"),
        (KitdError("x"), 500, "UNKNOWN"),
        (ZeroDivisionError("x"), 500, "UNKNOWN"),
        (RefusedError(418, ErrorCode.DENIED, "x"), 418, "DENIED"),
    ],
)
def test_every_error_has_a_status_and_a_code(error, status, code):
    refusal = refusal_of(error)
    assert (refusal.status, refusal.error_code) == (status, code)


@pytest.mark.parametrize("kind", [NoSpaceError, StoreError, RuntimeError])
def test_paths_of_this_machine_stay_here(kind):
    assert "/secret" not in refusal_of(kind("cannot write /secret/path")).message


def test_the_body_is_what_the_specification_asks_for():
    body = error_body(RefusedError(404, ErrorCode.BLOB_UNKNOWN, 'no "blob"\n'))
    assert json.loads(body) == {"errors": [{"code": "BLOB_UNKNOWN", "message": 'no "blob"\n'}]}
