"""What `kitctl list --format` takes of Go's templates: fields, `{{.Repo}}:{{.Tags}}`. Pure.

Conditions, loops and functions are refused: whoever programs has `--json`, and tools for that.
"""

import re
from collections.abc import Callable, Mapping, Sequence

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


def fill_template(parts: Parts, kit: Kit) -> str:
    """Return a kit's line, which ends in a newline."""
    line = "".join(part if isinstance(part, str) else printable(part(kit)) for part in parts)
    return line if line.endswith("\n") else f"{line}\n"
