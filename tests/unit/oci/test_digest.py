"""Digests: what is one, what is not, and the way from content to one."""

import hashlib

import pytest

from kitd.oci.digest import (
    InvalidDigestError,
    abbreviate,
    algorithm_of,
    digest_of,
    encoded_of,
    from_hash,
    parse_digest,
)

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(("algorithm", "digits"), [("sha256", 64), ("sha384", 96), ("sha512", 128)])
def test_registered_algorithms_are_digests(algorithm, digits):
    digest = parse_digest(f"{algorithm}:{'0a' * (digits // 2)}")
    assert (algorithm_of(digest), encoded_of(digest)) == (algorithm, "0a" * (digits // 2))
    assert hashlib.new(algorithm_of(digest)).digest_size * 2 == digits


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "sha256",
        "sha256:",
        EMPTY.removeprefix("sha256:"),
        EMPTY[:-1],
        EMPTY + "0",
        EMPTY + "\n",
        " " + EMPTY,
        EMPTY.upper(),
        EMPTY.replace("sha256", "SHA256"),
        EMPTY.replace("sha256", "sha512"),
        EMPTY.replace("sha256", "md5"),
        EMPTY.replace(":", "::"),
        EMPTY[:-1] + "g",
        EMPTY[:-1] + "٣",
        "sha256:../../../../etc/passwd",
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(InvalidDigestError):
        parse_digest(text)


def test_a_refusal_quotes_little_of_what_it_was_given():
    with pytest.raises(InvalidDigestError) as caught:
        parse_digest("x" * 1_000_000)
    assert len(caught.value.message) < 250


def test_content_and_a_hash_of_it_give_one_digest():
    assert digest_of(b"") == EMPTY
    assert from_hash(hashlib.sha256(b"weights")) == digest_of(b"weights")
    assert from_hash(hashlib.sha512(b"weights")).startswith("sha512:")


def test_a_person_quotes_the_first_digits():
    assert abbreviate(parse_digest(EMPTY)) == "e3b0c44298fc"
    assert abbreviate(parse_digest(EMPTY), 4) == "e3b0"
