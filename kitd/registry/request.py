"""One request to a registry, before it is sent: a value."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from yarl import URL

from kitd.content.store import ByteStream
from kitd.registry.auth.scope import Scope
from kitd.registry.governor import Lane

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
    is_download: bool = False
    """Whether the answer is content of any size."""
    ends_upload: bool = False
    """Whether it turns an upload into a blob. There is no such upload afterwards, whatever was
    heard of it."""
    patient: bool = True
    """Whether it waits for a host that is closed (`kitd.registry.governor`), and is sent again."""

    @property
    def lane(self) -> Lane:
        """With which others it waits for its turn."""
        # However little it carries: to put an upload together may take a registry minutes.
        if callable(self.content) or self.ends_upload:
            return Lane.WRITING
        return Lane.READING if self.is_download else Lane.SMALL

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent again although it may have been done: see `kitd.registry.retry`.

        A POST opens an upload or asks for a token: one more of these does no harm.
        """
        return self.method in {"GET", "HEAD", "POST", "PUT"} and not self.ends_upload
