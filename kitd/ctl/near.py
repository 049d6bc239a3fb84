"""What somebody may have meant who named something that there is not."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from kitd.ctl.command import Command
from kitd.ctl.complete import live_values
from kitd.ctl.session import Session

_NAMED = ("project", "mirror", "kit", "compared kit", "subject")
_GIVEN = ("tag", "target")
"""Names that something is to be given, so that there need be none like it."""
MAX_CHARS = 200


def name_near(session: Session, command: Command, arguments: Mapping[str, Any]) -> str | None:
    """Return a hint with the nearest name that there is, or None where none is near."""
    for argument in command.arguments:
        value = arguments.get(argument.parameter)
        if argument.values not in _NAMED or not isinstance(value, str) or value.isdigit():
            continue
        if argument.parameter in _GIVEN:
            continue
        there_are = live_values(session.socket, argument.values, "", session.now_s)
        names = [each.word for each in there_are if not each.word.isdigit()]
        if value in names:
            continue
        if near := get_close_matches(value[:MAX_CHARS], names, n=1, cutoff=0.8):
            return f"did you mean {near[0]}?"
    return None
