"""One request to a registry, before it is sent: a value."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from yarl import URL

from kitd.content.store import ByteStream
from kitd.registry.auth.scope import Scope

IDLE_S = 60.0
"""How long a connection may be silent. Nothing bounds how long a transfer may take."""

Body = Callable[[], AbstractAsyncContextManager[ByteStream]]
"""Opens the content to send; called again where a request has to be sent again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as the callers see it: no credentials, no redirects, no attempts."""

    operation: str
    """What it is for, in the words of an error: "read the manifest team/model:latest"."""
    method: str
    url: URL
    scopes: tuple[Scope, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    # A form may hold a refresh token.
    content: bytes | Body | None = field(default=None, repr=False)
    accept: frozenset[int] = frozenset()
    """Statuses beside 2xx that the caller handles itself."""
    idle_s: float = IDLE_S
    follows_redirects: bool = True
