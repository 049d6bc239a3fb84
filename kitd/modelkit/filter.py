"""Filters of unpack and list: `TYPE[,TYPE...][:NAME[,NAME...]]`.

Several filters are alternatives; within one, type and name must both hold. A name is an entry's
`name` or its `path` exactly as the Kitfile spells it.
"""

import enum
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kitd.modelkit.errors import InvalidFilterError
from kitd.modelkit.kitfile import EntryKind, LayerEntry

MAX_FILTER = 4096
"""Characters."""


class FilterType(enum.StrEnum):
    """What a filter can name."""

    KITFILE = "kitfile"
    MODEL = "model"
    DATASETS = "datasets"
    CODE = "code"
    DOCS = "docs"
    PROMPTS = "prompts"
    MCP_SERVERS = "mcpservers"


_TYPE_OF = {
    EntryKind.MODEL: FilterType.MODEL,
    EntryKind.MODEL_PART: FilterType.MODEL,
    EntryKind.CODE: FilterType.CODE,
    EntryKind.DATASET: FilterType.DATASETS,
    EntryKind.DOCS: FilterType.DOCS,
    EntryKind.PROMPT: FilterType.PROMPTS,
    EntryKind.MCP_SERVER: FilterType.MCP_SERVERS,
}


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter; no names stand for all of them."""

    types: frozenset[FilterType]
    names: frozenset[str] = frozenset()


def parse_filter(text: str) -> Filter:
    """Read one filter. Raises `InvalidFilterError`."""
    if len(text) > MAX_FILTER:
        raise _error(text, f"it is longer than {MAX_FILTER} characters")
    types, colon, names = text.partition(":")
    if ":" in names:
        raise _error(text, "it has more than one colon")
    if colon and "" in names.split(","):
        raise _error(text, "a name is empty")
    try:
        chosen = frozenset(FilterType(word) for word in types.split(","))
    except ValueError as error:
        raise _error(text, "it names an unknown type") from error
    return Filter(chosen, frozenset(names.split(",") if colon else ()))


def _error(text: str, problem: str) -> InvalidFilterError:
    return InvalidFilterError(
        f"{text[:80]!r} is not a filter: {problem}",
        hint="write types, then names: model,datasets:train; types are " + ", ".join(FilterType),
    )


def selection(filters: Sequence[Filter]) -> Callable[[LayerEntry], bool]:
    """Return whether any filter takes an entry; no filters take everything.

    An entry costs the same, however many filters there are: there may be a hundred thousand.
    """
    whole = {kind for chosen in filters if not chosen.names for kind in chosen.types}
    named: defaultdict[FilterType, set[str]] = defaultdict(set)
    for chosen in filters:
        for kind in chosen.types:
            named[kind] |= chosen.names

    def takes(place: LayerEntry) -> bool:
        kind = _TYPE_OF[place.kind]
        return (
            not filters
            or kind in whole
            or place.entry.path in named[kind]
            or getattr(place.entry, "name", "") in named[kind]
        )

    return takes


def selects_kitfile(filters: Sequence[Filter]) -> bool:
    """Whether the Kitfile itself is taken; names mean nothing to it."""
    return not filters or any(FilterType.KITFILE in chosen.types for chosen in filters)
