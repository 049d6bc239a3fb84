import json

import pytest

from kitd.content.store import ContentNotFoundError, MismatchError
from kitd.errors import Disposition
from kitd.registry.errors import (
    RegistryDeniedError,
    RegistryMismatchError,
    RegistryNotFoundError,
    RegistryProtocolError,
    RegistryRateLimitedError,
    RegistryRejectedError,
    RegistryServerError,
    RegistryStateError,
    RegistryTimeoutError,
    RegistryTlsError,
    RegistryTooLargeError,
    RegistryUnsupportedError,
    response_error,
)


def error_for(status, body=b"", content_type="application/json", retry_after_s=7.0):
    return response_error(
        status,
        body,
        content_type=content_type,
        retry_after_s=retry_after_s,
        host="registry.example.com",
        operation="push x",
    )


def coded(*codes):
    return json.dumps({"errors": [{"code": code, "message": "why"} for code in codes]}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind", "code", "retry"),
    [
        (401, b"", RegistryDeniedError, "registry_denied", False),
        (403, coded("DENIED"), RegistryDeniedError, "registry_denied", False),
        (404, coded("NAME_UNKNOWN"), RegistryNotFoundError, "not_found", False),
        (404, coded("BLOB_UPLOAD_UNKNOWN"), RegistryStateError, "registry_state", True),
        (400, coded("MANIFEST_BLOB_UNKNOWN"), RegistryStateError, "registry_state", True),
        (
            400,
            coded("DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN"),
            RegistryStateError,
            "registry_state",
            True,
        ),
        (400, coded("DIGEST_INVALID"), RegistryMismatchError, "digest_mismatch", True),
        (400, coded("NAME_INVALID"), RegistryRejectedError, "registry_rejected", False),
        (408, b"", RegistryTimeoutError, "registry_timeout", True),
        (413, b"<html>", RegistryTooLargeError, "registry_rejected", False),
        (405, b"", RegistryUnsupportedError, "registry_rejected", False),
        (404, coded("UNSUPPORTED"), RegistryUnsupportedError, "registry_rejected", False),
        (429, b"", RegistryRateLimitedError, "registry_rate_limited", True),
        (500, b"oops", RegistryServerError, "registry_failed", True),
        (302, b"", RegistryRejectedError, "registry_rejected", False),
    ],
)
def test_each_answer_has_its_error(status, body, kind, code, retry):
    error = error_for(status, body)
    assert type(error) is kind
    assert error.code == code
    assert (error.disposition is Disposition.RETRY) is retry
    assert (error.host, error.operation) == ("registry.example.com", "push x")
    assert str(error).startswith("cannot push x at registry.example.com: ")


@pytest.mark.parametrize(
    ("status", "asked_s", "after_s"),
    [(429, 0.0, 0.0), (429, 7.0, 7.0), (503, 0.0, None), (503, 4.9, None), (503, 60.0, 60.0)],
)
def test_a_failure_that_is_over_at_once_is_one_that_counts(status, asked_s, after_s):
    """What says when to come back costs a job nothing: nobody may say "now" for ever."""
    assert error_for(status, retry_after_s=asked_s).retry_after_s == after_s


def test_the_families_of_content_stores_hold():
    assert issubclass(RegistryNotFoundError, ContentNotFoundError)
    assert issubclass(RegistryMismatchError, MismatchError)


@pytest.mark.parametrize("status", [400, 404, 405])
def test_a_page_in_the_place_of_an_answer_is_no_registry(status):
    error = error_for(status, b"<title>Welcome to nginx</title>", "text/html")
    assert type(error) is RegistryProtocolError
    assert "Welcome to nginx" in str(error)


@pytest.mark.parametrize("status", [502, 503])
def test_a_proxy_that_says_in_html_that_the_registry_is_down_is_believed(status):
    error = error_for(status, b"<title>Bad Gateway</title>", "text/html")
    assert type(error) is RegistryServerError


@pytest.mark.parametrize(
    "said",
    [
        "Client sent an HTTP request to an HTTPS server.",
        "<title>400 The plain HTTP request was sent to HTTPS port</title>",
    ],
)
def test_plain_http_to_a_tls_port_says_what_to_set(said):
    error = error_for(400, said.encode(), "text/html")
    assert type(error) is RegistryTlsError
    assert "plain_http: false" in error.hint
