"""Filters of unpack and list: `TYPE[,TYPE...][:NAME[,NAME...]]`.

Several filters are alternatives; within one, type and name must both hold. A name is an entry's
`name` or its `path` exactly as the Kitfile spells it.
"""

import enum
from collections.abc import Sequence
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


def selects(filters: Sequence[Filter], place: LayerEntry) -> bool:
    """Whether any filter takes an entry; no filters take everything."""
    if not filters:
        return True
    names = {place.entry.path, getattr(place.entry, "name", "")}
    return any(
        _TYPE_OF[place.kind] in chosen.types and (not chosen.names or chosen.names & names)
        for chosen in filters
    )


def selects_kitfile(filters: Sequence[Filter]) -> bool:
    """Whether the Kitfile itself is taken; names mean nothing to it."""
    return not filters or any(FilterType.KITFILE in chosen.types for chosen in filters)
