"""Which tags of a repository a selection means."""

import fnmatch
import functools
import re
import warnings
from collections.abc import Mapping
from typing import ClassVar

from kitd.errors import KitdError
from kitd.mirror.decide import subject_of
from kitd.mirror.order import Selection
from kitd.mirror.semver import Version, parse_range, parse_version

MAX_PATTERN = 256
"""Characters of a regular expression or a glob."""
MAX_TAG = 128
"""OCI distribution spec, "Pulling manifests"."""

_GLOB = re.compile(r"[A-Za-z0-9_.*?\[\]!-]+")


class InvalidPatternError(KitdError):
    """The text is not a pattern of tags."""

    code: ClassVar[str] = "invalid_pattern"


def parse_tag_glob(text: str) -> str:
    """Return a glob of tags: `*`, `?`, `[abc]`, `[!abc]`. Raises `InvalidPatternError`."""
    if _GLOB.fullmatch(text) is None or len(text) > MAX_PATTERN:
        raise InvalidPatternError(
            f"{text[:60]!r} is not a glob of tags", hint="write it like v1.*, or * for all"
        )
    return text


def parse_tag_regex(text: str) -> str:
    """Return a regular expression of Python's `re`. Raises `InvalidPatternError`."""
    if len(text) > MAX_PATTERN:
        raise InvalidPatternError(f"a regular expression has at most {MAX_PATTERN} characters")
    try:
        # What a later Python will understand differently is better written differently now.
        with warnings.catch_warnings(action="error", category=FutureWarning):
            re.compile(text)
    except re.error as error:
        where = "" if error.pos is None else f" at character {error.pos + 1}"
        raise InvalidPatternError(f"not a regular expression: {error.msg}{where}") from error
    except (FutureWarning, OverflowError, RecursionError) as error:
        raise InvalidPatternError(f"not a regular expression: {error}") from error
    return text


def admits(selection: Selection, tag: str) -> bool:
    """Whether a tag passes everything that can be told from its name.

    Digest tags, such as `sha256-….sig`, never do: they belong to the manifest that they name.
    Raises `InvalidRangeError` for a range that `parse_range` would refuse. Takes as long as the
    regular expression takes on one tag, which is up to who wrote it.
    """
    if len(tag) > MAX_TAG or subject_of(tag) is not None:
        return False
    if not any(fnmatch.fnmatchcase(tag, glob) for glob in selection.include):
        return False
    if any(fnmatch.fnmatchcase(tag, glob) for glob in selection.exclude):
        return False
    if selection.regex is not None and re.fullmatch(selection.regex, tag) is None:
        return False
    if selection.semver is None:
        return True
    version = parse_version(tag)
    return version is not None and parse_range(selection.semver).admits(version)


def needs_ages(selection: Selection) -> bool:
    """Whether `select` asks when tags were made: where age counts, or newest without versions."""
    return selection.max_age_s is not None or (
        selection.newest is not None and selection.semver is None
    )


def select(selection: Selection, tags: Mapping[str, int | None], now_us: int) -> tuple[str, ...]:
    """Return the tags that are meant, the newest first.

    `tags` has the time when each was made, in microseconds since the epoch, None where nobody
    knows. The later version is the newer where a range of versions is given, else the later time;
    an unknown time is older than every other, and past every `max_age_s`. What is equal in that is
    in the order of the names. Raises as `admits` does.
    """
    meant = sorted(tag for tag in tags if admits(selection, tag))
    if selection.max_age_s is not None:
        since_us = now_us - round(selection.max_age_s * 1e6)
        meant = [tag for tag in meant if _made_us(tags, tag) >= since_us]
    if selection.semver is not None:
        meant.sort(key=_precedence, reverse=True)
    else:
        meant.sort(key=functools.partial(_made_us, tags), reverse=True)
    return tuple(meant[: selection.newest])


def _made_us(tags: Mapping[str, int | None], tag: str) -> float:
    made_us = tags[tag]
    return float("-inf") if made_us is None else made_us


def _precedence(tag: str) -> tuple[object, ...]:
    version = parse_version(tag)
    assert isinstance(version, Version), tag
    return version.precedence
