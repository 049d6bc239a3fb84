"""Reading what senders write: JSON objects, and the names and digests in them.

Everything here raises `MalformedDeliveryError` and nothing else, with the path of the field and at
most 60 characters of what stands there.
"""

from collections.abc import Mapping, Sequence

from kitd.oci.digest import Digest, InvalidDigestError, parse_digest
from kitd.oci.json_reader import InvalidJsonError, Json, Reader, read_json
from kitd.oci.reference import LOCAL, InvalidReferenceError, check_tag, parse_repository
from kitd.webhooks.format import MalformedDeliveryError

_HINT = "the source's format has to be what its sender sends, and nothing may rewrite it on the way"


def malformed(message: str) -> MalformedDeliveryError:
    """Return the error that says what cannot be read."""
    return MalformedDeliveryError(message, hint=_HINT)


def other(noun: str, text: str) -> str:
    """Return why something is not acted on: what it is, in the sender's own word."""
    return f"{noun} {text[:40]!r}"


def read_document(body: bytes, *, max_bytes: int) -> Json:
    """Return the JSON document."""
    try:
        return read_json(body, max_bytes=max_bytes)
    except InvalidJsonError as error:
        raise malformed(error.message) from error


def read_object(body: bytes, *, max_bytes: int) -> Reader:
    """Return the JSON object."""
    document = read_document(body, max_bytes=max_bytes)
    if not isinstance(document, Mapping):
        raise malformed("expected a JSON object")
    return Reader(document, malformed)


def read_objects(body: bytes, *, max_bytes: int, at_most: int) -> list[Reader]:
    """Return the objects of a JSON list, or the one object that stands without a list."""
    document = read_document(body, max_bytes=max_bytes)
    if isinstance(document, Mapping):
        return [Reader(document, malformed)]
    if isinstance(document, str) or not isinstance(document, Sequence):
        raise malformed("expected a JSON list of objects")
    return Reader({"": document}, malformed).children("", at_most=at_most)


def required_children(reader: Reader, key: str, *, at_most: int) -> list[Reader]:
    """Return the objects of the list at `key`, which must be there."""
    if reader.value(key) is None:
        raise reader.fail(key, "a list")
    return reader.children(key, at_most=at_most)


def repository(reader: Reader, key: str) -> str:
    """Return the name of a repository inside of its registry."""
    return checked_repository(reader, key, reader.text(key))


def checked_repository(reader: Reader, key: str, name: str) -> str:
    """Return `name`, which was made with what stands at `key`."""
    try:
        # With a registry in front of it: the name's own first part is never one.
        return parse_repository(f"{LOCAL}/{name}").name
    except InvalidReferenceError as error:
        raise reader.fail(key, "the name of a repository") from error


def tag(reader: Reader, key: str) -> str | None:
    """Return a tag; None where it is missing, null or empty."""
    text = reader.optional_text(key)
    if not text:
        return None
    try:
        return check_tag(text)
    except InvalidReferenceError as error:
        raise reader.fail(key, "a tag") from error


def digest(reader: Reader, key: str) -> Digest | None:
    """Return a digest; None where it is missing, null or empty."""
    text = reader.optional_text(key)
    if not text:
        return None
    found = digest_in(text)
    if found is None:
        raise reader.fail(key, "a digest")
    return found


def digest_in(text: str) -> Digest | None:
    """Return the text as a digest; None where it is none."""
    try:
        return parse_digest(text)
    except InvalidDigestError:
        return None


def tag_or_digest(reader: Reader, key: str) -> tuple[str | None, Digest | None]:
    """Return a tag, or the digest that some senders write in its place; neither where empty."""
    found = digest_in(reader.optional_text(key) or "")
    return (tag(reader, key), None) if found is None else (None, found)
