"""YAML for Kitfiles: bytes to nodes that know their line and column, and nodes to plain values.

Only PyYAML's parser is used, as a stream of events. Composing is done here, without recursion and
within bounds, because an alias may stand for more than a machine holds: every node carries its
weight with all aliases followed. Only the first document is read, as `kit` does.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from kitd.modelkit.errors import KitfileError
from kitd.modelkit.yaml_scalar import MERGE, Scalar, ScalarError, resolve_scalar
from kitd.oci.json_reader import Json

MAX_KITFILE_BYTES = 1024 * 1024
MAX_DEPTH = 48
"""Less than what a config may nest, so that every Kitfile's config can be read back."""
MAX_WEIGHT = 4 * 1024 * 1024
"""Characters, and `_NODE_WEIGHT` for each node, with every alias followed."""
_NODE_WEIGHT = 64

# libyaml's parser is ten times as fast; PyYAML may have been built without it.
_LOADER: "type[yaml.CSafeLoader | yaml.SafeLoader]" = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Position:
    """Where a node starts; both count from 1."""

    file: str
    line: int
    column: int

    def fail(self, problem: str, *, hint: str | None = None) -> KitfileError:
        """Return the error that says what is wrong here."""
        return KitfileError(
            f"{self.file}:{self.line}:{self.column}: {problem}",
            problems=(f"{self.line}:{self.column}: {problem}",),
            hint=hint,
        )


@dataclass(frozen=True, slots=True)
class Node:
    """What every node knows: where it starts, and how heavy and how deep it is."""

    position: Position
    weight: int
    height: int


@dataclass(frozen=True, slots=True)
class ScalarNode(Node):
    """Text, and what says how to read it."""

    text: str
    tag: str | None
    plain: bool

    @property
    def is_merge(self) -> bool:
        """Whether this is the key `<<`, which merges maps into its own."""
        return self.text == "<<" and (self.tag == MERGE or (self.plain and self.tag in {None, "!"}))


@dataclass(frozen=True, slots=True)
class ListNode(Node):
    """Nodes in order."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class MapNode(Node):
    """Pairs in order; the keys are scalars with distinct texts."""

    pairs: tuple[tuple[ScalarNode, Node], ...]


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come yet."""

    position: Position
    anchor: str | None
    is_map: bool
    children: list[Node]
    weight: int = _NODE_WEIGHT
    height: int = 1

    def add(self, node: Node) -> None:
        self.children.append(node)
        self.weight += node.weight
        self.height = max(self.height, node.height + 1)
        if self.weight > MAX_WEIGHT:
            raise node.position.fail("the document is too large with its aliases followed")
        if self.height > MAX_DEPTH:
            raise node.position.fail(f"nested deeper than {MAX_DEPTH} levels")

    def close(self) -> Node:
        if self.is_map:
            return MapNode(self.position, self.weight, self.height, _pairs(self.children))
        return ListNode(self.position, self.weight, self.height, tuple(self.children))


def _pairs(children: list[Node]) -> tuple[tuple[ScalarNode, Node], ...]:
    pairs: dict[str, tuple[ScalarNode, Node]] = {}
    for key, value in zip(children[::2], children[1::2], strict=True):
        if not isinstance(key, ScalarNode):
            raise key.position.fail("a key must be text")
        if first := pairs.get(key.text):
            line = first[0].position.line
            raise key.position.fail(f"the key {key.text[:80]!r} is already on line {line}")
        pairs[key.text] = key, value
    return tuple(pairs.values())


def _decode(content: bytes, name: str) -> str:
    """Return the text, checked for what no parser should be asked about."""
    if len(content) > MAX_KITFILE_BYTES:
        raise Position(name, 1, 1).fail(
            f"the file has {len(content)} bytes, more than {MAX_KITFILE_BYTES}"
        )
    try:
        text = content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        where = _end_of(content[: error.start].decode("utf-8"), name)
        problem = f"the byte 0x{content[error.start]:02x} is not UTF-8"
        raise where.fail(problem, hint="save the file as UTF-8 text") from error
    if unprintable := _UNPRINTABLE.search(text):
        where = _end_of(text[: unprintable.start()], name)
        raise where.fail(f"the character U+{ord(unprintable[0]):04X} is not allowed")
    return text


def _end_of(text: str, name: str) -> Position:
    """Return where what follows a text stands."""
    starts = [0, *(found.end() for found in _LINE_BREAK.finditer(text))]
    return Position(name, len(starts), len(text) - starts[-1] + 1)


def _events(text: str, name: str) -> Iterator[yaml.Event]:
    """Yield the parser's events, its errors mapped."""
    try:
        yield from yaml.parse(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark else (0, 0)
        problem = " ".join(part for part in (error.context, error.problem) if part)
        rest = "".join(text.split("\n")[line : line + 1])[column:]
        hint = "indent with spaces, not with tabs" if rest.startswith("\t") else None
        raise Position(name, line + 1, column + 1).fail(problem, hint=hint) from error
    except yaml.YAMLError as error:
        raise Position(name, 1, 1).fail(f"not YAML: {error}") from error


class _Composer:
    """Builds the first document's tree from events."""

    __slots__ = ("_anchors", "_name", "_open", "_root")

    def __init__(self, name: str) -> None:
        self._name = name
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._root: Node | None = None

    def compose(self, events: Iterator[yaml.Event]) -> Node | None:
        for event in events:
            position = self._position(event)
            if isinstance(event, yaml.ScalarEvent):
                self._place(self._scalar(event, position), event.anchor)
            elif isinstance(event, yaml.CollectionStartEvent):
                self._begin(event, position)
            elif isinstance(event, yaml.CollectionEndEvent):
                collection = self._open.pop()
                self._place(collection.close(), collection.anchor)
            elif isinstance(event, yaml.AliasEvent):
                assert event.anchor is not None, "an alias has a name"
                self._place(self._referent(event.anchor, position), None)
            elif isinstance(event, yaml.DocumentEndEvent):
                break
        return self._root

    def _position(self, event: yaml.Event) -> Position:
        mark = event.start_mark
        assert mark is not None, "a parser marks all its events"
        return Position(self._name, mark.line + 1, mark.column + 1)

    def _scalar(self, event: yaml.ScalarEvent, position: Position) -> ScalarNode:
        if _SURROGATE.search(event.value):
            raise position.fail("half of a surrogate pair is not a character")
        weight = _NODE_WEIGHT + len(event.value)
        return ScalarNode(position, weight, 1, event.value, event.tag, event.style in {None, ""})

    def _begin(self, event: yaml.CollectionStartEvent, position: Position) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise position.fail(f"nested deeper than {MAX_DEPTH} levels")
        is_map = isinstance(event, yaml.MappingStartEvent)
        self._open.append(_Open(position, event.anchor, is_map, []))

    def _referent(self, anchor: str, position: Position) -> Node:
        if any(collection.anchor == anchor for collection in self._open):
            raise position.fail(f"the value of the anchor {anchor[:80]!r} contains itself")
        node = self._anchors.get(anchor)
        if node is None:
            raise position.fail(f"the anchor {anchor[:80]!r} is not defined")
        return node

    def _place(self, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        if self._open:
            self._open[-1].add(node)
        else:
            self._root = node


def compose(content: bytes, *, name: str) -> Node:
    """Return the root node of the first document. Raises `KitfileError`."""
    root = _Composer(name).compose(_events(_decode(content, name), name))
    if root is None:
        raise Position(name, 1, 1).fail(
            "the file is empty", hint="a Kitfile starts with manifestVersion: 1.0.0"
        )
    return root


def scalar_value(node: ScalarNode) -> Scalar:
    """Return what the scalar means. Raises `KitfileError`."""
    try:
        value = resolve_scalar(node.text, node.tag, plain=node.plain)
    except ScalarError as error:
        raise node.position.fail(str(error)) from error
    if isinstance(value, float) and not math.isfinite(value):
        raise node.position.fail(f"{node.text} cannot be written as JSON", hint="quote it")
    return value


def is_null(node: Node) -> bool:
    """Whether the node is null, in any of its spellings."""
    return isinstance(node, ScalarNode) and scalar_value(node) is None


def merged_pairs(node: MapNode) -> tuple[tuple[ScalarNode, Node], ...]:
    """Return the pairs with `<<` followed: own keys win, then earlier maps over later ones.

    Raises `KitfileError`.
    """
    pairs = {key.text: (key, value) for key, value in node.pairs if not key.is_merge}
    for key, value in node.pairs:
        if key.is_merge:
            sources = value.items if isinstance(value, ListNode) else (value,)
            for source in sources:
                if not isinstance(source, MapNode):
                    raise source.position.fail("<< takes a map or a list of maps")
                for inherited in merged_pairs(source):
                    pairs.setdefault(inherited[0].text, inherited)
    return tuple(pairs.values())


def value_of(node: Node) -> Json:
    """Return a node as a JSON value: tuples, dicts with text keys, finite numbers, text.

    Raises `KitfileError`.
    """
    if isinstance(node, MapNode):
        mapping: dict[str, Json] = {}
        for key, value in merged_pairs(node):
            if not isinstance(scalar_value(key), str):
                raise key.position.fail(f"the key {key.text[:80]!r} is not text", hint="quote it")
            mapping[key.text] = value_of(value)
        return mapping
    if isinstance(node, ListNode):
        return tuple(value_of(item) for item in node.items)
    assert isinstance(node, ScalarNode)
    return scalar_value(node)
