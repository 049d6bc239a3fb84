"""Paths into a Kitfile: `.model.parts[0].path`, `datasets[-1].parameters."learning rate"`.

Keys are those of the Kitfile. Those that it knows are found whatever their case, so that the
spellings that `kit` takes (`dataSets`, `Model.Name`) are found, too; below `parameters`, whose keys
are their author's, only the exact ones are.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from kitd.errors import NotFoundError
from kitd.modelkit.errors import InvalidFilterError
from kitd.oci.json_reader import Json

MAX_PATH = 1024
"""Characters."""
MAX_NAMED = 12
"""Keys that an error names."""

_STEP = re.compile(
    r"\.?(?P<key>[A-Za-z0-9_-]+)"
    r"|\.?\"(?P<quoted>[^\"]+)\""
    r"|\[\"(?P<bracketed>[^\"]+)\"\]"
    r"|\[(?P<index>-?[0-9]{1,6})\]"
)


def find_in_kitfile(document: Mapping[str, Json], path: str) -> Json:
    """Return what a path leads to in a Kitfile's JSON; `.` is all of it.

    Raises `InvalidFilterError` for what is no path, `NotFoundError` for one that leads nowhere.
    """
    steps = tuple(_steps(path))
    value: Json = document
    is_free, walked = False, ""
    for step in steps:
        if isinstance(step, int):
            value = _item(value, step, walked)
            walked += f"[{step}]"
        else:
            value, key = _member(value, step, walked, is_free=is_free)
            is_free = is_free or key == "parameters"
            walked += f".{key}"
    return value


def _steps(path: str) -> Iterator[str | int]:
    if len(path) > MAX_PATH:
        raise _invalid(path, f"it is longer than {MAX_PATH} characters")
    if path in ("", "."):
        return
    position = 0
    while position < len(path):
        step = _STEP.match(path, position)
        # Without a point between them two keys are one, or a mistake.
        if step is None or (position and step["index"] is None and path[position] not in '.["'):
            raise _invalid(path, f"{path[position:][:40]!r} is no step")
        if step["index"] is not None:
            yield int(step["index"])
        else:
            yield step["key"] or step["quoted"] or step["bracketed"]
        position = step.end()


def _item(value: Json, index: int, walked: str) -> Json:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise NotFoundError(f"{walked or '.'} is not a list", hint=_keys(value))
    if not -len(value) <= index < len(value):
        raise NotFoundError(
            f"{walked} has {len(value)} items, and no [{index}]", hint="the first is [0]"
        )
    return value[index]


def _member(value: Json, key: str, walked: str, *, is_free: bool) -> tuple[Json, str]:
    if not isinstance(value, Mapping):
        hint = f"name one: {walked}[0].{key}" if _is_list(value) else "leave out what follows"
        raise NotFoundError(f"{walked} has no keys", hint=hint)
    if key not in value and not is_free:
        alike = [known for known in value if known.lower() == key.lower()]
        key = alike[0] if alike else key
    if key not in value:
        raise NotFoundError(f"there is no {walked}.{key[:80]} in the Kitfile", hint=_keys(value))
    return value[key], key


def _is_list(value: Json) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _keys(value: Json) -> str:
    if not isinstance(value, Mapping) or not value:
        return "see all of it: kitctl info REF"
    names = [name[:80] for name in value][:MAX_NAMED]
    return "there are: " + ", ".join(names) + (" …" if len(value) > MAX_NAMED else "")


def _invalid(path: str, problem: str) -> InvalidFilterError:
    return InvalidFilterError(
        f"{path[:80]!r} is not a path into a Kitfile: {problem}",
        hint="write it like .model.parts[0].path",
    )
