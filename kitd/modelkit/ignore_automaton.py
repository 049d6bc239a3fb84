"""Patterns of a .kitignore that take the time of one pass over a path, whatever they are.

A regular expression tries the ways to share a path between several wildcards one after the other:
their number grows with each of them. An automaton goes all ways at once; its states are the bits
of a number. Source: Baeza-Yates and Gonnet, "A New Approach to Text Searching" (1992).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

_NO_LINE_END = re.compile(r".")
"""What `**` takes: as in Go, anything but the end of a line."""


@dataclass(frozen=True, slots=True)
class Token:
    """One element of a pattern."""

    text: str
    """`*`, `**` (which takes a slash behind it along), or a character's or a class's expression."""
    wild: bool = False
    special: bool = False
    """Not a plain character: an expression is needed."""
    spans: bool = False
    """May match a slash."""


@dataclass(frozen=True, slots=True)
class _Steps:
    """What one character does, as sets of states."""

    advance: int
    """Those that it leads to the next one."""
    stay: int


@dataclass(frozen=True, slots=True, eq=False)
class Automaton:
    """A pattern's states; state n is before the n-th place, the last one is a match.

    A `**` inside of a pattern, which is nothing, or anything that ends in a slash, has two places:
    where it begins, and within.
    """

    head: str
    tail: str
    required: str
    """Text that whatever matches begins and ends with, and has in it: most paths are told by it."""
    spans: int
    stars: int
    """How many `**` and `*` it has inside, where each may take more or less."""
    places: tuple[Token, ...]
    inside: int
    """States within a `**`."""
    skip: int
    """States from which the next one is reached by nothing."""
    leap: int
    """States from which the one after that is."""
    _steps: dict[str, _Steps] = field(default_factory=dict)

    def ways(self, path: str) -> int:
        """Return about how many ways to match a path a regular expression may try."""
        return int((path.count("/") + 1) ** self.spans * len(path) ** self.stars)

    def matches(self, path: str) -> bool:
        """Whether the whole of a path matches."""
        if not path.startswith(self.head) or not path.endswith(self.tail):
            return False
        if self.required not in path:
            return False
        states = self._closed(1)
        for character in path:
            steps = self._steps.get(character) or self._learn(character)
            states = self._closed((states & steps.advance) << 1 | states & steps.stay)
            if not states:
                return False
        return bool(states >> len(self.places))

    def _closed(self, states: int) -> int:
        while True:
            more = states | (states & self.skip) << 1 | (states & self.leap) << 2
            if more == states:
                return states
            states = more

    def _learn(self, character: str) -> _Steps:
        advance = stay = 0
        in_line = _NO_LINE_END.fullmatch(character) is not None
        for number, token in enumerate(self.places):
            state = 1 << number
            if not token.wild:
                advance |= state if re.fullmatch(token.text, character) else 0
            elif state & self.inside:
                stay |= state if in_line else 0
                advance |= state if character == "/" else 0
            elif token.spans:
                # Where it begins nothing is taken, but at the end of a pattern.
                stay |= state if in_line and not state & self.leap else 0
            else:
                stay |= state if character != "/" else 0
        steps = _Steps(advance, stay)
        # There are as many characters as a hostile tree has names for.
        if len(self._steps) < 1024:
            self._steps[character] = steps
        return steps


def automaton_for(tokens: Sequence[Token]) -> Automaton:
    """Return what matches the paths that a pattern of these tokens does."""
    places: list[Token] = []
    inside = skip = leap = 0
    for number, token in enumerate(tokens):
        if token.wild:
            skip |= 1 << len(places)
            if token.spans and number < len(tokens) - 1:
                leap |= 1 << len(places)
                places.append(token)
                inside |= 1 << len(places)
        places.append(token)
    runs = [
        _plain_text(group) if is_plain else None
        for is_plain, group in groupby(tokens, lambda token: not (token.wild or token.special))
    ]
    wild = [token.spans for token in tokens if token.wild]
    return Automaton(
        head=runs[0] or "",
        tail=runs[-1] or "",
        required=max((run for run in runs if run), key=len, default=""),
        spans=sum(wild),
        stars=len(wild) - sum(wild),
        places=tuple(places),
        inside=inside,
        skip=skip,
        leap=leap,
    )


def _plain_text(tokens: Iterable[Token]) -> str:
    return re.sub(r"\\(.)", r"\1", "".join(token.text for token in tokens), flags=re.DOTALL)
