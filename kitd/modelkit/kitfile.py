"""Kitfiles: what they say, and reading them from YAML.

The dataclasses list their fields in the order of the config's JSON and of written YAML; a field's
key is its name in camel case. Empty text stands for an absent key. `digest` and `diff_id` belong
to the config of a packed kit and are not keys of the YAML.
"""

import difflib
import enum
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from kitd.modelkit.kitfile_yaml import (
    ListNode,
    MapNode,
    Node,
    ScalarNode,
    compose,
    is_null,
    merged_pairs,
    scalar_value,
    value_of,
)
from kitd.modelkit.yaml_scalar import BINARY
from kitd.oci.digest import Digest
from kitd.oci.json_reader import Json
from kitd.oci.reference import InvalidReferenceError, Reference, parse_reference

KITFILE_NAMES = ("Kitfile", "kitfile", ".kitfile")
"""Where a project's Kitfile is looked for, in this order."""
MANIFEST_VERSION = "1.0.0"


class EntryKind(enum.StrEnum):
    """The kinds of Kitfile entries that become layers."""

    MODEL = "model"
    MODEL_PART = "modelpart"
    CODE = "code"
    DATASET = "dataset"
    DOCS = "docs"
    PROMPT = "prompt"
    MCP_SERVER = "mcpserver"


@dataclass(frozen=True, slots=True)
class Package:
    """What the kit as a whole is."""

    name: str = ""
    version: str = ""
    description: str = ""
    license: str = ""
    authors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPart:
    """A file or directory that belongs to the model: a tokenizer, an adapter."""

    name: str = ""
    path: str = ""
    license: str = ""
    type: str = ""
    digest: Digest | None = None
    diff_id: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The model. A path that is a reference names another ModelKit, whose model this one uses."""

    name: str = ""
    path: str = ""
    license: str = ""
    framework: str = ""
    format: str = ""
    version: str = ""
    description: str = ""
    parts: tuple[ModelPart, ...] = ()
    parameters: Json = field(default=None, hash=False)
    digest: Digest | None = None
    diff_id: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Source code."""

    path: str = ""
    description: str = ""
    license: str = ""
    digest: Digest | None = None
    diff_id: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A dataset: local, or remote (an S3 object or another ModelKit) and then without a layer."""

    name: str = ""
    path: str = ""
    remote_path: str = ""
    remote_hash: str = ""
    description: str = ""
    license: str = ""
    parameters: Json = field(default=None, hash=False)
    digest: Digest | None = None
    diff_id: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Docs:
    """Documentation."""

    path: str = ""
    description: str = ""
    digest: Digest | None = None
    diff_id: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt, or the instructions of an agent."""

    name: str = ""
    path: str = ""
    description: str = ""
    digest: Digest | None = None
    diff_id: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class McpServer:
    """An MCP server, as one `.mcpb` bundle."""

    name: str = ""
    path: str = ""
    description: str = ""
    digest: Digest | None = None
    diff_id: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kitfile:
    """A whole Kitfile, or the config of a packed kit."""

    manifest_version: str = ""
    package: Package = Package()
    model: Model | None = None
    code: tuple[Code, ...] = ()
    datasets: tuple[Dataset, ...] = ()
    docs: tuple[Docs, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    mcp_servers: tuple[McpServer, ...] = ()


Entry = Model | ModelPart | Code | Dataset | Docs | Prompt | McpServer
Record = Kitfile | Package | Entry

ITEMS: Mapping[str, type[Record]] = {
    "package": Package,
    "model": Model,
    "parts": ModelPart,
    "code": Code,
    "datasets": Dataset,
    "docs": Docs,
    "prompts": Prompt,
    "mcp_servers": McpServer,
}
"""The fields that hold records, one (`package`, `model`) or a tuple of them."""

KEYS: Mapping[type, Mapping[str, str]] = {
    record: {
        re.sub(r"_([a-z])", lambda match: match[1].upper(), item.name): item.name
        for item in fields(record)
    }
    for record in (Kitfile, *ITEMS.values())
}
"""Each record's keys in order, with the names of their fields."""


@dataclass(frozen=True, slots=True)
class LayerEntry:
    """An entry that has a layer. `index` counts within its kind, and is 0 for the model."""

    kind: EntryKind
    index: int
    entry: Entry


@dataclass(frozen=True, slots=True)
class LayerDigests:
    """A layer's digest as stored, and that of its bytes before compression."""

    digest: Digest
    diff_id: Digest


def model_reference(kitfile: Kitfile) -> Reference | None:
    """Return the ModelKit that `model.path` refers to, if it is a reference.

    A model that has a layer has a file, whatever its name looks like.
    """
    model = kitfile.model
    return None if model is None or model.digest is not None else reference_of(model.path)


def reference_of(path: str) -> Reference | None:
    """Return a path as a reference if `kit` takes it for one: it has a `:` or `@`, and parses."""
    if ":" not in path and "@" not in path:
        return None
    try:
        return parse_reference(path)
    except InvalidReferenceError:
        return None


def layer_entries(kitfile: Kitfile) -> tuple[LayerEntry, ...]:
    """Return the entries that have a layer, in the order of a manifest's layers."""
    return tuple(_layer_entries(kitfile))


def _layer_entries(kitfile: Kitfile) -> Iterator[LayerEntry]:
    model = kitfile.model
    if model is not None:
        if model.path and model_reference(kitfile) is None:
            yield LayerEntry(EntryKind.MODEL, 0, model)
        yield from _numbered(EntryKind.MODEL_PART, model.parts)
    yield from _numbered(EntryKind.CODE, kitfile.code)
    for numbered in _numbered(EntryKind.DATASET, kitfile.datasets):
        if not kitfile.datasets[numbered.index].remote_path:
            yield numbered
    yield from _numbered(EntryKind.DOCS, kitfile.docs)
    yield from _numbered(EntryKind.PROMPT, kitfile.prompts)
    yield from _numbered(EntryKind.MCP_SERVER, kitfile.mcp_servers)


def _numbered(kind: EntryKind, entries: Sequence[Entry]) -> Iterator[LayerEntry]:
    return (LayerEntry(kind, index, entry) for index, entry in enumerate(entries))


def with_layer_digests(kitfile: Kitfile, layers: Sequence[LayerDigests]) -> Kitfile:
    """Return the Kitfile with the digests of its layers, which stand in `layer_entries`' order."""
    packed: dict[tuple[EntryKind, int], Any] = {
        (place.kind, place.index): replace(place.entry, digest=layer.digest, diff_id=layer.diff_id)
        for place, layer in zip(layer_entries(kitfile), layers, strict=True)
    }

    def filled(kind: EntryKind, entries: Sequence[Entry]) -> Any:
        return tuple(packed.get((kind, index), entry) for index, entry in enumerate(entries))

    model = kitfile.model
    if model is not None:
        model = packed.get((EntryKind.MODEL, 0), model)
        model = replace(model, parts=filled(EntryKind.MODEL_PART, model.parts))
    return replace(
        kitfile,
        model=model,
        code=filled(EntryKind.CODE, kitfile.code),
        datasets=filled(EntryKind.DATASET, kitfile.datasets),
        docs=filled(EntryKind.DOCS, kitfile.docs),
        prompts=filled(EntryKind.PROMPT, kitfile.prompts),
        mcp_servers=filled(EntryKind.MCP_SERVER, kitfile.mcp_servers),
    )


def parse_kitfile(content: bytes, *, name: str = "Kitfile") -> Kitfile:
    """Read a Kitfile; `name` is what errors call it.

    Strict about keys, duplicates and shapes; what the values mean together is judged by
    `kitd.modelkit.validation`. Raises `KitfileError` and nothing else.
    """
    return _record(Kitfile, compose(content, name=name))


_R = TypeVar("_R", bound=Record)


def _record(record: type[_R], node: Node) -> _R:
    if not isinstance(node, MapNode):
        raise node.position.fail(f"expected keys and values, found {_found(node)}")
    known = {key: name for key, name in KEYS[record].items() if name not in _CONFIG_ONLY}
    values: dict[str, Any] = {}
    for key, value in merged_pairs(node):
        name = known.get(key.text)
        if name is None:
            near = difflib.get_close_matches(key.text[:80], known, n=1)
            raise key.position.fail(
                f"unknown key {key.text[:80]!r}" + (f", did you mean {near[0]!r}?" if near else ""),
                hint="known here: " + ", ".join(known),
            )
        if not is_null(value):
            values[name] = _READERS.get(name, _text)(value)
    return record(**values)


def _text(node: Node) -> str:
    """Return a scalar's source text, as `kit` does: `1.10` and `017` stay what they are."""
    if not isinstance(node, ScalarNode):
        raise node.position.fail(f"expected text, found {_found(node)}")
    value = scalar_value(node)
    return str(value) if node.tag == BINARY else node.text


def _items(node: Node) -> tuple[Node, ...]:
    if not isinstance(node, ListNode):
        raise node.position.fail(f"expected a list, found {_found(node)}")
    return tuple(item for item in node.items if not is_null(item))


def _found(node: Node) -> str:
    if isinstance(node, MapNode):
        return "keys and values"
    return "a list" if isinstance(node, ListNode) else "text"


def _records(record: type[_R]) -> Callable[[Node], tuple[_R, ...]]:
    return lambda node: tuple(_record(record, item) for item in _items(node))


_CONFIG_ONLY = frozenset({"digest", "diff_id"})
_READERS: Mapping[str, Callable[[Node], Any]] = {
    "package": lambda node: _record(Package, node),
    "model": lambda node: _record(Model, node),
    "parts": _records(ModelPart),
    "code": _records(Code),
    "datasets": _records(Dataset),
    "docs": _records(Docs),
    "prompts": _records(Prompt),
    "mcp_servers": _records(McpServer),
    "authors": lambda node: tuple(_text(item) for item in _items(node)),
    "parameters": value_of,
}
