"""The Basic scheme (RFC 7617): the user and the password with every request."""

import base64

from kitd.oci.challenge import Challenge
from kitd.registry.auth.scheme import Scheme, Site
from kitd.registry.auth.scope import Scope
from kitd.registry.credentials import Password


def basic_authorization(username: str, secret: str) -> str:
    """Return the Authorization header for a user."""
    pair = f"{username}:{secret}".encode()
    return "Basic " + base64.b64encode(pair).decode()


class BasicAuthorizer:
    """Looks the password up once for a repository, and again when it was refused."""

    def __init__(self, _challenge: Challenge, site: Site) -> None:
        self._site = site
        self._headers: dict[str | None, str] = {}

    async def authorization(self, scopes: tuple[Scope, ...]) -> str | None:
        """Return the header, or None where no password is known."""
        repository = scopes[0].repository if scopes else None
        header = self._headers.get(repository)
        if header is None:
            credential = await self._site.credential(repository)
            if not isinstance(credential, Password):
                return None
            header = basic_authorization(credential.username, credential.secret)
            self._headers[repository] = header
        return header

    def refused(
        self, _challenge: Challenge, scopes: tuple[Scope, ...], authorization: str | None, /
    ) -> None:
        """Forget the password; it may have been changed since it was looked up."""
        repository = scopes[0].repository if scopes else None
        if self._headers.get(repository) == authorization:
            self._headers.pop(repository, None)


BASIC = Scheme("basic", BasicAuthorizer)
