"""Answering challenges: picks the scheme, remembers it, and gives up after one honest try."""

from collections.abc import Iterable

from kitd.oci.challenge import Challenge, parse_challenges
from kitd.registry.auth.basic import BASIC
from kitd.registry.auth.bearer import BEARER
from kitd.registry.auth.scheme import Authorizer, Scheme, Site
from kitd.registry.auth.scope import Scope

SCHEMES: tuple[Scheme, ...] = (BEARER, BASIC)
"""What kitd can do, the preferred first."""


class Authenticator:
    """Knows, from its first challenge on, what a registry wants with every request."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._served: tuple[str | None, ...] = ()
        self._authorizer: Authorizer | None = None

    async def authorization(self, scopes: tuple[Scope, ...]) -> str | None:
        """Return the header to send unasked; None before the first challenge."""
        if self._authorizer is None:
            return None
        return await self._authorizer.authorization(scopes)

    async def answer(
        self, headers: Iterable[str], scopes: tuple[Scope, ...], authorization: str | None
    ) -> str | None:
        """Return the header to try after a 401 with these WWW-Authenticate headers.

        `authorization` is what the 401 answered. None where another try cannot help.
        """
        challenges = [challenge for header in headers for challenge in parse_challenges(header)]
        for scheme in SCHEMES:
            for challenge in challenges:
                if challenge.scheme == scheme.name:
                    authorizer = self._authorizer_for(scheme, challenge)
                    authorizer.refused(challenge, scopes, authorization)
                    answer = await authorizer.authorization(scopes)
                    return None if answer == authorization else answer
        return None

    def _authorizer_for(self, scheme: Scheme, challenge: Challenge) -> Authorizer:
        """Return the authorizer in use; a new one where the registry moved to another server."""
        parameters = challenge.parameters
        served = (scheme.name, parameters.get("realm"), parameters.get("service"))
        if self._authorizer is None or served != self._served:
            self._authorizer = scheme.authorizer(challenge, self._site)
            self._served = served
        return self._authorizer
