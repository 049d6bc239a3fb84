"""Tags with placeholders: `latest`, `{package.version}`, `{time:%Y%m%d}`, `{digest:12}`.

A template is parsed when the configuration is, so that a typo is found there; it is rendered for
every kit. Both are pure: the time comes with the context.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from kitd.config.problem import InvalidValueError
from kitd.oci.digest import Digest, abbreviate

MAX_TAG = 128
"""OCI distribution spec, "Pulling manifests"."""

_PART = re.compile(r"\{([^{}]*)\}|([^{}]+)|[{}]")
_NOT_TAG = re.compile(r"[^A-Za-z0-9_.-]")
# Numbers only: names of days and months depend on the locale of the machine.
_TIME_FORMAT = re.compile(r"(?:%[YymdHMSjGVuf]|[A-Za-z0-9_.-])+")


@dataclass(frozen=True, slots=True)
class TagContext:
    """What a kit is tagged from; None is what it does not have."""

    project: str
    digest: Digest
    time: datetime
    package_version: str | None = None
    git_commit: str | None = None


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A name and its argument: the format of a time, the number of characters of the others."""

    name: str
    argument: str


@dataclass(frozen=True, slots=True)
class TagTemplate:
    """A parsed template; `str()` gives its text."""

    text: str
    parts: tuple[str | Placeholder, ...]

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Omission:
    """Why a template gives no tag for this kit."""

    template: TagTemplate
    reason: str


def _format_time(context: TagContext, argument: str) -> str:
    return context.time.astimezone(UTC).strftime(argument)


def _commit(context: TagContext, argument: str) -> str | None:
    return None if context.git_commit is None else context.git_commit[: int(argument)]


@dataclass(frozen=True, slots=True)
class _Kind:
    default: str
    """The argument where none is given; empty where none is taken."""
    argument: re.Pattern[str]
    value: Callable[[TagContext, str], str | None]


_NONE = re.compile("")
_LENGTH = re.compile("[1-9][0-9]?")
_KINDS: Mapping[str, _Kind] = {
    "project": _Kind("", _NONE, lambda context, _: context.project),
    "package.version": _Kind("", _NONE, lambda context, _: context.package_version),
    "time": _Kind("%Y%m%d-%H%M%S", _TIME_FORMAT, _format_time),
    "digest": _Kind("12", _LENGTH, lambda context, length: abbreviate(context.digest, int(length))),
    "git.commit": _Kind("12", _LENGTH, _commit),
}


def parse_tag_template(text: str) -> TagTemplate:
    """Return the template. Raises `InvalidValueError`."""
    parts: list[str | Placeholder] = []
    for match in _PART.finditer(text):
        inner, literal = match.groups()
        if inner is not None:
            parts.append(_parse_placeholder(inner))
        elif literal is None:
            raise InvalidValueError(f"{text[:60]!r} has a brace without its partner")
        elif _NOT_TAG.search(literal):
            raise _not_a_tag(text)
        else:
            parts.append(literal)
    fixed = "".join(part for part in parts if isinstance(part, str))
    if not parts or text[0] in ".-" or len(fixed) > MAX_TAG:
        raise _not_a_tag(text)
    return TagTemplate(text, tuple(parts))


def _not_a_tag(text: str) -> InvalidValueError:
    return InvalidValueError(
        f"{text[:60]!r} is not a tag", hint="letters, digits, '_', '.' and '-', at most 128"
    )


def _parse_placeholder(inner: str) -> Placeholder:
    name, colon, argument = inner.partition(":")
    kind = _KINDS.get(name)
    if kind is None:
        near = difflib.get_close_matches(name, _KINDS, n=1)
        known = ", ".join(f"{{{name}}}" for name in near or _KINDS)
        raise InvalidValueError(
            f"unknown placeholder {{{inner[:40]}}}",
            hint=f"did you mean {known}?" if near else f"known are {known}",
        )
    if colon and (not argument or kind.argument.fullmatch(argument) is None):
        example = f"{{{name}:{kind.default}}}" if kind.default else f"{{{name}}}"
        raise InvalidValueError(f"cannot use {{{inner[:40]}}}", hint=f"write it like {example}")
    return Placeholder(name, argument or kind.default)


def render_tag(template: TagTemplate, context: TagContext) -> str | Omission:
    """Return the tag for one kit, or why there is none.

    Characters that no tag can hold become `-`: the version `1.0+cu121` gives `1.0-cu121`. What is
    too long for a tag is cut off.
    """
    rendered = ""
    for part in template.parts:
        if isinstance(part, Placeholder):
            value = _KINDS[part.name].value(context, part.argument)
            if not value:
                return Omission(template, f"the kit has no {part.name}")
            rendered += _NOT_TAG.sub("-", value)
        else:
            rendered += part
    tag = rendered.lstrip(".-")[:MAX_TAG]
    return tag or Omission(template, f"{rendered[:60]!r} is not a tag")
