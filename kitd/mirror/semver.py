"""Versions that tags name, and ranges of them.

Versions and their precedence are those of semver.org 2.0.0 (sections 2, 9, 10 and 11), with `v` in
front or not, and with minor and patch left out where they are 0. Ranges are written as for npm:
`>=1.2 <2`, `^1.2`, `~1.2.3`, `1.x`, `1.2 - 1.4`, `||`. A prerelease is in a range only if the
range names a prerelease of the same version, as with npm: `^1.2.3` is no wish for `1.3.0-rc.1`.
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from kitd.errors import KitdError

MAX_RANGE = 256
"""Characters of a range."""
MAX_VERSION = 256
"""Characters of a version; more than a tag can have."""

_NUMBER = r"(?:0|[1-9][0-9]*)"
_IDENTIFIER = rf"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_PRERELEASE = rf"(?:-(?P<prerelease>{_IDENTIFIER}(?:\.{_IDENTIFIER})*))?"
_BUILD = r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
_VERSION = re.compile(rf"[vV]?(?P<numbers>{_NUMBER}(?:\.{_NUMBER}){{0,2}}){_PRERELEASE}{_BUILD}")
_WILDCARD = "[xX*]"
_PARTIAL = re.compile(
    rf"(?P<operator>~>|[<>]=?|[=~^])?[vV]?"
    rf"(?:(?P<numbers>{_NUMBER}\.{_NUMBER}\.{_NUMBER}){_PRERELEASE}{_BUILD}"
    rf"|(?P<few>{_NUMBER}(?:\.{_NUMBER})?)(?:\.{_WILDCARD}){{0,2}}"
    rf"|{_WILDCARD}(?:\.{_WILDCARD}){{0,2}})",
)
_HYPHEN = re.compile(r"(\S+)\s+-\s+(\S+)")
_GAP = re.compile(r"(~>|[<>]=?|[=~^])\s+")
_FIRST = (0,)
"""The prerelease that comes before all others: `2.0.0-0`."""


class InvalidRangeError(KitdError):
    """The text is not a range of versions."""

    code: ClassVar[str] = "invalid_version_range"


@dataclass(frozen=True, slots=True)
class Version:
    """A version without its build metadata, which has no say in anything."""

    release: tuple[int, ...]
    """Major, minor and patch."""
    prerelease: tuple[int | str, ...] = ()

    @property
    def precedence(self) -> tuple[object, ...]:
        """What versions are compared by: the later one is greater, and equal ones are the same."""
        identifiers = tuple(
            (0, identifier, "") if isinstance(identifier, int) else (1, 0, identifier)
            for identifier in self.prerelease
        )
        return self.release, not identifiers, identifiers


@dataclass(frozen=True, slots=True)
class _Bound:
    relation: str
    version: Version

    def holds(self, version: Version) -> bool:
        mine, its = self.version.precedence, version.precedence
        if mine == its:
            return "=" in self.relation
        return (its < mine) if "<" in self.relation else (its > mine and ">" in self.relation)

    def names_prerelease_of(self, version: Version) -> bool:
        return bool(self.version.prerelease) and self.version.release == version.release


_NOTHING = (_Bound("<", Version((0, 0, 0), _FIRST)),)


@dataclass(frozen=True, slots=True)
class Range:
    """A checked range: alternatives, of each of which all bounds hold. Made by `parse_range`."""

    alternatives: tuple[tuple[_Bound, ...], ...]

    def admits(self, version: Version) -> bool:
        """Whether a version is in the range."""
        return any(_admits(bounds, version) for bounds in self.alternatives)


def _admits(bounds: tuple[_Bound, ...], version: Version) -> bool:
    is_meant = not version.prerelease or any(b.names_prerelease_of(version) for b in bounds)
    return is_meant and all(bound.holds(version) for bound in bounds)


def parse_version(text: str) -> Version | None:
    """Return the version that a tag names; None for one that names none, or has 257 characters."""
    match = _VERSION.fullmatch(text) if len(text) <= MAX_VERSION else None
    return match and _version(match)


@functools.lru_cache(maxsize=256)
def parse_range(text: str) -> Range:
    """Return the range. Raises `InvalidRangeError`."""
    if len(text) > MAX_RANGE:
        raise InvalidRangeError(f"a range of versions has at most {MAX_RANGE} characters")
    return Range(tuple(tuple(_bounds(part.strip())) for part in text.split("||")))


def _version(match: re.Match[str]) -> Version:
    identifiers = match["prerelease"].split(".") if match["prerelease"] else ()
    return Version(
        _release(tuple(map(int, match["numbers"].split(".")))),
        tuple(int(part) if part.isdecimal() else part for part in identifiers),
    )


def _release(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """Return one to three numbers as three; what is left out is 0."""
    return (*numbers, 0, 0)[:3]


def _bounds(text: str) -> Iterator[_Bound]:
    if not text:
        raise InvalidRangeError("a part of the range is empty", hint="* is every version")
    if hyphen := _HYPHEN.fullmatch(text):
        # An end with a relation of its own is no version with another in front.
        yield from _simple(f">={hyphen[1]}")
        yield from _simple(f"<={hyphen[2]}")
        return
    for word in _GAP.sub(r"\1", text).split():
        yield from _simple(word)


def _simple(word: str) -> tuple[_Bound, ...]:
    match = _PARTIAL.fullmatch(word)
    if match is None:
        raise _not_a_version(word)
    relation = match["operator"] or "="
    if match["numbers"]:
        return _of_whole(relation, _version(match))
    return _of_few(relation, tuple(map(int, match["few"].split("."))) if match["few"] else ())


def _of_whole(relation: str, version: Version) -> tuple[_Bound, ...]:
    match relation:
        case "^":
            kept = next((place for place, number in enumerate(version.release) if number), 2)
        case "~" | "~>":
            kept = 1
        case _:
            return (_Bound(relation, version),)
    return _Bound(">=", version), _before(_next(version.release, kept))


def _of_few(relation: str, known: tuple[int, ...]) -> tuple[_Bound, ...]:
    """Return the bounds where the patch, and maybe more, may be anything."""
    if not known:
        return _NOTHING if relation in {"<", ">"} else ()
    lowest = Version(_release(known))
    is_minor_kept = relation != "^" or known[0] == 0
    after = _next(lowest.release, len(known) - 1 if is_minor_kept else 0)
    match relation:
        case "<":
            return (_before(lowest),)
        case "<=":
            return (_before(after),)
        case ">":
            return (_Bound(">=", after),)
        case ">=":
            return (_Bound(">=", lowest),)
    return _Bound(">=", lowest), _before(after)


def _next(release: tuple[int, ...], kept: int) -> Version:
    """Return the first release that differs at one of the places up to `kept`."""
    return Version(_release((*release[:kept], release[kept] + 1)))


def _before(version: Version) -> _Bound:
    """Return the bound that leaves out the prereleases of `version` as well."""
    return _Bound("<", Version(version.release, _FIRST))


def _not_a_version(word: str) -> InvalidRangeError:
    return InvalidRangeError(
        f"{word[:40]!r} is not part of a range of versions",
        hint="write it like >=1.2 <2, ^1.2, ~1.2.3, 1.x or 1.2 - 1.4, with || between alternatives",
    )
