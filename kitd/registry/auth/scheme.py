"""What an authentication scheme is given and what it has to do."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from yarl import URL

from kitd.oci.challenge import Challenge
from kitd.registry.auth.scope import Scope
from kitd.registry.credentials import Credential
from kitd.registry.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The registry that a scheme serves, and the ways out of it."""

    host: str
    origin: URL
    credential: Callable[[str | None], Awaitable[Credential | None]]
    """Looks up what the user has for a repository of this registry (None: for the registry)."""
    fetch: Callable[[Request, str | None], Awaitable[bytes | None]]
    """Sends a request with this Authorization header, or none, and returns the bounded body; None
    where the answer has a status that the request accepts beside 2xx.

    The header goes to the origin of the request's URL only.
    """
    clock: Callable[[], float]
    """Monotonic seconds."""


class Authorizer(Protocol):
    """A scheme at work for one registry."""

    async def authorization(self, scopes: tuple[Scope, ...]) -> str | None:
        """Return the Authorization header that allows `scopes`; None where there is none.

        Raises `RegistryError`, `CredentialsError`.
        """
        ...

    def refused(
        self, challenge: Challenge, scopes: tuple[Scope, ...], authorization: str | None, /
    ) -> None:
        """Learn from a 401: forget the header it answered, mind what it asks for instead."""
        ...


@dataclass(frozen=True, slots=True)
class Scheme:
    """A name in WWW-Authenticate, lower case, and what serves it."""

    name: str
    authorizer: Callable[[Challenge, Site], Authorizer]
