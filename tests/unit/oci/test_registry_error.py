"""What registries, and what stands in front of them, say when something goes wrong."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitd.oci.registry_error import MAX_ERROR_BYTES, RegistryMessage, parse_error_body

JSON = "application/json; charset=utf-8"


def errors(*entries) -> bytes:
    return json.dumps({"errors": list(entries)}).encode()


@pytest.mark.parametrize(
    ("body", "content_type", "said"),
    [
        (
            errors({"code": "DENIED", "message": "requested access is denied", "detail": {}}),
            JSON,
            ["DENIED: requested access is denied"],
        ),
        (errors({"code": "denied"}), JSON, ["DENIED"]),
        (errors({"message": "no code"}), JSON, ["no code"]),
        (
            errors({"code": "A", "message": "1"}, "odd", {"code": "B", "message": "2"}),
            JSON,
            ["A: 1", "B: 2"],
        ),
        (errors(*[{"code": "A", "message": "x"}] * 100), JSON, ["A: x"] * 5),
        (errors({"code": "A", "message": "two\nlines \t here"}), JSON, ["A: two lines here"]),
        (errors({"code": "A", "message": "\x1b[2J\u202e"}), JSON, ["A: [2J"]),
        (errors({"code": 404, "message": ["x"]}), JSON, ["404: ['x']"]),
        (b'{"error":"unauthorized"}', JSON, ["unauthorized"]),
        (b'{"message":"nope"}', JSON, ["nope"]),
        (b'{"details":"incorrect username or password"}', JSON, ["incorrect username or password"]),
        (b'{"errors":"text"}', JSON, []),
        (b'{"errors":null}', JSON, []),
        (b"[]", JSON, []),
        (b"", "", []),
        (b"  \n", "text/plain", []),
        (b"404 page not found\n", "text/plain", ["404 page not found"]),
        (
            b"<html><head><TITLE>\n Sign in </TITLE></head>",
            "text/html",
            ["an HTML page (Sign in)"],
        ),
        (b"<!doctype html><h1>Bad <b>Gateway</b></h1>", "", ["an HTML page (Bad Gateway)"]),
        (b"Just a moment", "text/html; charset=utf-8", ["an HTML page (Just a moment)"]),
        (b"\xff\xfe\x00\x01gzip?", "application/octet-stream", ["�� gzip?"]),
    ],
)
def test_a_body_becomes_a_few_lines(body, content_type, said):
    assert [str(message) for message in parse_error_body(body, content_type)] == said


def test_code_and_text_are_kept_apart():
    (message,) = parse_error_body(errors({"code": "unauthorized", "message": "log in"}), JSON)
    assert message == RegistryMessage("UNAUTHORIZED", "log in")


@pytest.mark.parametrize(
    "body",
    [
        b"x" * 10_000_000,
        b"<" * 10_000_000,
        b"<title" * 1_000_000,
        b"[" * 10_000_000,
        errors({"code": "A" * 5000, "message": "b" * 2000}),
    ],
    ids=["text", "angles", "titles", "brackets", "json"],
)
@pytest.mark.parametrize("content_type", [JSON, "text/html"])
def test_a_huge_body_gives_short_lines(body, content_type):
    for message in parse_error_body(body, content_type):
        assert len(str(message)) <= 900


@given(st.binary(max_size=300) | st.text(alphabet='<>title/"{}[]: ', max_size=80).map(str.encode))
def test_no_bytes_raise(body):
    for content_type in (JSON, "text/html", ""):
        for message in parse_error_body(body, content_type):
            assert str(message).isprintable()


def test_only_the_beginning_is_looked_at():
    assert parse_error_body(b" " * MAX_ERROR_BYTES + b"late", "text/plain") == ()
