"""One delivery as it came in, and what a format reads out of it. Values."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from kitd.oci.digest import Digest


class Action(enum.StrEnum):
    """What became of a tag or a manifest."""

    PUSH = "push"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A request from a sender: nothing of it has been believed yet."""

    method: str
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes
    """The bytes of the wire."""
    received_us: int
    """Microseconds since the epoch, by our clock."""
    path_secret: str | None = None
    """What stood in the path after the source's name."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something may have changed in a repository, by the name it has in its registry."""

    repository: str
    tag: str | None = None
    """None where none is named: a manifest without a tag, or a sender that names only it."""
    digest: Digest | None = None
    action: Action = Action.PUSH


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed; none for a sender that says so with an empty list."""

    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Irrelevant:
    """Authentic, and nothing to act on: a pull, a scan, a blob, a ping. Answered by 200."""

    why: str


@dataclass(frozen=True, slots=True)
class Handshake:
    """A sender that wants to be answered before it sends anything."""

    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


Reading = Changes | Irrelevant | Handshake
