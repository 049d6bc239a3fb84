"""YAML bytes to a tree of nodes that know where they stand.

Built from parser events and not by a YAML loader: nothing is constructed, no scalar is guessed to
be a number, a date or a boolean (the readers know what they expect), nesting does not recurse, and
aliases are bounded by what they expand to. This is the only module that knows PyYAML.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn

import yaml

from kitd.config.problem import ConfigProblem, KeyPath, Position, RejectedError

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
"""Far deeper than any option."""
MAX_NODES = 100_000
"""Nodes with aliases expanded: what readers may have to visit."""

# The C parser is much faster; PyYAML has it wherever libyaml was there to build with.
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A scalar as it stands in the file, quotes and escapes resolved."""

    position: Position
    text: str
    is_plain: bool
    size: int = 1

    @property
    def is_null(self) -> bool:
        """Whether it is an unquoted `null`, `~` or nothing at all."""
        return self.is_plain and self.text in {"", "~", "null"}


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list; `size` counts all nodes below, aliases expanded."""

    position: Position
    items: tuple["Node", ...]
    size: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys with their values in the order of the file, keys given twice included."""

    position: Position
    entries: tuple[tuple[Scalar, "Node"], ...]
    size: int


Node = Scalar | Sequence | Mapping


def compose(content: bytes) -> Node:
    """Return the root of the one document in `content`; an empty file gives an empty scalar.

    Raises `RejectedError` with a single problem: what follows a syntax error is guesswork.
    """
    text = _decode(content)
    composer = _Composer()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            composer.feed(event)
    except yaml.MarkedYAMLError as error:
        where = _position(error.problem_mark or error.context_mark)
        reason = " ".join(filter(None, (error.context, error.problem)))
        _reject(where, f"not YAML: {reason}", _syntax_hint(text, where))
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # The last two escape from PyYAML's own parser, for characters beyond Unicode.
        _reject(Position(1, 1), f"not YAML: {' '.join(str(error).split())}"[:200])
    return composer.root


def locate(root: Node, path: KeyPath) -> Position:
    """Return where the value at `path` stands, or the nearest one above that the file has."""
    node = root
    for key in path:
        match node:
            case Mapping(entries=entries):
                found = next((value for name, value in entries if name.text == key), None)
            case Sequence(items=items) if isinstance(key, int) and key < len(items):
                found = items[key]
            case _:
                found = None
        if found is None:
            break
        node = found
    return node.position


def _reject(position: Position, message: str, hint: str | None = None) -> NoReturn:
    raise RejectedError([ConfigProblem(position, (), message, hint)]) from None


def _position(mark: "yaml.Mark | yaml._yaml.Mark | None") -> Position:
    return Position(1, 1) if mark is None else Position(mark.line + 1, mark.column + 1)


def _position_of(offset: int, text: str) -> Position:
    before = text[:offset]
    return Position(before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1)


def _decode(content: bytes) -> str:
    if len(content) > MAX_BYTES:
        _reject(Position(1, 1), f"the file is larger than {MAX_BYTES // 1024} KiB")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start].decode()
        _reject(_position_of(len(before), before), "not UTF-8 text", "save the file as UTF-8")
    text = text.removeprefix("\ufeff")
    if match := _NOT_TEXT.search(text):
        where = _position_of(match.start(), text)
        _reject(where, f"the character U+{ord(match.group()):04X} is not allowed in YAML")
    return text


def _syntax_hint(text: str, where: Position) -> str | None:
    lines = text.split("\n")
    line = lines[where.line - 1] if where.line <= len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "indent with spaces, YAML allows no tabs there"
    return None


@dataclass(slots=True)
class _Open:
    """A list or a mapping whose end has not come yet."""

    position: Position
    anchor: str | None
    is_mapping: bool
    children: list[Node] = field(default_factory=list)


class _Composer:
    """Builds nodes from events, with a stack of its own."""

    def __init__(self) -> None:
        self.root: Node = Scalar(Position(1, 1), "", is_plain=True)
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._documents = 0

    def feed(self, event: yaml.Event) -> None:
        where = _position(event.start_mark)
        match event:
            case yaml.ScalarEvent(tag=str(tag)) | yaml.CollectionStartEvent(tag=str(tag)):
                _reject(where, f"the tag {tag[:40]!r} is not used here", "leave it out")
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    _reject(where, "a second document begins here", "one file, one document")
            case yaml.ScalarEvent():
                if match := _NOT_TEXT.search(event.value):
                    _reject(where, f"the character U+{ord(match.group()):04X} is not text")
                self._add(Scalar(where, event.value, is_plain=not event.style), event.anchor)
            case yaml.AliasEvent():
                node = self._anchors.get(str(event.anchor))
                if node is None:
                    _reject(where, f"no anchor {str(event.anchor)[:40]!r} ends before this")
                self._add(node, None)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                if len(self._open) >= MAX_DEPTH:
                    _reject(where, f"nested deeper than {MAX_DEPTH} levels")
                is_mapping = isinstance(event, yaml.MappingStartEvent)
                self._open.append(_Open(where, event.anchor, is_mapping))
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._close(self._open.pop())

    def _close(self, ended: _Open) -> None:
        size = 1 + sum(child.size for child in ended.children)
        if size > MAX_NODES:
            _reject(ended.position, f"more than {MAX_NODES} values, aliases expanded")
        if ended.is_mapping:
            entries = tuple(_pairs(ended.children))
            self._add(Mapping(ended.position, entries, size), ended.anchor)
        else:
            self._add(Sequence(ended.position, tuple(ended.children), size), ended.anchor)

    def _add(self, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        if self._open:
            self._open[-1].children.append(node)
        else:
            self.root = node


def _pairs(children: list[Node]) -> Iterator[tuple[Scalar, Node]]:
    for key, value in zip(children[::2], children[1::2], strict=True):
        if not isinstance(key, Scalar):
            _reject(
                key.position, "a key must be one word", "a value that begins with { needs quotes"
            )
        yield key, value
