""".kitignore: which paths of a project no layer takes.

The syntax is that of .dockerignore, matched as moby/patternmatcher does: patterns are anchored at
the project's root, a pattern that matches a directory holds for everything beneath it, and the
last matching pattern decides. `Kitfile`, its other spellings and `.kitignore` itself, in the root,
are always left out, and what an unpack keeps for itself, anywhere.

Neighbouring patterns of one sign are compiled to one rule: a set of literal paths, two tuples of
prefixes and suffixes, one regular expression, and automata for paths on which an
expression could take for ever. A walk passes each directory's verdict on to what lies in it, so a
path costs at most one look at each rule after the one that decided its directory, and a list
without `!` is a single rule. A verdict is the number of the deciding rule.
"""

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from kitd.modelkit.errors import KitignoreError
from kitd.modelkit.ignore_automaton import Automaton, Token, automaton_for
from kitd.modelkit.kitfile import KITFILE_NAMES

KITIGNORE_NAME = ".kitignore"
STAGING_PREFIX = ".kitd-unpack-"
"""What the name of the directory begins with in which an unpack keeps files until all are good.

Sixteen hexadecimal digits follow."""
MAX_KITIGNORE_BYTES = 1024 * 1024
MAX_PATTERNS = 4096
MAX_WILDCARDS = 16
"""Wildcards of one pattern; what backtracking costs grows with every one."""
MAX_PATIENT = 256
"""Patterns of one file with `**` inside and further wildcards."""
MAX_WAYS = 100_000
"""Which all of these together may try on a path: more are left to automata."""

_ANY_NAME = "**/*"
_STAGING = re.compile(
    rb"(?:.*/)?" + re.escape(STAGING_PREFIX).encode() + rb"[0-9a-f]{16}(?:/.*)?", re.DOTALL
)
_STAGING_PART = STAGING_PREFIX.encode()

UNDECIDED = -1
"""The verdict of a path that no rule matches, and that of the root."""


@dataclass(frozen=True, slots=True)
class _Pattern:
    text: str
    """Cleaned, without `!`. Bytes that are not UTF-8 are kept as lone surrogates."""
    ignores: bool
    expression: str | None
    """A regular expression for the whole path; None where `text` needs none."""
    automaton: Automaton | None = None
    """What is used instead of the expression on paths on which that would backtrack too much."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """Neighbouring patterns of one sign; matches what any of them matches."""

    ignores: bool
    paths: frozenset[bytes]
    prefixes: tuple[bytes, ...]
    suffixes: tuple[bytes, ...]
    expression: re.Pattern[str] | None
    patient: tuple[Automaton, ...]
    """Patterns whose expressions try many ways to match a path."""
    hasty: re.Pattern[str] | None
    """The expression of all other patterns."""
    takes_staging: bool = False
    """Whether it matches staging directories and what is in them."""

    def matches(self, path: bytes) -> bool:
        if self.takes_staging and _STAGING_PART in path and _STAGING.fullmatch(path) is not None:
            return True
        if path in self.paths or path.endswith(self.suffixes) or path.startswith(self.prefixes):
            return True
        if self.expression is None:
            return False
        # One byte that is not UTF-8 counts as one character, as it does in Go.
        text = path.decode("utf-8", "surrogateescape")
        if not self.patient or sum(each.ways(text) for each in self.patient) <= MAX_WAYS:
            return self.expression.fullmatch(text) is not None
        if self.hasty is not None and self.hasty.fullmatch(text) is not None:
            return True
        return any(automaton.matches(text) for automaton in self.patient)


class IgnoreRules:
    """A compiled .kitignore. Immutable, and safe to share between walks."""

    __slots__ = ("_newest_first", "_rules", "has_exceptions")

    def __init__(self, patterns: Sequence[_Pattern]) -> None:
        always = [
            _Pattern(name, ignores=True, expression=None)
            for name in (*KITFILE_NAMES, KITIGNORE_NAME)
        ]
        rules = [
            _compile(list(group), ignores=ignores)
            for ignores, group in groupby([*patterns, *always], lambda pattern: pattern.ignores)
        ]
        # The last has the names that are always left out: nothing takes them back.
        self._rules = (*rules[:-1], replace(rules[-1], takes_staging=True))
        self._newest_first = tuple(reversed(tuple(enumerate(self._rules))))
        self.has_exceptions = not all(rule.ignores for rule in self._rules)
        """Whether something beneath an ignored directory may be taken all the same."""

    @classmethod
    def parse(cls, content: bytes) -> "IgnoreRules":
        """Read a .kitignore; b"" leaves the names that are always ignored.

        Raises `KitignoreError`, which names the line.
        """
        return cls(tuple(_patterns(content)))

    def judge(self, path: bytes, parent: int) -> int:
        """Return the verdict on a path, given that on the directory it is in."""
        for number, rule in self._newest_first:
            if number <= parent:
                break
            if rule.matches(path):
                return number
        return parent

    def is_ignored(self, verdict: int) -> bool:
        """Whether a verdict leaves its path out."""
        return verdict != UNDECIDED and self._rules[verdict].ignores

    def matches(self, path: bytes) -> bool:
        """Whether a path is left out; walks its parents, so a scan uses `judge`."""
        verdict, end = UNDECIDED, -1
        while (end := path.find(b"/", end + 1)) >= 0:
            verdict = self.judge(path[:end], verdict)
        return self.is_ignored(self.judge(path, verdict))


def _patterns(content: bytes) -> Iterator[_Pattern]:
    if len(content) > MAX_KITIGNORE_BYTES:
        raise KitignoreError(
            f"{KITIGNORE_NAME} has {len(content)} bytes, more than {MAX_KITIGNORE_BYTES}"
        )
    text = content.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    count = patient = 0
    for number, line in enumerate(text.split("\n"), start=1):
        written = line.strip()
        # Only a line that begins with # is a comment; a space in front makes it a pattern.
        if not written or line.startswith("#"):
            continue
        count += 1
        if count > MAX_PATTERNS:
            raise _error(number, written, f"more than {MAX_PATTERNS} patterns")
        ignores = not written.startswith("!")
        pattern = written if ignores else written[1:].strip()
        if "\0" in pattern:
            raise _error(number, written, "the character NUL is in no path")
        pattern = posixpath.normpath(pattern).lstrip("/").strip() if pattern else ""
        if not pattern and not ignores:
            raise _error(number, written, "an exception without a pattern")
        try:
            parsed = _pattern(pattern, ignores=ignores)
        except ValueError as error:
            raise _error(number, written, str(error)) from error
        patient += parsed.automaton is not None
        if patient > MAX_PATIENT:
            problem = f"more than {MAX_PATIENT} patterns with ** inside and further wildcards"
            raise _error(number, written, problem)
        yield parsed


def _pattern(text: str, *, ignores: bool) -> _Pattern:
    """Return a pattern, ready to be matched. Raises ValueError."""
    expression, tokens = _expression(text), list(_tokens(text))
    inner = [token for token in tokens[:-1] if token.wild]
    spans = sum(token.spans for token in inner)
    # With one of them a path is looked through once for each of its directories, at most.
    if expression is not None and spans and len(inner) > 1:
        return _Pattern(
            text, ignores=ignores, expression=expression, automaton=automaton_for(tokens)
        )
    return _Pattern(text, ignores=ignores, expression=expression)


def _error(number: int, written: str, problem: str) -> KitignoreError:
    return KitignoreError(
        f"{KITIGNORE_NAME}:{number}: {problem}: {written[:80]!r}",
        hint="the syntax is that of .dockerignore",
    )


def _compile(patterns: Sequence[_Pattern], *, ignores: bool) -> _Rule:
    paths: list[str] = []
    prefixes: list[str] = []
    suffixes: list[str] = []
    expressions: list[str] = []
    hasty: list[str] = []
    patient: list[Automaton] = []
    for pattern in patterns:
        text = pattern.text
        if pattern.expression is not None:
            expressions.append(pattern.expression)
            if pattern.automaton is None:
                hasty.append(pattern.expression)
            else:
                patient.append(pattern.automaton)
        elif text.startswith(_ANY_NAME):
            suffixes.append(text.removeprefix(_ANY_NAME))
        elif text.startswith("**"):
            suffixes.append(text[2:])
            paths.append(text[2:].removeprefix("/"))
        elif text.endswith("**"):
            prefixes.append(text[:-2])
        else:
            paths.append(text)
    return _Rule(
        ignores,
        frozenset(map(_encode, paths)),
        tuple(map(_encode, prefixes)),
        tuple(map(_encode, suffixes)),
        re.compile("|".join(expressions)) if expressions else None,
        tuple(patient),
        re.compile("|".join(hasty)) if hasty else None,
    )


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _expression(pattern: str) -> str | None:
    """Return what matches the paths that the pattern does, None for a literal.

    `**` at one end of a pattern that is literal otherwise stays literal too: a prefix or a suffix.
    So does `**/*` before the end of a name. Raises ValueError.
    """
    tokens = list(_tokens(pattern))
    wild = [place for place, token in enumerate(tokens) if token.wild]
    if len(wild) > MAX_WILDCARDS:
        raise ValueError(f"more than {MAX_WILDCARDS} wildcards")
    if pattern.startswith(_ANY_NAME) and tokens[1].text == "*" and _is_name(tokens[2:]):
        return None
    at_one_end = not wild or (len(wild) == 1 and wild[0] in {0, len(tokens) - 1})
    if at_one_end and not any(token.special for token in tokens):
        return None
    return "".join(_pieces(tokens))


def _is_name(tokens: Sequence[Token]) -> bool:
    """Whether the tokens are plain characters of one path element."""
    return not any(token.wild or token.special or token.spans for token in tokens)


def _tokens(pattern: str) -> Iterator[Token]:
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            if pattern.startswith("*", position):
                position += 2 if pattern.startswith("*/", position) else 1
                yield Token("**", wild=True, spans=True)
            else:
                yield Token("*", wild=True, special=True)
        elif character == "?":
            yield Token("[^/]", special=True)
        elif character == "[":
            expression, position = _class(pattern, position)
            # A negated class of Go's regular expressions takes a slash as well.
            yield Token(expression, special=True, spans=True)
        elif character == "\\":
            if position == len(pattern):
                raise ValueError("nothing follows the backslash")
            yield Token(re.escape(pattern[position]), special=True)
            position += 1
        elif character == "]":
            yield Token(r"\]", special=True)
        else:
            yield Token(re.escape(character), spans=character == "/")


def _class(pattern: str, position: int) -> tuple[str, int]:
    """Return the expression of the class whose `[` stands before `position`, and where it ends."""
    negated = pattern.startswith("^", position)
    position += negated
    ranges: list[str] = []
    while not (ranges and pattern.startswith("]", position)):
        low, position = _class_character(pattern, position)
        high = low
        if pattern.startswith("-", position):
            high, position = _class_character(pattern, position + 1)
        if low > high:
            raise ValueError("a range of characters is the wrong way round")
        ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    return f"[{'^' if negated else ''}{''.join(ranges)}]", position + 1


def _class_character(pattern: str, position: int) -> tuple[str, int]:
    if pattern.startswith("\\", position):
        position += 1
    elif pattern.startswith(("-", "]"), position):
        raise ValueError("a character is missing in [ ]")
    if position >= len(pattern):
        raise ValueError("the [ is not closed")
    return pattern[position], position + 1


def _pieces(tokens: Sequence[Token]) -> Iterator[str]:
    place = 0
    while place < len(tokens):
        token = tokens[place]
        place += 1
        if not token.wild:
            yield token.text
        elif token.spans:
            yield ".*" if place == len(tokens) else "(?:.*/)?"
        else:
            between = _until_star(tokens[place:])
            if between is None:
                yield "[^/]*"
            else:
                # Where another * of the same path element follows, the first place at which the
                # text between the two matches is as good as any other. Saying so spares the
                # backtracking that makes a pattern like *a*a*a*b slow on a long name.
                yield f"(?>[^/]*?{''.join(between)})"
                place += len(between)


def _until_star(tokens: Sequence[Token]) -> list[str] | None:
    """Return what stands before the next `*` of this path element, None if there is none."""
    between: list[str] = []
    for token in tokens:
        if token.spans:
            return None
        if token.wild:
            return between
        between.append(token.text)
    return None
