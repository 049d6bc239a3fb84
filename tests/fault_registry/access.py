"""Who may do what: Basic, and a token server that speaks GET and OAuth2 POST.

Source: the distribution project's token authentication specification.
"""

import base64
import binascii
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fault_registry.quirks import Quirks

USER, PASSWORD = "ada", "correct horse"
IDENTITY_TOKEN = "ada's identity"
SERVICE = "fault-registry"

Actions = frozenset[tuple[str, str]]
"""Pairs of a repository and `pull`, `push` or `delete`."""


@dataclass(frozen=True, slots=True)
class Token:
    """What was handed out."""

    ends_s: float
    """On the monotonic clock."""
    actions: Actions


@dataclass(slots=True)
class Access:
    """The tokens that were handed out so far, good or not."""

    tokens: dict[str, Token] = field(default_factory=dict)

    def issue(self, scopes: Iterable[str], user: str | None, quirks: Quirks) -> dict[str, object]:
        """Return the answer of the token server; strangers get what they may have."""
        granted = {action for scope in scopes for action in _parse_scope(scope)}
        if user is None:
            granted = {action for action in granted if action[1] == "pull"}
            if not quirks.anonymous_pull:
                granted = set()
        token = secrets.token_urlsafe(24)
        self.tokens[token] = Token(time.monotonic() + quirks.token_s, frozenset(granted))
        told_s = quirks.token_s if quirks.token_told_s is None else quirks.token_told_s
        return {"token": token, "access_token": token, "expires_in": int(told_s)}

    def allowed(self, authorization: str, wanted: Actions, quirks: Quirks) -> bool:
        """Whether a request with this header may do all that it wants to."""
        if quirks.auth == "none":
            return True
        if quirks.auth == "basic":
            return basic_user(authorization) is not None
        scheme, _, value = authorization.partition(" ")
        token = self.tokens.get(value) if scheme.lower() == "bearer" else None
        return token is not None and token.ends_s > time.monotonic() and wanted <= token.actions

    def remaining_s(self, authorization: str) -> float:
        """Return for how long the token of a request is still good."""
        token = self.tokens.get(authorization.partition(" ")[2])
        return 1e9 if token is None else token.ends_s - time.monotonic()


def basic_user(authorization: str) -> str | None:
    """Return the user of a Basic header, if the password is right."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return user if (user, password) == (USER, PASSWORD) else None


def form_user(form: Mapping[str, object]) -> str | None:
    """Return the user of an OAuth2 form, if it proves to be one."""
    match form.get("grant_type"):
        case "password":
            proven = (form.get("username"), form.get("password")) == (USER, PASSWORD)
        case "refresh_token":
            proven = form.get("refresh_token") == IDENTITY_TOKEN
        case _:
            proven = False
    return USER if proven else None


def challenge(quirks: Quirks, realm: str, wanted: Actions) -> str:
    """Return the WWW-Authenticate header of a refusal."""
    if quirks.auth == "basic":
        asked = f'Basic realm="{SERVICE}"'
    else:
        asked = f'Bearer realm="{realm}",service="{SERVICE}"'
        if wanted:
            asked += f',scope="{" ".join(_scopes(wanted))}"'
    if quirks.challenges == "several":
        return f'Negotiate, Digest realm="a, b", nonce="c\\"d", {asked}'
    return asked


def _scopes(wanted: Actions) -> list[str]:
    names = sorted({repository for repository, _ in wanted})
    return [
        f"repository:{name}:{','.join(sorted(a for n, a in wanted if n == name))}" for name in names
    ]


def _parse_scope(scope: str) -> set[tuple[str, str]]:
    actions = set()
    for one in scope.split():
        kind, _, rest = one.partition(":")
        name, _, verbs = rest.rpartition(":")
        if kind == "repository" and name:
            actions |= {(name, verb) for verb in verbs.split(",")}
    return actions
