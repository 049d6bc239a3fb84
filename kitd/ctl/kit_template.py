"""What `kitctl list --format` takes of Go's templates. Pure.

These are fields, `{{.Repo}}:{{.Tags}}`, and one tag of several, `{{index .Tags 0}}`. Conditions,
loops and other functions are refused: whoever programs has `--json`, and tools for that.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from kitd.client.record import Kit
from kitd.ctl.error import UsageError
from kitd.ctl.format import printable, size

_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}")
_FIELDS: Mapping[str, Callable[[Kit], str]] = {
    ".Repo": lambda kit: kit.repository,
    ".Digest": lambda kit: kit.digest,
    # As Go prints a list.
    ".Tags": lambda kit: f"[{' '.join(kit.tags)}]",
    ".ModelName": lambda kit: kit.model_name or "",
    ".Size": lambda kit: size(kit.size),
    ".Author": lambda kit: kit.author or "",
}

_ONE_TAG = re.compile(r"index \.Tags ([0-9]{1,3})", re.ASCII)

Parts = Sequence[str | Callable[[Kit], str]]


def parse_template(text: str) -> Parts:
    """Return the texts and the fields of a template. Raises `UsageError`."""
    parts: list[str | Callable[[Kit], str]] = []
    pieces = _ACTION.split(text.replace("\\n", "\n").replace("\\t", "\t"))
    for number, piece in enumerate(pieces):
        if number % 2 == 0:
            parts.append(piece)
        elif piece in _FIELDS:
            parts.append(_FIELDS[piece])
        elif one := _ONE_TAG.fullmatch(piece):
            parts.append(partial(_tag, index=int(one[1])))
        else:
            raise UsageError(
                f"--format has no {piece[:40]!r}, only " + ", ".join(_FIELDS),
                hint="for more there is --json",
            )
    if len(pieces) == 1:
        raise UsageError(
            f"--format {text[:40]!r} is neither table nor json, and names no field",
            hint="write it like '{{.Repo}} {{.Size}}'",
        )
    return parts


def _tag(kit: Kit, index: int) -> str:
    """Return one tag; a kit that has fewer has none there, which Go takes for an error."""
    return kit.tags[index] if index < len(kit.tags) else ""


def fill_template(parts: Parts, kit: Kit) -> str:
    """Return a kit's line, which ends in a newline."""
    line = "".join(part if isinstance(part, str) else printable(part(kit)) for part in parts)
    return line if line.endswith("\n") else f"{line}\n"
