"""A ModelKit's config: the Kitfile as JSON with the digests of its layers.

Written byte for byte as `kit` does; read from any registry, so bounded, and lenient about keys it
does not know, which a newer kit may have.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from kitd.modelkit.errors import InvalidConfigError
from kitd.modelkit.json_writer import encode_json
from kitd.modelkit.kitfile import (
    ITEMS,
    KEYS,
    Docs,
    Kitfile,
    Package,
    Record,
)
from kitd.oci.digest import Digest, InvalidDigestError, parse_digest
from kitd.oci.json_reader import InvalidJsonError, Json, Reader, read_object

MAX_CONFIG_BYTES = 16 * 1024 * 1024
MAX_ENTRIES = 20_000
"""Entries of one list: more than a manifest can have layers."""

_ALWAYS = frozenset({(Kitfile, "manifest_version"), (Docs, "path")})


def encode_config(kitfile: Kitfile) -> bytes:
    """Return the config's bytes; `with_layer_digests` fills in the digests beforehand."""
    document: dict[str, Json] = {"manifestVersion": kitfile.manifest_version, "package": {}}
    return encode_json({**document, **to_document(kitfile)})


def to_document(record: Record) -> dict[str, Json]:
    """Return a record as a JSON object: keys in order, what is empty left out, parameters sorted.

    `digest` and `diffId` are there where they are known.
    """
    document: dict[str, Json] = {}
    for key, name in KEYS[type(record)].items():
        value = getattr(record, name)
        if name == "parameters":
            if value is not None:
                document[key] = _sorted(value)
        elif name == "model":
            # A model without keys is still a model, a package without keys is none.
            if value is not None:
                document[key] = to_document(value)
        elif name == "package":
            if value != Package():
                document[key] = to_document(value)
        elif name in ITEMS:
            if value:
                document[key] = tuple(to_document(item) for item in value)
        elif value or (type(record), name) in _ALWAYS:
            document[key] = value
    return document


def _sorted(value: Json) -> Json:
    """Return the value with the keys of every map in code-point order, which is that of UTF-8."""
    if isinstance(value, Mapping):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_sorted(item) for item in value)
    return value


def parse_config(content: bytes) -> Kitfile:
    """Read a ModelKit's config. Raises `InvalidConfigError` and nothing else."""
    try:
        document = read_object(content, max_bytes=MAX_CONFIG_BYTES)
    except InvalidJsonError as error:
        raise InvalidConfigError(f"not the config of a ModelKit: {error}") from error
    return _record(Kitfile, Reader(document, InvalidConfigError))


_R = TypeVar("_R", bound=Record)


def _record(record: type[_R], reader: Reader) -> _R:
    values: dict[str, Any] = {}
    for key, name in KEYS[record].items():
        if name == "parameters":
            values[name] = _frozen(reader.value(key))
        elif name == "authors":
            values[name] = _authors(reader, key)
        elif name in {"digest", "diff_id"}:
            values[name] = _digest(reader, key)
        elif name in {"model", "package"}:
            child = reader.optional_child(key)
            if child is not None:
                values[name] = _record(ITEMS[name], child)
        elif name in ITEMS:
            children = reader.children(key, at_most=MAX_ENTRIES)
            values[name] = tuple(_record(ITEMS[name], child) for child in children)
        else:
            values[name] = reader.text(key, "")
    return record(**values)


def _authors(reader: Reader, key: str) -> tuple[str, ...]:
    value = _frozen(reader.value(key))
    if value is None:
        return ()
    if isinstance(value, tuple) and all(isinstance(item, str) for item in value):
        return value
    raise reader.fail(key, "a list of strings")


def _digest(reader: Reader, key: str) -> Digest | None:
    text = reader.optional_text(key)
    if not text:
        return None
    try:
        return parse_digest(text)
    except InvalidDigestError as error:
        raise reader.wrong(key, error.message) from error


def _frozen(value: Json) -> Json:
    """Return a JSON value in the shape that a parsed Kitfile has: lists become tuples."""
    if isinstance(value, Mapping):
        return {name: _frozen(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_frozen(item) for item in value)
    return value
