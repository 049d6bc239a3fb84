"""Answering challenges: picks the scheme, remembers it, and gives up after one honest try."""

from collections.abc import Iterable

from kitd.oci.challenge import Challenge, parse_challenges
from kitd.registry.auth.basic import BASIC
from kitd.registry.auth.bearer import BEARER
from kitd.registry.auth.scheme import Authorizer, Scheme, Site
from kitd.registry.auth.scope import Scope
from kitd.registry.errors import (
    RegistryDeniedError,
    RegistryNotFoundError,
    RegistryProtocolError,
)

SCHEMES: tuple[Scheme, ...] = (BEARER, BASIC)
"""What kitd can do, the preferred first."""

_USELESS = (RegistryDeniedError, RegistryNotFoundError, RegistryProtocolError)
"""No token server, or one that gives nothing."""


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

        `authorization` is what the 401 answered. None where another try cannot help. Where several
        schemes are offered, the next is used if one cannot be; if none can, the first error is
        raised.
        """
        challenges = [challenge for header in headers for challenge in parse_challenges(header)]
        offered = [
            (scheme, challenge)
            for scheme in SCHEMES
            for challenge in challenges
            if challenge.scheme == scheme.name
        ]
        failure = None
        for scheme, challenge in offered:
            try:
                authorizer = self._authorizer_for(scheme, challenge)
                authorizer.refused(challenge, scopes, authorization)
                answer = await authorizer.authorization(scopes)
            except _USELESS as error:
                failure = failure or error
            else:
                if answer not in (None, authorization):
                    return answer
        if failure is not None:
            raise failure
        return None

    def _authorizer_for(self, scheme: Scheme, challenge: Challenge) -> Authorizer:
        """Return the authorizer in use; a new one where the registry moved to another server."""
        parameters = challenge.parameters
        served = (scheme.name, parameters.get("realm"), parameters.get("service"))
        if self._authorizer is None or served != self._served:
            self._authorizer = scheme.authorizer(challenge, self._site)
            self._served = served
        return self._authorizer
