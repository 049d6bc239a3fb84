"""Small typed readers that compose: a node of the document in, a value of one type out.

A reader raises `RejectedError` with everything that is wrong at or below its node. Sections,
tables and lists go on after a part that was rejected, so that one run finds all problems.
"""

import dataclasses
import difflib
import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

from kitd.config import tree
from kitd.config.model import key_of
from kitd.config.problem import ConfigProblem, InvalidValueError, KeyPath, RejectedError
from kitd.errors import KitdError

MAX_TEXT = 4096
MAX_KEY = 80
"""Of an unknown key, what is compared with the known ones."""


@dataclass(frozen=True, slots=True)
class Value:
    """A node and the keys that lead to it."""

    node: tree.Node
    path: KeyPath

    def problem(self, message: str, hint: str | None = None) -> ConfigProblem:
        """Return the problem that stands here."""
        return ConfigProblem(self.node.position, self.path, message, hint)

    def rejected(self, message: str, hint: str | None = None) -> RejectedError:
        """Return the error with this one problem."""
        return RejectedError([self.problem(message, hint)])

    @property
    def is_null(self) -> bool:
        """Whether nothing, `null` or `~` stands here."""
        return isinstance(self.node, tree.Scalar) and self.node.is_null

    @property
    def kind(self) -> str:
        """What stands here, for a message; never the text, which may be a secret."""
        if self.is_null:
            return "nothing"
        match self.node:
            case tree.Sequence():
                return "a list"
            case tree.Mapping():
                return "keys and values"
        return "text"


class Dataclass(Protocol):
    """Any class made by `dataclasses.dataclass`."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


A = TypeVar("A")
T = TypeVar("T")
D = TypeVar("D", bound=Dataclass)
E = TypeVar("E", bound=enum.StrEnum)
Reader = Callable[[Value], T]


def text(value: Value) -> str:
    """Read one line of text, which may not be empty."""
    if not isinstance(value.node, tree.Scalar) or value.is_null:
        raise value.rejected(f"expected text, got {value.kind}")
    found = value.node.text
    # Values stand in messages of one line, so line breaks of every kind are refused.
    if found.splitlines() != [found] or len(found) > MAX_TEXT:
        raise value.rejected(f"expected one line of 1 to {MAX_TEXT} characters")
    return found


def parsed(parse: Callable[[str], T]) -> Reader[T]:
    """Read text with a function that raises a `KitdError` for what it cannot accept."""

    def read(value: Value) -> T:
        try:
            return parse(text(value))
        except KitdError as error:
            raise value.rejected(error.message, error.hint) from error

    return read


def choice(kind: type[E]) -> Reader[E]:
    """Read one of the words of an enumeration."""
    words = [str(member) for member in kind]

    def parse(found: str) -> E:
        if found not in words:
            near = difflib.get_close_matches(found, words, n=1)
            raise InvalidValueError(
                f"expected one of {', '.join(words)}, got {found[:40]!r}",
                hint=f"did you mean {near[0]!r}?" if near else None,
            )
        return kind(found)

    return parsed(parse)


def boolean(value: Value) -> bool:
    """Read `true` or `false`. YAML 1.1's `yes`, `on` and their like are refused, not guessed."""
    match value.node:
        case tree.Scalar(text="true" | "false" as word, is_plain=True):
            return word == "true"
        case tree.Scalar(text=word) if not value.is_null:
            hint = "without quotes" if word in {"true", "false"} else None
            raise value.rejected(f"expected true or false, got {word[:40]!r}", hint)
    raise value.rejected(f"expected true or false, got {value.kind}")


def integer(lowest: int, highest: int) -> Reader[int]:
    """Read a decimal integer between two bounds, both included."""

    def parse(found: str) -> int:
        is_number = found.isascii() and found.isdecimal() and len(found) <= len(str(highest))
        if not is_number or not lowest <= int(found) <= highest:
            raise InvalidValueError(
                f"expected a number from {lowest} to {highest}, got {found[:40]!r}"
            )
        return int(found)

    return parsed(parse)


def optional(read: Reader[T], word: str = "null") -> Reader[T | None]:
    """Read a value, or None where null or `word` stands."""

    def read_optional(value: Value) -> T | None:
        if value.is_null or (isinstance(value.node, tree.Scalar) and value.node.text == word):
            return None
        return read(value)

    return read_optional


def listing(read: Reader[T], *, at_least: int = 0) -> Reader[tuple[T, ...]]:
    """Read a list; nothing at all is an empty one."""

    def read_listing(value: Value) -> tuple[T, ...]:
        items = value.node.items if isinstance(value.node, tree.Sequence) else ()
        if not isinstance(value.node, tree.Sequence) and not value.is_null:
            raise value.rejected(f"expected a list, got {value.kind}", "write it like [a, b]")
        if len(items) < at_least:
            raise value.rejected(f"expected a list with at least {at_least}, got an empty one")
        problems: list[ConfigProblem] = []
        places = [Value(item, (*value.path, index)) for index, item in enumerate(items)]
        found = _accept(read, places, problems)
        _reject_any(problems)
        return tuple(found)

    return read_listing


def table(name: Callable[[str], str], read: Reader[T]) -> Reader[Mapping[str, T]]:
    """Read a mapping whose keys the user chooses; `name` checks them."""
    read_name = parsed(name)

    def read_table(value: Value) -> Mapping[str, T]:
        entries, problems = _entries(value)
        lines: dict[str, int] = {}

        def read_new_name(key: Value) -> str:
            name, line = read_name(key), key.node.position.line
            if name in lines:
                raise key.rejected(f"the same as {name!r}, which is given in line {lines[name]}")
            lines[name] = line
            return name

        names = _accept(read_new_name, [key for key, _ in entries.values()], problems)
        found = _accept(read, [child for _, child in entries.values()], problems)
        _reject_any(problems)
        return dict(zip(names, found, strict=True))

    return read_table


def section(
    kind: type[D], fallback: Mapping[str, object] | None = None, /, **fields: Reader[Any]
) -> Reader[D]:
    """Read a mapping with known keys into a dataclass; `fields` has a reader for each field.

    A key that is missing takes its value from `fallback`, else the dataclass's default, and is a
    problem where there is neither. Nothing at all is a section without keys.
    """
    fallback = fallback or {}
    assert fields.keys() == {field.name for field in dataclasses.fields(kind)}, kind
    names = {key_of(name): name for name in fields}
    required = [key for key, name in names.items() if name not in fallback and _is_bare(kind, name)]

    def read_entry(entry: tuple[str, tuple[Value, Value]]) -> tuple[str, object]:
        word, (key, value) = entry
        name = names.get(word)
        if name is None:
            raise key.rejected("unknown key", _nearest(word, names))
        return name, fields[name](value)

    def read_section(value: Value) -> D:
        entries, problems = _entries(value)
        missing = [key for key in required if key not in entries]
        problems += [value.problem(f"the key {key!r} is missing") for key in missing]
        found = _accept(read_entry, entries.items(), problems)
        _reject_any(problems)
        return kind(**{**fallback, **dict(found)})

    return read_section


def _accept(read: Callable[[A], T], items: Iterable[A], problems: list[ConfigProblem]) -> list[T]:
    """Read every item and return what was accepted; what was rejected is added to `problems`."""
    accepted = []
    for item in items:
        try:
            accepted.append(read(item))
        except RejectedError as error:
            problems += error.problems
    return accepted


def _reject_any(problems: Sequence[ConfigProblem]) -> None:
    if problems:
        raise RejectedError(problems)


def _is_bare(kind: type[Dataclass], name: str) -> bool:
    field = kind.__dataclass_fields__[name]
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _nearest(word: str, names: Iterable[str]) -> str:
    known = sorted(names)
    near = difflib.get_close_matches(word[:MAX_KEY], known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"


def _entries(value: Value) -> tuple[dict[str, tuple[Value, Value]], list[ConfigProblem]]:
    """Return each key with its place and its value, and a problem for each given again."""
    if value.is_null:
        return {}, []
    if not isinstance(value.node, tree.Mapping):
        raise value.rejected(f"expected keys and values, got {value.kind}")
    entries: dict[str, tuple[Value, Value]] = {}
    problems = []
    for key, node in value.node.entries:
        path = (*value.path, key.text)
        if key.text in entries:
            first = entries[key.text][0].node.position.line
            problems.append(Value(key, path).problem(f"given twice, first in line {first}"))
        else:
            entries[key.text] = Value(key, path), Value(node, path)
    return entries, problems
