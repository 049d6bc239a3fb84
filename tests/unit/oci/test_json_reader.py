"""JSON from outside: one strict document, and typed values that say where they stand."""

import json

import pytest

from kitd.oci.json_reader import (
    MAX_DEPTH,
    MAX_INTEGER,
    InvalidJsonError,
    Reader,
    read_json,
    read_object,
)


def nested(depth):
    return b"[" * depth + b"]" * depth


def test_a_document_may_be_nested_up_to_the_bound():
    assert read_json(nested(MAX_DEPTH), max_bytes=1000)
    with pytest.raises(InvalidJsonError, match="nested deeper"):
        read_json(nested(MAX_DEPTH + 1), max_bytes=1000)


def test_many_brackets_side_by_side_are_not_deep():
    assert len(read_json(b"[" + b"[]," * 500 + b"[]]", max_bytes=2000)) == 501


@pytest.mark.parametrize(
    "content",
    [b"1e999", b"-1e999", b"NaN", b"-Infinity", b'"\\udc00"', b'{"a":1,"a":1}', b"9" * 5000],
)
def test_what_no_other_reader_would_agree_on_is_refused(content):
    with pytest.raises(InvalidJsonError):
        read_json(content, max_bytes=10_000)


@pytest.mark.parametrize("content", [b"1e3", b"-0.5", b'"\\ud83e\\udd8a"', b'{"a":{"a":1}}'])
def test_what_looks_like_it_is_read(content):
    assert read_json(content, max_bytes=100) == json.loads(content)


def test_the_size_is_bounded():
    assert read_json(b"[]", max_bytes=2) == []
    with pytest.raises(InvalidJsonError, match="has 2 bytes, more than 1"):
        read_json(b"[]", max_bytes=1)


@pytest.mark.parametrize("content", [b"[]", b"null", b'"{}"', b"1"])
def test_an_object_is_asked_for_by_name(content):
    with pytest.raises(InvalidJsonError, match="expected a JSON object"):
        read_object(content, max_bytes=100)


def test_an_integer_fits_64_bits():
    reader = Reader({"most": MAX_INTEGER, "more": MAX_INTEGER + 1, "less": -1}, InvalidJsonError)
    assert reader.integer("most") == MAX_INTEGER
    for key in ("more", "less"):
        with pytest.raises(InvalidJsonError, match=f"{key}: expected an integer from 0"):
            reader.integer(key)


def test_a_failure_names_the_path():
    reader = Reader({"a": {"b": [{"c": 1}]}}, InvalidJsonError)
    (child,) = reader.child("a").children("b", at_most=1)
    with pytest.raises(InvalidJsonError, match=r"^a\.b\[0\]\.c: expected a string, found 1$"):
        child.text("c")
