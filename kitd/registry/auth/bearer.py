"""The Bearer scheme of registries: short-lived tokens from a token server.

Sources: distribution's "Token Authentication Specification" (GET with Basic) and "OAuth2 Token
Authentication" (POST with a refresh token). A token is asked for once, whoever needs it, and kept
until shortly before it expires.
"""

import asyncio
import re
from dataclasses import dataclass, field
from urllib.parse import urlencode
from weakref import WeakValueDictionary

from yarl import URL

from kitd.oci.challenge import Challenge
from kitd.oci.json_reader import InvalidJsonError, read_object
from kitd.registry.auth.basic import basic_authorization
from kitd.registry.auth.scheme import Scheme, Site
from kitd.registry.auth.scope import Scope, merge, parse_scopes
from kitd.registry.credentials import IdentityToken, Password, RegistryToken
from kitd.registry.errors import RegistryProtocolError
from kitd.registry.request import Request

CLIENT_ID = "kitd"
MAX_ANSWER_BYTES = 256 * 1024
"""Tokens that list many groups reach tens of kilobytes."""
USUAL_LIFE_S = 60
"""What a token lives where the answer says nothing that makes sense (token specification)."""
MOST_LIFE_S = 3600
"""A token that claims to live longer is asked for once an hour all the same."""
EARLY_S = 5.0
"""How long before its end a token is replaced, so that it does not expire on the way; one of a life
of a few seconds after half of it."""

_TOKEN = re.compile(r"[\x21-\x7e]+")
_NO_POSTS = frozenset({404, 405})
"""What token servers answer that know no OAuth2: the identity token is sent as a password then."""

Key = frozenset[Scope]


@dataclass(frozen=True, slots=True)
class Token:
    """An access token and the monotonic second until which it is used."""

    value: str = field(repr=False)
    use_until: float


def parse_token(body: bytes, *, now: float) -> Token:
    """Read a token server's answer. Raises `InvalidJsonError`.

    The server's own clock (`issued_at`) is not believed: the life counts from `now`.
    """
    answer = read_object(body, max_bytes=MAX_ANSWER_BYTES)
    value = answer.get("token") or answer.get("access_token")
    if not isinstance(value, str) or _TOKEN.fullmatch(value) is None:
        raise InvalidJsonError("the answer holds no token")
    stated = answer.get("expires_in")
    life_s = stated if isinstance(stated, int) and stated > 0 else USUAL_LIFE_S
    life_s = min(life_s, MOST_LIFE_S)
    return Token(value, now + max(life_s - EARLY_S, life_s / 2))


def realm_of(challenge: Challenge, origin: URL) -> URL | None:
    """Return the URL of the token server; None where it is missing or may not be asked.

    Credentials go there: over TLS, unless the registry itself is reached without.
    """
    try:
        realm = origin.join(URL(challenge.parameters.get("realm", "")))
    except ValueError:
        return None
    allowed = ("http", "https") if origin.scheme == "http" else ("https",)
    named = "realm" in challenge.parameters and realm.host is not None and realm.user is None
    return realm if named and realm.scheme in allowed else None


class BearerAuthorizer:
    """Fetches and keeps the tokens for one registry."""

    def __init__(self, challenge: Challenge, site: Site) -> None:
        realm = realm_of(challenge, site.origin)
        if realm is None:
            raise RegistryProtocolError(
                "its challenge names no token server that may get credentials",
                host=site.host,
                operation="log in",
                hint="the realm of a Bearer challenge must be an https URL",
            )
        self._site = site
        self._realm = realm
        self._service = challenge.parameters.get("service", "")
        self._takes_posts = True
        self._tokens: dict[Key, Token] = {}
        self._asked: dict[Key, tuple[Scope, ...]] = {}
        self._flights: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    async def authorization(self, scopes: tuple[Scope, ...]) -> str | None:
        """Return the header with a token for `scopes`, fetched if none is at hand."""
        key = frozenset(scopes)
        flight = self._flights.setdefault(key, asyncio.Lock())
        async with flight:
            now = self._site.clock()
            token = self._tokens.get(key)
            if token is None or token.use_until <= now:
                self._tokens = {k: t for k, t in self._tokens.items() if t.use_until > now}
                token = await self._fetch(self._asked.get(key, scopes), now)
                self._tokens[key] = token
        return f"Bearer {token.value}"

    def refused(
        self, challenge: Challenge, scopes: tuple[Scope, ...], authorization: str | None, /
    ) -> None:
        """Forget the token, and ask for the challenge's scope too from now on.

        Registries behind a path or a proxy know the repository by another name than their clients.
        """
        key = frozenset(scopes)
        token = self._tokens.get(key)
        if token is not None and f"Bearer {token.value}" == authorization:
            del self._tokens[key]
        wanted = parse_scopes(challenge.parameters.get("scope", ""))
        merged = merge((*scopes, *wanted))
        if frozenset(merged) != key:
            self._asked[key] = merged

    async def _fetch(self, scopes: tuple[Scope, ...], now: float) -> Token:
        repository = scopes[0].repository if scopes else None
        credential = await self._site.credential(repository)
        if isinstance(credential, RegistryToken):
            return Token(credential.secret, now + USUAL_LIFE_S)
        body = None
        if isinstance(credential, IdentityToken) and self._takes_posts:
            body = await self._site.fetch(self._post(scopes, credential), None)
            self._takes_posts = body is not None
        if body is None:
            body = await self._site.fetch(*self._get(scopes, credential))
            assert body is not None
        try:
            return parse_token(body, now=now)
        except InvalidJsonError as error:
            raise RegistryProtocolError(
                f"the token server {self._realm.host} answered with no token: {error}",
                host=self._site.host,
                operation="log in",
            ) from error

    def _post(self, scopes: tuple[Scope, ...], credential: IdentityToken) -> Request:
        """Return the request that exchanges an identity token."""
        form = {
            "grant_type": "refresh_token",
            "refresh_token": credential.secret,
            "service": self._service,
            "client_id": CLIENT_ID,
            "scope": " ".join(map(str, scopes)),
        }
        return Request(
            operation="exchange the identity token",
            method="POST",
            url=self._realm,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            content=urlencode(form).encode(),
            accept=_NO_POSTS,
            # The form is a secret: nobody else may be told.
            follows_redirects=False,
        )

    def _get(
        self, scopes: tuple[Scope, ...], credential: Password | IdentityToken | None
    ) -> tuple[Request, str | None]:
        """Return the request for a token and its Authorization header."""
        query = [("service", self._service)] if self._service else []
        query += [("scope", str(scope)) for scope in scopes]
        header = None
        if credential is not None:
            query += [("account", credential.username)] if credential.username else []
            query += [("client_id", CLIENT_ID)]
            header = basic_authorization(credential.username, credential.secret)
        get = Request(operation="log in", method="GET", url=self._realm.extend_query(query))
        return get, header


BEARER = Scheme("bearer", BearerAuthorizer)
