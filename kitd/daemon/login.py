"""Logging in to a registry for a person, in a process of his own: `python -m kitd.daemon.login`.

Not a part of the daemon, and it does not talk to it: it is what `kitctl login` and `logout` run,
with the person's rights and environment, and with all that kitd knows about reaching registries.
One JSON object comes on stdin, so that no secret is ever on a command line, and one goes to stdout.
"""

import asyncio
import json
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from kitd.config import model
from kitd.config.load import load_config
from kitd.config.places import SYSTEM_CONFIG, find_places
from kitd.config.problem import ConfigError
from kitd.daemon.translation import registry_settings
from kitd.errors import KitdError
from kitd.oci.json_reader import InvalidJsonError, read_object
from kitd.oci.reference import InvalidReferenceError, parse_repository
from kitd.registry.client import RegistryClient
from kitd.registry.credentials import CredentialsError, IdentityToken, Password
from kitd.registry.errors import RegistryTimeoutError
from kitd.registry.login_store import erase_login, store_login
from kitd.registry.settings import Given, RegistrySettings
from kitd.registry.transport import Surroundings
from kitd.secret import Secrets

MAX_INPUT_BYTES = 256 * 1024
LOGIN_S = 90.0


def main() -> int:
    """Do what stdin asks for and say on stdout what came of it."""
    # What registries are told and answer is no news for a person who logs in.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    secrets = Secrets()
    try:
        with secrets.redacted():
            answer = asyncio.run(_answer(sys.stdin.buffer.read(MAX_INPUT_BYTES + 1), secrets))
    except KitdError as error:
        told = {"code": error.code, "message": error.message, "hint": error.hint}
        answer = {"error": told}
    except KeyboardInterrupt:
        return 130
    sys.stdout.write(json.dumps(answer))
    return 0


async def _answer(question: bytes, secrets: Secrets) -> dict[str, Any]:
    try:
        asked = read_object(question, max_bytes=MAX_INPUT_BYTES)
    except InvalidJsonError as error:
        raise CredentialsError(f"cannot read what is asked for: {error}") from None
    texts = {key: value for key, value in asked.items() if isinstance(value, str)}
    registry = registry_of(texts.get("registry", ""))
    if texts.get("action") == "logout":
        erased = await erase_login(registry, os.environ)
        return {
            "registry": registry,
            "path": str(erased.path),
            "was_there": erased.was_there,
            "still_in": [str(path) for path in erased.still_in],
        }
    given = Given(texts.get("username", ""), texts.get("secret", ""))
    if not given.secret:
        raise CredentialsError("there is no password", hint="an empty one is none")
    secrets.learn(given.secret, username=given.username or None)
    settings, warnings = _settings(registry)
    is_tried = await _try(registry, replace(settings, credentials=given), given)
    credential = (
        Password(given.username, given.secret) if given.username else IdentityToken(given.secret)
    )
    stored = await store_login(registry, credential, os.environ)
    return {
        "registry": registry,
        "username": given.username or None,
        "path": str(stored.path),
        "helper": stored.helper,
        "hidden_by": None if stored.hidden_by is None else str(stored.hidden_by),
        "tried": is_tried,
        "warnings": warnings,
    }


def registry_of(text: str) -> str:
    """Return the registry that a person names, with or without `https://` before it.

    Raises `InvalidReferenceError`.
    """
    host = text.removeprefix("https://").removeprefix("http://").rstrip("/")
    repository = None
    if "/" not in host and any(mark in host for mark in ".:"):
        repository = parse_repository(f"{host}/x")
    if repository is None or repository.is_local:
        raise InvalidReferenceError(
            f"{text[:160]!r} is not a registry",
            hint="name its host, such as registry.example.com or localhost:5000",
        )
    return repository.registry


def _settings(registry: str) -> tuple[RegistrySettings, list[str]]:
    """Return how the configuration says that a registry is reached; that of the machine if any."""
    places = find_places(os.environ, os.geteuid())
    system = places._replace(config=places.config._replace(path=SYSTEM_CONFIG))
    if not Path(places.config.path).exists() and os.access(SYSTEM_CONFIG, os.R_OK):
        places = system
    try:
        registries = load_config(places).config.registries
    except ConfigError as error:
        warning = f"{error.message}: its registries are not known here"
        return registry_settings(model.RegistryConfig()), [warning]
    return registry_settings(registries.get(registry, model.RegistryConfig())), []


class _Sent(Secrets):
    """Learns of each secret that is used, and so whether one is."""

    def __init__(self, secret: str) -> None:
        super().__init__()
        self._secret = secret
        self.was_asked_for = False

    def learn(self, secret: str, *, username: str | None = None) -> None:
        """Take note of a secret."""
        super().learn(secret, username=username)
        self.was_asked_for = self.was_asked_for or secret == self._secret


async def _try(registry: str, settings: RegistrySettings, given: Given) -> bool:
    """Log in to a registry; whether it asked who we are. Raises `RegistryError`."""
    sent = _Sent(given.secret)
    surroundings = Surroundings(environment=dict(os.environ), secrets=sent)
    async with RegistryClient(lambda _: settings, surroundings) as client:
        try:
            async with asyncio.timeout(LOGIN_S):
                await client.ping(registry)
        except TimeoutError:
            raise RegistryTimeoutError(
                f"it gave no answer within {LOGIN_S:.0f} s", host=registry, operation="log in"
            ) from None
    return sent.was_asked_for


if __name__ == "__main__":
    sys.exit(main())
