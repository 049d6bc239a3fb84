"""`WWW-Authenticate` challenges (RFC 9110, section 11.6.1), several to a header.

The grammar is ambiguous only on the surface: a comma separates both parameters and challenges, and
a token followed by a space (or by nothing) starts a challenge, one followed by `=` a parameter.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_HEADER = 8192

_NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER = re.compile(rf'({_NAME})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_NAME}))')
_SCHEME = re.compile(rf"({_NAME})(?:\s+|\s*,|\s*$)")
_TOKEN68 = re.compile(r"[A-Za-z0-9\-._~+/]+=+(?=\s*(?:,|$))")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One scheme, lower case, and its parameters, names in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict, hash=False)


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """Return the challenges in the order they stand; what cannot be read ends the list."""
    challenges: list[Challenge] = []
    parameters: dict[str, str] = {}
    position, text = 0, header[:MAX_HEADER]
    while position < len(text):
        if text[position] in " \t,":
            position += 1
        elif challenges and (match := _PARAMETER.match(text, position)):
            name, quoted, token = match.groups()
            value = token if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters.setdefault(name.lower(), value)
            position = match.end()
        elif match := _SCHEME.match(text, position):
            parameters = {}
            challenges.append(Challenge(match.group(1).lower(), parameters))
            position = match.end()
            # Negotiate and friends carry an opaque token, which no registry scheme uses. Unpadded
            # ones read as a scheme nobody knows, which does as well.
            if match := _TOKEN68.match(text, position):
                position = match.end()
        else:
            break
    return tuple(challenges)
